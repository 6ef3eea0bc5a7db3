"""What a DALL·E 2 is made of, how it draws when nobody says otherwise, and what passes between its networks.

That is captions as read, and the bipartite latent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool
from torch import Tensor

from opendalle.base.axes import Embeddings, Grid, Mask
from opendalle.base.errors import require
from opendalle.clip.model import CLIP, TextEncoding
from opendalle.codec.protocol import Codec
from opendalle.dalle2.decoder import Decoder
from opendalle.dalle2.means import Guess, Sketch
from opendalle.dalle2.priors.diffusion import DiffusionPrior
from opendalle.dalle2.priors.protocol import Prior
from opendalle.samplers.settings import StageSettings
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.upsampling.network import Upsampler
from opendalle.upsampling.settings import UpsamplerSettings


@dataclass(frozen=True, kw_only=True)
class Dalle2Config:
    """Settings of a whole DALL·E 2; the networks' own configs travel with their weights."""

    prior: StageSettings  # over CLIP's picture embeddings
    decoder: StageSettings  # over the codec's grid
    upsampler: UpsamplerSettings | None = None  # over pixels; None: there is no upsampler
    upscaler: UpsamplerSettings | None = None  # over the pixels of large pictures; None: there is none
    candidates: int = 2  # embeddings drawn, of which the one nearest to the caption is kept (section 2.2)
    doubt: float = 0.0  # how far the sketch takes a drawn embedding to be off, 0 to 1; see Sketch.forward
    unit_embeddings: bool = True  # whether the decoder was trained on unit-length z_i; False: on CLIP's raw output

    def __post_init__(self) -> None:
        require(self.candidates >= 1, f"candidates is {self.candidates}", "at least 1")
        require(0 <= self.doubt <= 1, f"doubt is {self.doubt}", "a number from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Dalle2Parts:
    """The networks of a DALL·E 2."""

    tokenizer: BytePairTokenizer
    clip: CLIP
    prior: DiffusionPrior
    decoder: Decoder
    codec: Codec
    guess: Guess | None = None  # for a prior that takes its embeddings
    sketch: Sketch | None = None  # for a decoder that takes its grids
    upsampler: Upsampler | None = None  # from what the codec draws to the size that is drawn natively
    upscaler: Upsampler | None = None  # and from there on
    priors: Mapping[str, Prior] = field(default_factory=dict)  # what may stand in the prior's place, by name


@dataclass(frozen=True)
class Prompted:
    """Captions as all networks read them, one row a picture."""

    text: TextEncoding
    mask: Mask
    is_empty: Bool[Tensor, " b"]  # the unconditional model: guidance has nothing to push towards

    def rows(self, index: Tensor) -> "Prompted":
        """Keep or repeat some rows."""
        text = TextEncoding(**{name: one[index] for name, one in vars(self.text).items()})
        return Prompted(text, self.mask[index], self.is_empty[index])


@dataclass(frozen=True)
class Latent:
    """What the decoder makes a picture from: the bipartite latent, which together rebuilds it.

    Source: unCLIP, section 3.
    """

    z: Embeddings | None  # z_i: what it means; None: the captions alone say so
    noise: Grid | None = None  # x_T: all that the decoder needs besides; None: drawn from the picture's own chance
    doubt: float = 0.0  # how far z may be off: 0 of a picture that was seen; see Sketch.forward
