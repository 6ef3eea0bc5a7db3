"""A CLIP with its tokenizer, for those who have words and pictures of other sizes: both become one row."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float

from opendalle.base.axes import Embeddings, Mask, Pictures, Tokens
from opendalle.base.errors import require
from opendalle.clip.model import CLIP
from opendalle.tokenizers.bpe import BytePairTokenizer


class ClipEmbedder:
    """Embeds captions, and pictures of any square size.

    Args:
        clip: in evaluation mode.
        tokenizer: of that CLIP.

    Raises:
        BadConfig: when the tokenizer has more tokens than CLIP.
    """

    def __init__(self, clip: CLIP, tokenizer: BytePairTokenizer) -> None:
        known = clip.config.vocab
        require(tokenizer.vocab_size <= known, f"a tokenizer of {tokenizer.vocab_size} tokens", f"at most {known}")
        self.clip, self.tokenizer = clip, tokenizer

    def spell(self, captions: Sequence[str]) -> tuple[Tokens, Mask]:
        """Spell captions, one row each; True where a token is real.

        Args:
            captions: any.
        """
        packed, device = (
            self.tokenizer.pack(list(captions), self.clip.config.context),
            self.clip.text.tokens.weight.device,
        )
        return torch.from_numpy(packed.ids).to(device), torch.from_numpy(packed.mask).to(device)

    def fit(self, pictures: Pictures) -> Float[torch.Tensor, "b c2 h2 w2"]:
        """Fit pictures to CLIP's size and channels.

        Args:
            pictures: squares, in [-1, 1].
        """
        channels, side = self.clip.config.channels, self.clip.config.size
        if pictures.shape[1] > channels:  # premultiplied, laid on white
            pictures = pictures[:, :3] + 1 - pictures[:, 3:]
        elif pictures.shape[1] < channels:
            pictures = torch.cat([pictures, torch.ones_like(pictures[:, :1])], dim=1)
        if pictures.shape[-1] == side:
            return pictures
        return F.interpolate(pictures, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> Embeddings:
        """Embed captions, as unit vectors.

        Args:
            captions: in any language.
        """
        return self.clip.encode_text(*self.spell(captions)).pooled

    @torch.no_grad()
    def pictures(self, pictures: Pictures) -> Embeddings:
        """Embed pictures, as unit vectors.

        Args:
            pictures: squares, in [-1, 1].
        """
        return F.normalize(self.clip.encode_pictures(self.fit(pictures)), dim=-1)
