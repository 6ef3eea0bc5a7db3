"""Drawing a picture's words with a transformer: after a caption, under guidance, round words that are known already.

A picture is drawn in raster order, and nothing is known of what comes later.  So words that are known from the start
are written down as they are when their turn comes, whatever the network thinks of them; that it did think well of them
is the measure by which the best of several candidates is chosen: the probability of the known words, each after those
before it, is just what weighs a candidate that was drawn blindly.

Source: the first rows given: arXiv:2102.12092, section 3.3; guidance of a network that reads captions as tokens: as in
    Make-A-Scene, arXiv:2203.13131, section 3.4; words forced on any side: ours, by importance weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from opendalle.base.axes import Tokens
from opendalle.base.errors import BadRequest
from opendalle.base.rng import picture_generator
from opendalle.dalle1.transformer import Dalle1Transformer, padded_text
from opendalle.diffusion.guidance import combine
from opendalle.nn.kv_cache import KVCache
from opendalle.samplers import TokenOptions, fixed_point_tokens, sample_tokens
from opendalle.tokenizers.bpe import BytePairTokenizer

UNKNOWN = -1  # in place of a word that is still to be drawn


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How words are drawn."""

    guidance: float | Float[Tensor, " b"] = 1.0  # away from the empty caption; 1 is off; one number, or one a row
    options: TokenOptions = field(default_factory=TokenOptions)  # how boldly
    lookahead: int = 1  # words a pass; changes speed only


@dataclass(frozen=True, kw_only=True)
class DrawState:
    """Where pictures stand; the words of the last state are the result."""

    passes: int  # of the network so far
    tokens: Int[Tensor, "b n"]  # words so far


class CaptionLogits:
    """What a transformer says of the words after captions, under guidance: `NextLogits` and `LogitsAhead` in one.

    Guidance reads every caption beside the empty one, in one batch of twice the rows.

    Args:
        network: the transformer.
        text: captions, padded; one row a picture.
        guidance: 1 is off; one number, or one a row.
        known: words that are written down as they are, UNKNOWN where one is to be drawn; None: nothing is known.
    """

    def __init__(
        self,
        network: Dalle1Transformer,
        text: Tokens,
        guidance: float | Float[Tensor, " b"] = 1.0,
        known: Int[Tensor, "b m"] | None = None,
    ) -> None:
        self.network, self.guidance, self.known = network, guidance, known
        self.is_guided = bool((torch.as_tensor(guidance) != 1).any())
        self.text = torch.cat([text, empty_text(network, len(text))]) if self.is_guided else text

    def new_cache(self) -> KVCache:
        """Make an empty cache for the captions and, under guidance, as many empty ones."""
        return self.network.new_cache(len(self.text))

    def __call__(self, tokens: Int[Tensor, "b n"], cache: Any) -> Float[Tensor, "b v"]:
        """Return logits of the word that follows."""
        return self.ahead(tokens, tokens.shape[1], cache)[:, 0]

    def ahead(self, tokens: Int[Tensor, "b n"], num_settled: int, cache: Any) -> Float[Tensor, "b m v"]:
        """Return logits of the words from `num_settled` to the one after the last.

        Args:
            tokens: words so far, guesses among them.
            num_settled: how many of them are no guesses.
            cache: from `new_cache`; None: everything is computed anew.
        """
        rows = torch.cat([tokens, tokens]) if self.is_guided else tokens
        logits = self._whole(rows, num_settled) if cache is None else self._cached(rows, num_settled, cache)
        if self.is_guided:
            conditional, unconditional = logits.chunk(2)
            logits = combine(conditional, unconditional, self.guidance)
        return logits if self.known is None else _forced(logits, self.known[:, num_settled : tokens.shape[1] + 1])

    def _whole(self, tokens: Tensor, num_settled: int) -> Tensor:
        return self.network(self.text, tokens).picture[:, num_settled:]

    def _cached(self, tokens: Tensor, num_settled: int, cache: KVCache) -> Tensor:
        network, parts = self.network, list[Tensor]()
        if cache.length == 0:
            parts.append(network.read(self.text, cache)[:, None])
        # The last settled word is read again: in the cache it may stand as the guess that it was.
        num_read = network.config.num_read
        cache.rewind(num_read + max(num_settled - 1, 0))
        if new := tokens.shape[1] + num_read - cache.length:
            parts.append(network.advance(tokens[:, -new:], cache))
        return torch.cat(parts, dim=1)[:, -(tokens.shape[1] - num_settled + 1) :]


