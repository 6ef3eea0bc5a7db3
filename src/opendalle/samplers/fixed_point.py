"""The autoregressive sampler in fewer passes: the same tokens, several of them at a time.

A token is a function of what stands before it and of one number that chance gave its place (`token_at`).  So a whole
sentence is the one fixed point of a map that computes every token from a guess of all those before it, and the map can
be applied to many places at once.  After each pass, tokens are settled up to the first wrong guess, that place
included: it was computed from right ones.  At least one a pass settles, so it never takes more passes than walking;
how many fewer depends on how well the guesses are, and nothing else does.

Whatever is settled is what `sample_tokens` draws from the same generators, to the rounding of the logits: a network
computes them in another order for one place than for many, so a number that falls within a rounding error of the
border between two tokens may fall on its other side.

Source: Jacobi iteration of an autoregressive model, Song et al., "Accelerating Feedforward Computation via Parallel
    Nonlinear Equation Solving", arXiv:2002.03681, section 4; with chance held fixed it is exact for sampling, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from opendalle.base.errors import BadRequest
from opendalle.samplers.autoregressive import TokenOptions, even_numbers, token_at


@runtime_checkable
class LogitsAhead(Protocol):
    """What the sampler may know of a network: `NextLogits` for several places at once."""

    def __call__(self, tokens: Int[Tensor, "b n"], num_settled: int, cache: Any) -> Float[Tensor, "b m v"]:
        """Return logits of the places from `num_settled` to the one after the last token: m = n - num_settled + 1.

        The cache may hold guesses of an earlier call behind the settled tokens; they count no more.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PassState:
    """Where a sentence stands after a pass; the tokens of the last state are the result."""

    passes: int  # of the network, from 1
    step: int  # tokens settled of those to draw
    num_steps: int  # tokens to draw
    tokens: Int[Tensor, "b n"]  # those given, then those settled


def fixed_point_tokens(
    logits_ahead: LogitsAhead,
    tokens: Int[Tensor, "b n"],
    num_tokens: int,
    *,
    generators: Sequence[Generator],
    window: int,
    options: TokenOptions | None = None,
    cache: Any = None,
) -> Iterator[PassState]:
    """Append the tokens that `sample_tokens` would draw, one state a pass.  Stop iterating to cancel.

    Args:
        logits_ahead: the network, with its prompt and guidance inside.
        tokens: those that the sentence begins with; may be none.
        num_tokens: how many to draw.
        generators: one a row.
        window: places computed in a pass, at most; rows of a batch wait for each other.
        options: how boldly; None: from the network's own probabilities.
        cache: handed to `logits_ahead` as it is.

    Raises:
        BadRequest: at once, when there is not one generator a row, nothing to draw, or no place in a pass.
    """
    if len(generators) != len(tokens):
        raise BadRequest(f"{len(generators)} generators", f"{len(tokens)}, one a row")
    if min(num_tokens, window) < 1:
        raise BadRequest(f"{num_tokens} tokens to draw, {window} a pass", "at least one of each")
    return _iterate(logits_ahead, tokens, num_tokens, generators, window, options or TokenOptions(), cache)


def _iterate(
    logits_ahead: LogitsAhead,
    tokens: Tensor,
    num_tokens: int,
    generators: Sequence[Generator],
    window: int,
    options: TokenOptions,
    cache: Any,
) -> Iterator[PassState]:
    given, rows = tokens.shape[1], len(tokens)
    even = even_numbers(generators, num_tokens if options.temperature else 0)
    even = even if options.temperature else even.new_zeros(rows, num_tokens)
    guess = tokens.new_zeros(rows, 0)  # of the places after the settled ones
    done = passes = 0
    while done < num_tokens:
        wide = min(window, num_tokens - done)
        guess = _extended(guess[:, :wide], tokens, wide)
        logits = logits_ahead(torch.cat([tokens, guess[:, : wide - 1]], dim=1), given + done, cache)
        places = even[:, done : done + wide].reshape(-1)
        found = token_at(logits.flatten(0, 1), places, options).reshape(rows, wide)
        right = (found == guess)[:, : wide - 1].all(dim=0).long().cumprod(dim=0)
        settled = int(right.sum()) + 1
        tokens = torch.cat([tokens, found[:, :settled]], dim=1)
        guess = found[:, settled:]
        done, passes = done + settled, passes + 1
        yield PassState(passes=passes, step=done, num_steps=num_tokens, tokens=tokens)


def _extended(guess: Tensor, tokens: Tensor, wide: int) -> Tensor:
    """Guess that what has no guess yet is the last token again."""
    missing = wide - guess.shape[1]
    known = torch.cat([tokens[:, -1:], guess], dim=1)
    last = known[:, -1:] if known.shape[1] else known.new_zeros(len(known), 1)
    return torch.cat([guess, last.expand(-1, missing)], dim=1)
