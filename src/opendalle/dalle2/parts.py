"""What a DALL·E 2 is made of, and what passes between its networks: captions as read, and the bipartite latent."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool
from torch import Tensor

from opendalle.base.axes import Embeddings, Grid, Mask
from opendalle.clip.model import CLIP, TextEncoding
from opendalle.codec.protocol import Codec
from opendalle.dalle2.decoder import Decoder
from opendalle.dalle2.means import Guess, Sketch
from opendalle.dalle2.priors.diffusion import DiffusionPrior
from opendalle.dalle2.priors.protocol import Prior
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.upsampling.network import Upsampler


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
