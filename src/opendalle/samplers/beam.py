"""Beam search: the likeliest sentence that a few parallel ones lead to, over `next_logits`.

A sentence's likelihood falls with every token, so by itself it would choose the shortest; divided by a power of the
length, long and short ones can be compared.  Every beam may end after every token, and the best ending so far is kept;
a row is settled once no beam could still beat it.  With as many beams as there are sentences it is exact.

Source: the division by the length: Wu et al., arXiv:1609.08144, section 7, there with another power law.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from opendalle.base.errors import BadRequest, require
from opendalle.base.protocols import NextLogits


@runtime_checkable
class Reorders(Protocol):
    """A cache whose rows can change places."""

    def reorder(self, index: Int[Tensor, " b"]) -> None:
        """Let every row go on from the row that the index names."""
        ...


@dataclass(frozen=True, kw_only=True)
class BeamOptions:
    """How widely is searched.

    Raises:
        BadConfig: when a value lies outside its range.
    """

    beams: int = 4  # sentences a row that are followed at once
    length_power: float = 1.0  # log-likelihood is divided by length to this power; 0: not at all

    def __post_init__(self) -> None:
        require(self.beams >= 1, f"beams is {self.beams}", "at least 1")
        require(0 <= self.length_power <= 4, f"length_power is {self.length_power}", "0 to 4")


@dataclass(frozen=True, kw_only=True)
class BeamState:
    """The best sentence of every row so far; the last state is the result."""

    step: int  # tokens searched, from 1
    tokens: Int[Tensor, "b n"]  # those given, then those found; behind a sentence's end, ends
    length: Int[Tensor, " b"]  # tokens found, the end among them
    log_likelihood: Float[Tensor, " b"]  # of those found, in nats
    finished: Bool[Tensor, " b"]  # whether it ends; if not, the search had no more tokens
    settled: Bool[Tensor, " b"]  # whether nothing better can be found


class _Best:
    """The best sentence of every row, by its likelihood over its length."""

    def __init__(self, given: Tensor, num_tokens: int, end: int, power: float) -> None:
        rows, self.given, self.power = len(given), given, power
        self.found = given.new_full((rows, num_tokens), end)
        self.length, self.finished = given.new_zeros(rows), given.new_zeros(rows, dtype=torch.bool)
        self.log_likelihood = torch.full((rows,), float("-inf"), dtype=torch.float64, device=given.device)
        self.score = self.log_likelihood.clone()

    def offer(self, found: Tensor, log_likelihood: Tensor, *, ends: bool) -> None:
        """Take one sentence a row where it is better than the one that is there."""
        steps = found.shape[1] + ends
        score = log_likelihood / steps**self.power
        better = score > self.score
        kept = self.found.clone()
        kept[:, : found.shape[1]] = found
        self.found = torch.where(better[:, None], kept, self.found)
        self.length = torch.where(better, steps, self.length)
        self.finished = torch.where(better, ends, self.finished)
        self.log_likelihood = torch.where(better, log_likelihood, self.log_likelihood)
        self.score = torch.where(better, score, self.score)

    def state(self, step: int, settled: Tensor) -> BeamState:
        return BeamState(
            step=step,
            tokens=torch.cat([self.given, self.found], dim=1),
            length=self.length,
            log_likelihood=self.log_likelihood,
            finished=self.finished,
            settled=settled,
        )


def beam_search(
    next_logits: NextLogits,
    tokens: Int[Tensor, "b n"],
    num_tokens: int,
    *,
    end: int,
    options: BeamOptions | None = None,
    cache: Reorders | None = None,
) -> Iterator[BeamState]:
    """Search the likeliest sentences, one state a token, until all rows are settled.  Stop iterating to cancel.

    Args:
        next_logits: the network, with its prompt inside, for `beams` times as many rows: those of a row together.
        tokens: those that the sentences begin with; may be none.
        num_tokens: how many to find at most, the end among them.
        end: the token that ends a sentence.
        options: how widely.
        cache: handed to `next_logits`; its rows are told to change places.  None: everything is computed anew.

    Raises:
        BadRequest: at once, when there is nothing to find.
    """
    if num_tokens < 1:
        raise BadRequest(f"{num_tokens} tokens to find", "at least one")
    return _search(next_logits, tokens, num_tokens, end, options or BeamOptions(), cache)


def _search(
    next_logits: NextLogits, given: Tensor, num_tokens: int, end: int, options: BeamOptions, cache: Reorders | None
) -> Iterator[BeamState]:
    rows, beams = len(given), options.beams
    best = _Best(given, num_tokens, end, options.length_power)
    found = given.new_zeros(rows, beams, 0)
    likelihood = torch.full((rows, beams), float("-inf"), dtype=torch.float64, device=given.device)
    likelihood[:, 0] = 0.0  # all beams begin alike, so one of them is enough
    prefix, first_beam = repeat(given, "b n -> b k n", k=beams), torch.arange(rows, device=given.device) * beams
    row = torch.arange(rows, device=given.device)
    for step in range(1, num_tokens + 1):
        asked = rearrange(torch.cat([prefix, found], dim=2), "b k n -> (b k) n")
        said = next_logits(asked, cache).double().log_softmax(dim=1)
        total = likelihood[..., None] + rearrange(said, "(b k) v -> b k v", k=beams)
        ending, beam = total[..., end].max(dim=1)
        best.offer(found[row, beam], ending, ends=True)
        total[..., end] = float("-inf")
        likelihood, place = total.flatten(1).topk(beams, dim=1)
        beam, token = place // total.shape[2], place % total.shape[2]
        found = torch.cat([found[row[:, None], beam], token[..., None]], dim=2)
        if cache is not None:
            cache.reorder((first_beam[:, None] + beam).flatten())
        if step == num_tokens:
            best.offer(found[:, 0], likelihood[:, 0], ends=False)
        # A longer sentence is no likelier than its beginning, and no longer than num_tokens.
        settled = best.score >= likelihood[:, 0] / num_tokens**options.length_power
        yield best.state(step, settled)
        if bool(settled.all()):
            return
