"""The projection prior: one pass of a small transformer, no steps, no chance.

It reads the caption's token states, z_t and a learned query, and what stands at the query is the embedding.  A squared
error pulls it to the picture's embedding; a contrastive loss keeps it nearer to its own caption than to others, which a
mean alone would blur.

Source: ECLIPSE, arXiv:2312.04655: both losses, 0.2 of the contrastive one, a prior of a thirtieth of the usual size.
Theirs hands Gaussian noise to the network; ours does not, since the least squared error leaves no use for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from opendalle.base.axes import Embeddings
from opendalle.base.errors import require
from opendalle.dalle2.priors.protocol import Said, check_states, without_unused
from opendalle.diffusion.guidance import combine
from opendalle.nn.embeddings import LearnedPositions
from opendalle.nn.transformer import Transformer, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class ProjectionPriorConfig:
    """Shape of a projection prior, and how it is drawn from when nobody says otherwise."""

    embedding_width: int  # e, of CLIP's joint space
    text_width: int  # of a caption token's state
    num_text_tokens: int  # states a caption is padded or cut to
    transformer: TransformerConfig  # every token sees every other
    text_scale: float = 1.0  # multiplies z_t on the way in; sqrt(e) brings unit vectors to unit variance
    guidance: float = 1.0  # 1 is off

    def __post_init__(self) -> None:
        widths = (self.embedding_width, self.text_width, self.num_text_tokens)
        require(min(widths) > 0, f"widths of {self}", "positive numbers")
        require(self.text_scale > 0, f"text_scale {self.text_scale}", "a positive number")
        require(self.guidance >= 0, f"guidance {self.guidance}", "at least 0; 1 is off")
        require(not self.transformer.is_causal, "a causal transformer", "is_causal=False: the caption is read whole")


class ProjectionPrior(nn.Module):
    """Projects a caption to the mean of its pictures' embeddings."""

    is_random = False
    knobs = frozenset({"guidance"})
    embedding_mean: Tensor
    embedding_std: Tensor

    def __init__(self, config: ProjectionPriorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.text_in = nn.Linear(config.text_width, width)
        self.text_embedding_in = nn.Linear(config.embedding_width, width)
        self.query = nn.Parameter(torch.randn(width) * 0.01)
        self.positions = LearnedPositions(config.num_text_tokens + 2, width)
        self.transformer = Transformer(config.transformer)
        self.out = nn.Linear(width, config.embedding_width)
        self.register_buffer("embedding_mean", torch.zeros(config.embedding_width))
        self.register_buffer("embedding_std", torch.full((1,), config.embedding_width**-0.5))

    @torch.no_grad()
    def measure(self, z: Embeddings) -> None:
        """Store mean and spread of the training pictures' embeddings, so that the last layer need not learn them.

        Args:
            z: many of them.
        """
        self.embedding_mean.copy_(z.mean(dim=0))
        self.embedding_std.copy_((z - z.mean(dim=0)).square().mean().sqrt())

    def forward(
        self,
        text_embedding: Float[Tensor, "b e"],
        text_states: Float[Tensor, "b n d"],
        text_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b e"]:
        """Project captions.

        Args:
            text_embedding: z_t, as CLIP gives it.
            text_states: the caption's token states, num_text_tokens of them.
            text_mask: True where a token is real; None: all are.

        Returns:
            The picture's embedding, as CLIP gives it, though a mean of unit vectors is shorter than one.

        Raises:
            BadRequest: when the caption has another number of states.
        """
        check_states(text_states, self.config.num_text_tokens)
        embedding = self.text_embedding_in(text_embedding * self.config.text_scale)
        query = self.query.expand_as(embedding)
        tokens = torch.cat([self.text_in(text_states), embedding[:, None], query[:, None]], dim=1)
        mask = None if text_mask is None else F.pad(text_mask, (0, 2), value=True)
        tokens, mask = without_unused(self.positions(tokens), mask)
        found = self.out(self.transformer(tokens, mask=mask)[:, -1])
        return self.embedding_mean + self.embedding_std * found

    @torch.no_grad()
    def draw(
        self,
        said: Said,
        empty: Said,
        generators: Sequence[Generator],
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Embeddings:
        """Project captions; the arguments are those of `Prior.draw`, steps and chance are not heeded."""
        z, scale = self(said.pooled, said.states, said.mask), self.config.guidance if guidance is None else guidance
        return z if scale == 1 else combine(z, self(empty.pooled, empty.states, empty.mask), scale)


PROJECTION_PRESETS: Mapping[str, ProjectionPriorConfig] = MappingProxyType(
    {
        "emoji": ProjectionPriorConfig(
            embedding_width=256,
            text_width=256,
            num_text_tokens=32,
            transformer=TransformerConfig(width=128, depth=2, heads=4),
            text_scale=16.0,
        ),
        "karlo": ProjectionPriorConfig(  # about 33 million parameters, as the paper's for Karlo; how they lie is ours
            embedding_width=768,
            text_width=768,
            num_text_tokens=77,
            transformer=TransformerConfig(width=512, depth=10, heads=8),
        ),
    }
)
