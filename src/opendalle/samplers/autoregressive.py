"""The autoregressive sampler: a sentence of tokens, each drawn from what `next_logits` says of it.

Each token takes one even number from its row's generator and looks up where it falls in the row's cumulated
probabilities: so what a row draws depends on its own generator alone, whatever stands beside it in the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from opendalle.base.errors import BadRequest, require
from opendalle.base.protocols import NextLogits
from opendalle.diffusion.guidance import combine


@dataclass(frozen=True, kw_only=True)
class TokenOptions:
    """How boldly tokens are drawn; the knobs apply in this order.

    Raises:
        BadConfig: when a value lies outside its range.
    """

    temperature: float = 1.0  # divides the logits; 0 takes the likeliest token, without chance
    top_k: int | None = None  # only so many of the likeliest tokens; None: all
    top_p: float = 1.0  # only the fewest of the likeliest tokens that have this probability together; 1: all

    def __post_init__(self) -> None:
        require(0 <= self.temperature <= 100, f"temperature is {self.temperature}", "0 to 100")
        require(self.top_k is None or self.top_k >= 1, f"top_k is {self.top_k}", "at least 1, or None")
        require(0 < self.top_p <= 1, f"top_p is {self.top_p}", "above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class TokenState:
    """Where a sentence stands after a token; the tokens of the last state are the result."""

    step: int  # tokens drawn, from 1
    num_steps: int  # tokens in all
    tokens: Int[Tensor, "b n"]  # those given, then those drawn


class GuidedLogits:
    """Classifier-free guidance of a `next_logits` that has read twice the rows: with their prompts, then without.

    Guiding logits or log-probabilities is the same, since what a row adds to all its tokens changes no probability.

    Args:
        both: asked about the tokens twice over; its cache holds twice the rows, too.
        scale: 1 is off; one number, or one a row.

    Source: arXiv:2207.12598, eq. 6, on log-probabilities, as Make-A-Scene does, arXiv:2203.13131.
    """

    def __init__(self, both: NextLogits, scale: float | Float[Tensor, " b"]) -> None:
        self.both, self.scale = both, scale

    def __call__(self, tokens: Int[Tensor, "b n"], cache: Any) -> Float[Tensor, "b v"]:
        """Return guided logits of the token that follows."""
        conditional, unconditional = self.both(torch.cat([tokens, tokens]), cache).chunk(2)
        return combine(conditional, unconditional, self.scale)


def sample_tokens(
    next_logits: NextLogits,
    tokens: Int[Tensor, "b n"],
    num_tokens: int,
    *,
    generators: Sequence[Generator],
    options: TokenOptions | None = None,
    cache: Any = None,
) -> Iterator[TokenState]:
    """Append tokens one by one, one state a token.  Stop iterating to cancel; nothing runs before it is asked for.

    Args:
        next_logits: the network, with its prompt and guidance inside.  It is asked about all tokens so far each time;
            what it need not compute again it keeps in the cache.
        tokens: those that the sentence begins with; may be none.
        num_tokens: how many to draw.
        generators: one a row.
        options: how boldly; None: from the network's own probabilities.
        cache: handed to `next_logits` as it is; None: everything is computed anew each time.

    Raises:
        BadRequest: at once, when there is not one generator a row, or nothing to draw.
    """
    if len(generators) != len(tokens):
        raise BadRequest(f"{len(generators)} generators", f"{len(tokens)}, one a row")
    if num_tokens < 1:
        raise BadRequest(f"{num_tokens} tokens to draw", "at least one")
    return _walk(next_logits, tokens, num_tokens, generators, options or TokenOptions(), cache)


def _walk(
    next_logits: NextLogits,
    tokens: Tensor,
    num_tokens: int,
    generators: Sequence[Generator],
    options: TokenOptions,
    cache: Any,
) -> Iterator[TokenState]:
    for step in range(1, num_tokens + 1):
        drawn = draw_token(next_logits(tokens, cache), generators, options)
        tokens = torch.cat([tokens, drawn[:, None]], dim=1)
        yield TokenState(step=step, num_steps=num_tokens, tokens=tokens)


def draw_token(
    logits: Float[Tensor, "b v"], generators: Sequence[Generator], options: TokenOptions
) -> Int[Tensor, " b"]:
    """Draw one token a row.

    Args:
        logits: of every token; -inf forbids one.
        generators: one a row; each gives one number, or none at temperature 0.
        options: how boldly.
    """
    if options.temperature == 0:
        return logits.argmax(dim=1)
    return token_at(logits, even_numbers(generators, 1)[:, 0], options)


def even_numbers(generators: Sequence[Generator], count: int) -> Float[Tensor, "b n"]:
    """Draw numbers from 0 to 1, in the order in which tokens take them.

    Args:
        generators: one a row.
        count: numbers a row.
    """
    rows = [[torch.rand((), generator=one, dtype=torch.float64).item() for _ in range(count)] for one in generators]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), count)


def token_at(logits: Float[Tensor, "b v"], even: Float[Tensor, " b"], options: TokenOptions) -> Int[Tensor, " b"]:
    """Look up where a number falls in the cumulated probabilities: all that drawing a token is.

    Args:
        logits: of every token; -inf forbids one.
        even: a number from 0 to 1 a row, not used at temperature 0.
        options: how boldly.
    """
    if options.temperature == 0:
        return logits.argmax(dim=1)
    kept = keep_likeliest(logits.double() / options.temperature, options.top_k, options.top_p)
    cumulated = kept.softmax(dim=1).cumsum(dim=1)
    place = even.to(logits.device)[:, None] * cumulated[:, -1:]
    token = torch.searchsorted(cumulated, place, right=True)[:, 0]
    last = kept.isfinite().double().cumsum(dim=1).argmax(dim=1)  # the last token allowed, should rounding pass it
    return torch.minimum(token, last)


def keep_likeliest(logits: Float[Tensor, "b v"], top_k: int | None, top_p: float) -> Float[Tensor, "b v"]:
    """Forbid the unlikely tokens: -inf in place of their logits; at least one stays.

    Args:
        logits: of every token.
        top_k: how many stay; equals of the last one stay too.  None: all.
        top_p: probability that those that stay have together, at least; 1: all.

    Source: top-p is nucleus sampling, arXiv:1904.09751, section 3.1.
    """
    if top_k is not None and top_k < logits.shape[1]:
        least = logits.topk(top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if top_p < 1:
        ordered, order = logits.sort(dim=1, descending=True, stable=True)
        probability = ordered.softmax(dim=1)
        before = probability.cumsum(dim=1) - probability  # what the likelier ones have already
        forbidden = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= top_p)
        logits = logits.masked_fill(forbidden, float("-inf"))
    return logits
