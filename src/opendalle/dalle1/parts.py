"""What a DALL·E 1 is made of, and how it draws when nobody says otherwise."""

from dataclasses import dataclass
from typing import Literal

from opendalle.base.errors import require
from opendalle.clip.model import CLIP
from opendalle.codec.protocol import TokenCodec
from opendalle.dalle1.transformer import Dalle1Transformer
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.upsampling.network import Upsampler
from opendalle.upsampling.settings import UpsamplerSettings

Rank = Literal["clip", "likelihood", "gain"]


@dataclass(frozen=True, kw_only=True)
class Dalle1Config:
    """Settings of a whole DALL·E 1; the networks' own configs travel with their weights."""

    guidance: float = 1.0  # away from the empty caption; 1 is off, as in the paper
    temperature: float = 1.0  # divides the logits; 0 takes the likeliest word
    top_k: int = 0  # only so many of the likeliest words; 0: all
    top_p: float = 1.0  # only the likeliest words that have this probability together; 1: all
    candidates: int = 1  # pictures drawn for each that is handed out, of which the best is kept (section 2.6: 512)
    edit_candidates: int = 4  # the same of an edit, whose words are drawn blind to what comes after them
    rank: Rank = "clip"  # which is best: by CLIP, by the model's own likelihood, or by what the caption adds to it
    vary_share: float = 0.5  # of a picture's words that a variation draws anew, the last ones
    upsampler: UpsamplerSettings | None = None  # over pixels; None: there is no upsampler
    upscaler: UpsamplerSettings | None = None  # over the pixels of large pictures; None: there is none

    def __post_init__(self) -> None:
        require(self.guidance >= 0, f"guidance is {self.guidance}", "at least 0; 1 is off")
        require(0 <= self.temperature <= 100, f"temperature is {self.temperature}", "0 to 100")
        require(self.top_k >= 0, f"top_k is {self.top_k}", "at least 1, or 0: all")
        require(0 < self.top_p <= 1, f"top_p is {self.top_p}", "above 0, at most 1")
        numbers = (self.candidates, self.edit_candidates)
        require(min(numbers) >= 1, f"candidates {numbers}", "at least 1")
        require(self.rank in ("clip", "likelihood", "gain"), f"rank is {self.rank!r}", "clip, likelihood or gain")
        require(0 <= self.vary_share <= 1, f"vary_share is {self.vary_share}", "0 to 1")


@dataclass(frozen=True, kw_only=True)
class Dalle1Parts:
    """The networks of a DALL·E 1.

    Raises:
        BadConfig: when the transformer does not speak the codec's words or the tokenizer's tokens.
    """

    tokenizer: BytePairTokenizer
    transformer: Dalle1Transformer
    codec: TokenCodec
    clip: CLIP | None = None  # ranks candidates; reads the tokenizer's tokens, too
    upsampler: Upsampler | None = None  # from what the codec draws to the size that is drawn natively
    upscaler: Upsampler | None = None  # and from there on

    def __post_init__(self) -> None:
        config, side = self.transformer.config, self.codec.picture_size // self.codec.factor
        speaks = (config.picture_vocabulary, config.grid_height, config.grid_width, config.text_vocabulary)
        wanted = (self.codec.vocabulary, side, side, self.tokenizer.vocab_size)
        require(speaks == wanted, f"a transformer of words, rows, columns and tokens {speaks}", f"{wanted}")
