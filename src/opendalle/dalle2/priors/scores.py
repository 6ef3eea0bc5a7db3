"""What a prior is worth before anything is drawn: its embeddings beside those of the true pictures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F

from opendalle.base.axes import Embeddings
from opendalle.base.errors import BadRequest, require
from opendalle.base.rng import picture_generator
from opendalle.clip.retrieval import measure_retrieval
from opendalle.dalle2.priors.protocol import Prior, Said, draw_nearest

CHUNK = 256  # captions drawn at once


@dataclass(frozen=True, kw_only=True)
class PriorScores:
    """Scores of one prior; a mean is always nearer to the truth than a draw, so they are read together."""

    cosine: float  # to the true picture's embedding
    finds_picture: float  # share whose own picture is nearest among all of those measured
    finds_picture_5: float  # the same, among the five nearest
    nearness: float  # cosine to the caption; the true pictures have `true_nearness`
    true_nearness: float  # of the true pictures to their captions
    spread: float  # mean squared distance to the centre over that of the true pictures; a mean has less than 1

    def __post_init__(self) -> None:
        require(-1.001 <= self.cosine <= 1.001, f"a cosine of {self.cosine}", "-1 to 1")

    def rounded(self) -> Mapping[str, float]:
        """Return them for a card."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@torch.no_grad()
def score_prior(prior: Prior, said: Said, empty: Said, z: Embeddings, *, candidates: int = 1) -> PriorScores:
    """Draw an embedding of each caption, from seeds 0, 1, 2, ..., and compare it with its picture's.

    Args:
        prior: any that gives embeddings.
        said: captions that it was not trained on.
        empty: the empty caption, one row.
        z: their pictures' embeddings, unit vectors.
        candidates: as in `draw_nearest`.

    Raises:
        BadRequest: when the prior gives no embeddings.
    """
    drawn: list[Embeddings] = []
    for first in range(0, len(z), CHUNK):
        some = said.rows(slice(first, first + CHUNK))
        generators = [picture_generator(first + k) for k in range(len(some))]
        nothing = empty.rows(torch.zeros(len(some), dtype=torch.long, device=z.device))
        found = draw_nearest(prior, some, nothing, generators, candidates=candidates)
        if found is None:
            raise BadRequest("a prior that gives no embeddings", "one that does: there is nothing to compare")
        drawn.append(found)
    found = torch.cat(drawn)
    retrieval = measure_retrieval(found, z, ks=(1, 5))
    return PriorScores(
        cosine=F.cosine_similarity(found, z).mean().item(),
        finds_picture=retrieval.find_text[1],
        finds_picture_5=retrieval.find_text[5],
        nearness=F.cosine_similarity(found, said.pooled).mean().item(),
        true_nearness=F.cosine_similarity(z, said.pooled).mean().item(),
        spread=(found.var(dim=0).sum() / z.var(dim=0).sum()).item(),
    )
