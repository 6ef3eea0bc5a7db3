"""Put the picture that matches its caption best first, as DALL·E did with 512 candidates a caption."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from opendalle.base.axes import Pictures
from opendalle.base.errors import BadRequest
from opendalle.clip.model import CLIP


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Pictures from best to worst; both tuples run in that order."""

    order: tuple[int, ...]  # places of the pictures in what was given
    scores: tuple[float, ...]  # cosine similarity to the caption, -1 to 1

    @property
    def best(self) -> int:
        """Place of the picture that matches best."""
        return self.order[0]


@torch.inference_mode()
def rerank(clip: CLIP, pictures: Pictures, ids: Int[Tensor, "1 n"], mask: Bool[Tensor, "1 n"]) -> Ranking:
    """Rank pictures by how well they match one caption; equals keep their order.

    Args:
        clip: compares them.
        pictures: candidates, as `CLIP.encode_pictures` takes them.
        ids: the caption, a single row.
        mask: True where its token is real.

    Raises:
        BadRequest: when there is no picture.

    Source: DALL·E, arXiv:2102.12092, section 2.6.
    """
    if len(pictures) == 0:
        raise BadRequest("0 pictures to rank", "at least one")
    similarity = clip.encode_pictures(pictures) @ clip.encode_text(ids, mask).pooled[0]  # (b,)
    scores, order = similarity.float().sort(descending=True, stable=True)
    return Ranking(order=tuple(order.tolist()), scores=tuple(scores.tolist()))
