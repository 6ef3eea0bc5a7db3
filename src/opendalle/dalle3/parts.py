"""What a DALL·E 3 is made of, and how it draws when nobody says otherwise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Bool
from torch import Tensor

from opendalle.base.errors import require
from opendalle.clip.embedder import ClipEmbedder
from opendalle.codec.protocol import Codec
from opendalle.dalle3.captioner import Captioner
from opendalle.dalle3.denoiser import Denoiser
from opendalle.dalle3.reading import CaptionReader
from opendalle.dalle3.rewriting.protocol import Rewriter
from opendalle.dalle3.rewriting.upsampler import PromptUpsamplerConfig
from opendalle.dalle3.text_encoder import TextStates
from opendalle.samplers.settings import StageSettings
from opendalle.upsampling.network import Upsampler
from opendalle.upsampling.settings import UpsamplerSettings


@dataclass(frozen=True, kw_only=True)
class Dalle3Config:
    """Settings of a whole DALL·E 3; the networks' own configs travel with their weights."""

    denoiser: StageSettings  # over the codec's grid
    context: int  # tokens a caption, its end included
    shapes: Sequence[tuple[int, int]] = ()  # rows and columns of wide and tall grids that it was trained on, besides
    # the codec's square; the shorter side is the square's
    rewrite: Literal["own", "off"] = "own"  # what becomes of a prompt when nobody says: own, if there is a rewriter
    rewriting: PromptUpsamplerConfig = field(default_factory=PromptUpsamplerConfig)  # when, and what must be kept
    vary_strength: float = 0.8  # of a variation, unless eta says otherwise
    upsampler: UpsamplerSettings | None = None  # over pixels; None: there is no upsampler
    upscaler: UpsamplerSettings | None = None  # over the pixels of large pictures; None: there is none

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", tuple((rows, columns) for rows, columns in self.shapes))  # JSON gives lists
        require(self.context >= 1, f"context {self.context}", "at least 1: the end")
        require(self.rewrite in ("own", "off"), f"rewrite is {self.rewrite!r}", "own or off")
        require(0 <= self.vary_strength <= 1, f"vary_strength is {self.vary_strength}", "0 to 1")
        require(all(min(one) >= 1 for one in self.shapes), f"shapes {self.shapes}", "rows and columns, at least 1")


@dataclass(frozen=True, kw_only=True)
class Dalle3Parts:
    """The networks of a DALL·E 3; what few pictures need is fetched when it is first asked for.

    Raises:
        BadConfig: when the denoiser does not fit the codec's grid or the encoder's states.
    """

    reader: CaptionReader  # tokenizer and frozen text encoder
    denoiser: Denoiser
    codec: Codec  # any, also one whose grids a consistency decoder draws
    rewriter: Rewriter | None = None  # makes long captions of prompts
    captioner: Callable[[], Captioner] | None = None  # says what pictures show that are to be changed
    clip: Callable[[], ClipEmbedder] | None = None  # for embeddings alone: it draws without
    upsampler: Upsampler | None = None  # from what the codec draws to the size that is drawn natively
    upscaler: Upsampler | None = None  # and from there on

    def __post_init__(self) -> None:
        shape = self.denoiser.config
        wanted, width = self.codec.grid_channels, self.reader.encoder.config.width
        require(shape.channels == wanted, f"a denoiser of {shape.channels} channels", f"{wanted}, as the codec's grid")
        require(
            shape.text_width == width, f"a denoiser of states {shape.text_width} wide", f"{width}, as the encoder's"
        )


@dataclass(frozen=True)
class Prompted:
    """Captions as the text encoder read them, one row a picture."""

    said: TextStates
    is_empty: Bool[Tensor, " b"]  # the unconditional model: guidance has nothing to push towards

    def rows(self, index: Tensor) -> "Prompted":
        """Keep or repeat some rows."""
        return Prompted(self.said.rows(index), self.is_empty[index])
