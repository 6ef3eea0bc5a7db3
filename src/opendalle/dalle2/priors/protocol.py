"""The one interface of all priors, and what is common to them: captions, candidates, wishes that cannot be heeded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from opendalle.base.axes import Embeddings, Mask, States
from opendalle.base.errors import BadRequest


@dataclass(frozen=True)
class Said:
    """Captions as a prior reads them, one row an embedding."""

    pooled: Embeddings  # z_t, by the convention that the decoder was trained with: of unit length, or raw
    states: States  # of every token
    mask: Mask | None = None  # True where a token is real; None: all are
    is_empty: Bool[Tensor, " b"] | None = None  # where nothing was said; None: nowhere

    def __len__(self) -> int:
        return len(self.pooled)

    def rows(self, index: slice | Tensor) -> "Said":
        """Keep or repeat some rows."""
        mask, is_empty = (None if one is None else one[index] for one in (self.mask, self.is_empty))
        return Said(self.pooled[index], self.states[index], mask, is_empty)


@runtime_checkable
class Prior(Protocol):
    """From captions to picture embeddings."""

    is_random: bool  # whether two draws differ; only then is there a best of several
    knobs: frozenset[str]  # which of steps and guidance it heeds

    def draw(
        self,
        said: Said,
        empty: Said,
        generators: Sequence[Generator],
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Embeddings | None:
        """Draw one embedding a row.

        Args:
            said: the captions.
            empty: the empty caption, as many rows: what guidance pushes away from.
            generators: one a row; one that stands in several rows is drawn from in their order.
            steps: of denoising; None: as many as the prior's settings say.
            guidance: 1 is off; None: as the prior's settings say.

        Returns:
            Embeddings as CLIP gives them, of any length; None: the decoder is to draw from the caption alone.
        """
        ...


def check_states(text_states: States, wanted: int) -> None:
    """Refuse captions of another length than the network's places.

    Args:
        text_states: the captions' token states.
        wanted: how many of them a caption has.

    Raises:
        BadRequest: when there are more or fewer.
    """
    if (came := text_states.shape[1]) != wanted:
        raise BadRequest(f"{came} text states", f"{wanted} text states", "Pad or cut the caption's tokens.")


def without_unused(
    tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None
) -> tuple[Float[Tensor, "b m d"], Bool[Tensor, "b m"] | None]:
    """Leave out the places that are padding in every caption of the batch: they change nothing.

    Args:
        tokens: with their positions.
        mask: True where a token is real; None: all are.
    """
    if mask is None:
        return tokens, None
    used = mask.any(dim=0)
    return tokens[:, used], mask[:, used]


def draw_nearest(
    prior: Prior,
    said: Said,
    empty: Said,
    generators: Sequence[Generator],
    *,
    candidates: int = 1,
    steps: int | None = None,
    guidance: float | None = None,
    is_unit: bool = True,
) -> Embeddings | None:
    """Draw several embeddings of each caption and keep the one nearest to it.

    Args:
        prior: any; of one without chance a single embedding is drawn.
        said: the captions.
        empty: the empty caption, as many rows.
        generators: one a caption.
        candidates: embeddings drawn of each.
        steps: as in `Prior.draw`.
        guidance: as in `Prior.draw`.
        is_unit: whether the decoder wants embeddings of unit length.

    Source: unCLIP, arXiv:2204.06125, section 2.2: two samples, the better dot product with z_t is kept.
    """
    count, device = candidates if prior.is_random else 1, said.pooled.device
    rows = torch.arange(len(generators), device=device).repeat_interleave(count)
    repeated = [generator for generator in generators for _ in range(count)]
    z = prior.draw(said.rows(rows), empty.rows(rows), repeated, steps=steps, guidance=guidance)
    if z is None:
        return None
    if is_unit:
        z = F.normalize(z, dim=-1)
    z = rearrange(z, "(b k) e -> b k e", k=count)
    nearness = torch.einsum("b k e, b e -> b k", z, said.pooled)
    return z[torch.arange(len(z), device=device), nearness.argmax(dim=1)]


def chosen_prior(priors: Mapping[str, Prior], name: str, **wished: Any) -> Prior:
    """Return one of a model's priors.

    Args:
        priors: those that it has, by name.
        name: which one.
        **wished: as in `refuse_unheeded`.

    Raises:
        BadRequest: when there is none of that name, or it would ignore a wish.
    """
    if name not in priors:
        todo = "The others come in a folder of priors, which a model names as a sibling."
        raise BadRequest(f"the prior {name!r}", "one of this model's: " + ", ".join(sorted(priors)), todo)
    refuse_unheeded(name, priors[name], **wished)
    return priors[name]


def refuse_unheeded(name: str, prior: Prior, **wished: Any) -> None:
    """Refuse what a prior would silently leave aside.

    Args:
        name: of the prior, for the message.
        prior: any.
        **wished: steps, guidance and candidates as they were asked for; None: not asked.

    Raises:
        BadRequest: naming the wish.
    """
    heeded = {*prior.knobs, *(("candidates",) if prior.is_random else ())}
    for wish, value in wished.items():
        if value is not None and wish not in heeded:
            some = ", ".join(sorted(heeded)) or "no such wish"
            raise BadRequest(f"prior {wish} {value} for the prior {name!r}", f"{some}: it heeds nothing else")
