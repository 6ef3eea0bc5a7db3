"""What a study may ask of a DALL·E 1 besides pictures: embeddings of its CLIP, and how likely it finds a pair."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from opendalle.base.axes import Embeddings, Pictures
from opendalle.base.errors import BadRequest
from opendalle.base.protocols import PairLikelihood
from opendalle.clip.model import CLIP
from opendalle.dalle1.parts import Dalle1Parts
from opendalle.dalle1.words import Words
from opendalle.pictures import AnyPicture, PictureOrText, take, take_or_text


class Probes:
    """Meeting point 5 for DALL·E 1: `embed`, `encode_text`, `log_likelihood`; `generate_scored` is beside its verbs."""

    parts: Dalle1Parts
    words: Words

    @torch.no_grad()
    def embed(self, what: PictureOrText | Pictures) -> Embeddings:
        """Return the embedding that its CLIP, which ranks candidates, makes of a picture or a text, one row.

        Args:
            what: a picture, or a text, as `pictures.take_or_text` tells them apart; or many pictures as the codec
                draws them.

        Raises:
            BadPicture: when the picture cannot be read.
            BadRequest: when the model has no CLIP.
        """
        clip, words = self._clip(), self.words
        taken = what if isinstance(what, Tensor) else take_or_text(what)
        if isinstance(taken, str):
            return clip.encode_text(*words.as_clip_reads(taken)).pooled
        values = taken if isinstance(taken, Tensor) else words.as_codec_sees(taken)
        return F.normalize(clip.encode_pictures(words.as_clip_sees(values)), dim=-1)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Embeddings:
        """Return the embeddings that its CLIP makes of captions, one row each.

        Args:
            captions: in any language.

        Raises:
            BadRequest: when the model has no CLIP.
        """
        return self._clip().encode_text(*self.words.as_clip_reads(*captions)).pooled

    @torch.no_grad()
    def log_likelihood(self, captions: Sequence[str], pictures: Pictures | Sequence[AnyPicture]) -> PairLikelihood:
        """Return how likely captions and pictures are together, in nats.

        Args:
            captions: one a picture, or many of a single picture, which is then encoded once.
            pictures: of any size and shape; or a tensor of the codec's size, in [-1, 1].

        Raises:
            BadPicture: when a picture cannot be read.
            BadRequest: when there is not one caption a picture.
        """
        if len(pictures) not in (1, len(captions)):
            raise BadRequest(f"{len(captions)} captions of {len(pictures)} pictures", "one caption a picture")
        if not isinstance(pictures, Tensor):
            pictures = torch.cat([self.words.as_codec_sees(take(one)) for one in pictures])
        return self.words.likelihood(captions, self.words.encode(pictures).expand(len(captions), -1))

    def _clip(self) -> CLIP:
        if self.parts.clip is None:
            raise BadRequest("a model without CLIP", "one that has it, to embed with")
        return self.parts.clip
