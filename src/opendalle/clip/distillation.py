"""The text tower is taught words by a sentence encoder that has read far more than any picture set's captions.

So "crimson fruit" or 红苹果 lands beside "red apple" though no caption says so.  Such a teacher is blind to order (it
finds "a cat to the left of a tree" and "a tree to the left of a cat" all but equal), hence it is one term among
others: structure must come from pictures.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.axes import Embeddings
from opendalle.base.errors import require
from opendalle.clip.losses import relation_loss


@dataclass(frozen=True, kw_only=True)
class TextDistillationConfig:
    """How the pooled text embedding is held to the teacher's vectors."""

    embed: int  # e of the CLIP that is taught
    teacher: int  # width of the teacher's vectors
    kind: Literal["cosine", "mse"] = "cosine"  # how a mapped embedding is compared with the teacher's vector
    match_weight: float = 1.0  # of that comparison
    relation_weight: float = 1.0  # of the agreement of similarities within the batch; acts on the joint space itself

    def __post_init__(self) -> None:
        require(self.embed > 0, f"embed is {self.embed}", "a positive number")
        require(self.teacher > 0, f"teacher is {self.teacher}", "a positive number")
        require(self.kind in ("cosine", "mse"), f"kind is {self.kind!r}", "cosine or mse")
        weights = (self.match_weight, self.relation_weight)
        require(min(weights) >= 0, f"weights {weights}", "weights of at least 0")


class TextDistillation(nn.Module):
    """A linear map from our text embedding to the teacher's vector, and the loss; both are dropped after training."""

    def __init__(self, config: TextDistillationConfig) -> None:
        super().__init__()
        self.config = config
        self.head = nn.Linear(config.embed, config.teacher)

    def forward(self, pooled: Embeddings, teacher: Float[Tensor, "b t"]) -> Float[Tensor, ""]:
        """Measure how far our embeddings are from what the teacher says.

        Args:
            pooled: our unit text embeddings.
            teacher: the teacher's vectors of the same sentences; they are scaled to unit length here.
        """
        teacher = F.normalize(teacher.float(), dim=-1)
        mapped = self.head(pooled).float()
        if self.config.kind == "cosine":
            match = (1 - F.cosine_similarity(mapped, teacher, dim=-1)).mean()
        else:
            match = F.mse_loss(mapped, teacher)
        loss = self.config.match_weight * match
        if self.config.relation_weight > 0 and len(pooled) >= 3:  # two sentences have one similarity: nothing to order
            loss = loss + self.config.relation_weight * relation_loss(pooled, teacher)
        return loss
