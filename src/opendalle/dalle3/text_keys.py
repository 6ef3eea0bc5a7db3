"""A caption as a denoiser has read it: what stays the same while a picture is denoised, computed once for all steps."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.dalle3.text_encoder import TextStates
from opendalle.nn.attention import AttentionContext


@dataclass(frozen=True)
class TextKeys:
    """Keys and values of a caption for every attention of one denoiser, and the caption as one vector."""

    context: AttentionContext
    pooled: Float[Tensor, "b d"]  # joins the vector that tells the step; zeros where the denoiser takes none

    def rows(self, index: slice | Tensor) -> "TextKeys":
        """Keep or repeat some captions."""
        return TextKeys(self.context.rows(index), self.pooled[index])

    def pooled_for(self, num_rows: int) -> Float[Tensor, "br d"]:
        """Return the vector of every row, where each few neighbours share a caption."""
        return self.pooled.repeat_interleave(num_rows // len(self.pooled), dim=0)


class TextIn(nn.Module):
    """From the states of a text encoder to a denoiser's context: two linear maps with a GELU between them.

    Args:
        text_width: of a token's state.
        width: of a context token.
        pooled_width: of the vector for the whole caption; None: there is none.

    Source: PixArt, arXiv:2310.00426, its published code; the pooled caption: Stable Diffusion 3, arXiv:2403.03206,
        section 4.
    """

    def __init__(self, text_width: int, width: int, pooled_width: int | None = None) -> None:
        super().__init__()
        self.linear1 = nn.Linear(text_width, width)
        self.linear2 = nn.Linear(width, width)
        self.pooled = None if pooled_width is None else nn.Linear(text_width, pooled_width)

    def forward(self, said: TextStates, project: Callable[[Tensor, Tensor], AttentionContext]) -> TextKeys:
        """Read captions.

        Args:
            said: captions; every row has at least one token, the end.
            project: of the network's attentions: context and mask to keys and values.
        """
        states = self.linear2(F.gelu(self.linear1(said.states), approximate="tanh"))
        pooled = states.new_zeros(len(states), 0)
        if self.pooled is not None:
            real = said.mask[..., None].to(said.states.dtype)
            pooled = self.pooled((said.states * real).sum(1) / real.sum(1))
        return TextKeys(project(states, said.mask), pooled)


def without_common_padding(said: TextStates) -> TextStates:
    """Cut captions to the longest of them: nothing sees padding, which comes last, yet its keys cost time.

    Args:
        said: captions.
    """
    longest = int(said.mask.sum(dim=1).amax())
    return replace(said, states=said.states[:, :longest], mask=said.mask[:, :longest])


def hidden(said: TextStates, where: Tensor, empty: TextStates) -> TextStates:
    """Put the empty caption in place of some; guidance pushes away from it.

    Args:
        said: captions.
        where: True where one is hidden.
        empty: the empty caption as it was read, one row, no longer than the others.
    """
    lacking = said.mask.shape[1] - empty.mask.shape[1]
    states = F.pad(empty.states, (0, 0, 0, lacking)).to(said.states)
    mask = F.pad(empty.mask, (0, lacking)).to(said.mask.device)
    return TextStates(
        states=torch.where(where[:, None, None], states, said.states), mask=torch.where(where[:, None], mask, said.mask)
    )
