"""What a DALL·E 3 is made of, and how it draws when nobody says otherwise."""

from dataclasses import dataclass

from opendalle.base.errors import require
from opendalle.codec.protocol import Codec
from opendalle.dalle3.denoiser import Denoiser
from opendalle.dalle3.reading import CaptionReader
from opendalle.samplers.settings import StageSettings
from opendalle.upsampling.network import Upsampler
from opendalle.upsampling.settings import UpsamplerSettings


@dataclass(frozen=True, kw_only=True)
class Dalle3Config:
    """Settings of a whole DALL·E 3; the networks' own configs travel with their weights."""

    denoiser: StageSettings  # over the codec's grid
    context: int  # tokens a caption, its end included
    upsampler: UpsamplerSettings | None = None  # over pixels; None: there is no upsampler
    upscaler: UpsamplerSettings | None = None  # over the pixels of large pictures; None: there is none

    def __post_init__(self) -> None:
        require(self.context >= 1, f"context {self.context}", "at least 1: the end")


@dataclass(frozen=True, kw_only=True)
class Dalle3Parts:
    """The networks of a DALL·E 3."""

    reader: CaptionReader  # tokenizer and frozen text encoder
    denoiser: Denoiser
    codec: Codec
    upsampler: Upsampler | None = None  # from what the codec draws to the size that is drawn natively
    upscaler: Upsampler | None = None  # and from there on

    def __post_init__(self) -> None:
        shape = self.denoiser.config
        wanted, width = self.codec.grid_channels, self.reader.encoder.config.width
        require(shape.channels == wanted, f"a denoiser of {shape.channels} channels", f"{wanted}, as the codec's grid")
        require(
            shape.text_width == width, f"a denoiser of states {shape.text_width} wide", f"{width}, as the encoder's"
        )