def drawing(
    network: Dalle1Transformer,
    text: Tokens,
    generators: Sequence[Generator],
    wish: Wish,
    known: Int[Tensor, "b m"] | None = None,
) -> Iterator[DrawState]:
    """Draw the words of pictures, one state a pass.  Stop iterating to cancel.

    Args:
        network: in evaluation mode.
        text: captions, padded; one row a picture.
        generators: one a picture; each gives one number a word, known or not.
        wish: how.
        known: words that are written down as they are, UNKNOWN where one is to be drawn; None: nothing is known.

    Raises:
        BadRequest: at once, when rows do not fit each other.
    """
    num_cells = network.config.num_cells
    if known is not None and known.shape != (len(text), num_cells):
        raise BadRequest(f"known words of shape {tuple(known.shape)}", f"({len(text)}, {num_cells}), one a cell")
    logits = CaptionLogits(network, text, wish.guidance, known)
    start = torch.zeros(len(text), 0, dtype=torch.long, device=text.device)
    if known is not None:  # what is known from the first word on is read at once
        is_given = (known != UNKNOWN).all(dim=0).long().cumprod(dim=0)
        start = known[:, : int(is_given.sum())]
    left = num_cells - start.shape[1]
    if left == 0:
        return iter([DrawState(passes=0, tokens=start)])
    given: dict[str, Any] = {"generators": generators, "options": wish.options, "cache": logits.new_cache()}
    if wish.lookahead == 1:
        walked = sample_tokens(logits, start, left, **given)
        return (DrawState(passes=state.step, tokens=state.tokens) for state in walked)
    found = fixed_point_tokens(logits.ahead, start, left, window=wish.lookahead, **given)
    return (DrawState(passes=state.passes, tokens=state.tokens) for state in found)


def log_likelihood(network: Dalle1Transformer, text: Tokens, tokens: Int[Tensor, "b m"]) -> Float[Tensor, "b m"]:
    """Return the log-probability of every word of pictures after caption and earlier words, in nats, in one pass.

    Args:
        network: in evaluation mode.
        text: captions, padded.
        tokens: words of whole pictures.
    """
    logits = network(text, tokens).picture.float()
    return -F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")


def text_log_likelihood(network: Dalle1Transformer, text: Tokens) -> Float[Tensor, "b t"]:
    """Return the log-probability of every caption token after those before it, in nats; 0 where nothing says it.

    Args:
        network: in evaluation mode.
        text: captions, padded; padding has its probability, too: that the caption ends there.
    """
    logits = network(text, text.new_zeros(len(text), 0)).text.float()
    unsaid = text.shape[1] - logits.shape[1]
    said = -F.cross_entropy(logits.transpose(1, 2), text[:, unsaid:], reduction="none")
    return F.pad(said, (unsaid, 0))


def fit_of_known(likelihood: Float[Tensor, "b n"], known: Int[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Return how well what was drawn goes with what was known: log-probability of the known words behind drawn ones.

    Args:
        likelihood: of every word, from `log_likelihood`.
        known: words that were written down as they are, else UNKNOWN.
    """
    is_known = known != UNKNOWN
    is_behind = (~is_known).long().cumsum(dim=1) > 0
    return (likelihood * (is_known & is_behind)).sum(dim=1)


def candidate_generators(seed: int, count: int) -> list[Generator]:
    """Return the chance of each candidate of a picture; the first has the picture's own.

    Args:
        seed: of the picture.
        count: candidates.
    """
    seeds = picture_generator(seed)
    drawn = [int(torch.randint(2**62, (), generator=seeds)) for _ in range(count - 1)]
    return [picture_generator(one) for one in (seed, *drawn)]


def read_captions(tokenizer: BytePairTokenizer, captions: Sequence[str], network: Dalle1Transformer) -> Tokens:
    """Turn captions into the tokens that a network reads; what is too long loses its tail.

    Args:
        tokenizer: the network's.
        captions: any; the empty one is the unconditional model.
        network: how many tokens it reads.
    """
    config, device = network.config, network.text.weight.device
    ids = torch.zeros(len(captions), config.num_text, dtype=torch.long)
    length = torch.zeros(len(captions), dtype=torch.long)
    for row, caption in enumerate(captions):
        tokens = tokenizer.encode(caption, limit=config.num_text)
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        length[row] = len(tokens)
    return padded_text(ids, length, config.text_vocabulary).to(device)


def empty_text(network: Dalle1Transformer, count: int) -> Tokens:
    """Return the empty caption: padding from the first place on.

    Args:
        network: how many tokens it reads.
        count: rows wanted.
    """
    config, device = network.config, network.text.weight.device
    return (config.text_vocabulary + torch.arange(config.num_text, device=device)).expand(count, -1)


def known_words(tokens: Int[Tensor, "b n"], cells: Bool[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """Return words where they are known, UNKNOWN elsewhere.

    Args:
        tokens: of whole pictures.
        cells: True where a word is known.
    """
    return torch.where(cells, tokens, torch.full_like(tokens, UNKNOWN))


def _forced(logits: Float[Tensor, "b m v"], known: Int[Tensor, "b m"]) -> Float[Tensor, "b m v"]:
    """Forbid all words but the known one, where one is known."""
    words = torch.arange(logits.shape[-1], device=logits.device)
    forbidden = (known[..., None] != UNKNOWN) & (words != known[..., None])
    return logits.masked_fill(forbidden, float("-inf"))
