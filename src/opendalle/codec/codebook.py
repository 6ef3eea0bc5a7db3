"""How a codebook is doing while it is learned: how many words it really uses, and what helps when it uses few."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from opendalle.base.axes import Pictures
from opendalle.base.errors import require

LOOKED_AT = 64  # pictures after which a wrong range can be told
ROUNDS, BLOCK = 8, 4_096  # of the search for clusters; rows compared with all of them at once
LEFT = 0.02  # share of the vocabulary that is in use, in words equally often used, below which a codebook has collapsed


def nearest_rows(rows: Float[Tensor, "*n c"], words: Float[Tensor, "v c"]) -> Int[Tensor, "*n"]:
    """Return the number of the word nearest to each row.

    Args:
        rows: any.
        words: as wide.
    """
    return (words.square().sum(1) - 2 * rows @ words.T).argmin(dim=-1)


def cluster_means(rows: Float[Tensor, "n c"], count: int, rng: Generator, rounds: int = ROUNDS) -> Float[Tensor, "v c"]:
    """Return the means of clusters: words that lie where cells are.

    Args:
        rows: cells.
        count: clusters.
        rng: from which rows the search begins, and where a cluster that lost all its rows begins anew.
        rounds: of the search.

    Raises:
        BadConfig: when there are fewer rows than clusters.

    Source: Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28(2), 1982.
    """
    require(len(rows) >= count, f"{len(rows)} cells for {count} words", "at least as many")
    means = rows[torch.randperm(len(rows), generator=rng)[:count].to(rows.device)].clone()
    for _ in range(rounds):
        nearest = torch.cat([nearest_rows(some, means) for some in rows.split(BLOCK)])
        size = torch.bincount(nearest, minlength=count).to(rows)[:, None]
        total = torch.zeros_like(means).index_add_(0, nearest, rows)
        fresh = rows[torch.randint(len(rows), (count,), generator=rng).to(rows.device)]
        means = torch.where(size > 0, total / size.clamp_min(1), fresh)
    return means


class CodebookUse:
    """A running count of the words that pictures were turned into.

    Args:
        vocabulary: words.
        memory: cells after which an older count weighs half as much.
    """

    def __init__(self, vocabulary: int, memory: int) -> None:
        require(vocabulary >= 1 and memory >= 1, f"vocabulary {vocabulary}, memory {memory}", "at least 1 each")
        self.memory = memory
        self.counts = torch.zeros(vocabulary, dtype=torch.float64)

    def see(self, tokens: Int[Tensor, "b h w"]) -> None:
        """Count the words of some pictures.

        Args:
            tokens: numbers of words.
        """
        new = torch.bincount(tokens.detach().flatten().cpu(), minlength=len(self.counts)).double()
        self.counts = self.counts * 0.5 ** (tokens.numel() / self.memory) + new

    @property
    def is_full(self) -> bool:
        """Whether enough has been counted to judge by."""
        return float(self.counts.sum()) >= self.memory

    @property
    def perplexity(self) -> float:
        """How many words, all equally often used, would be as hard to foretell; 1 is a codebook of a single word."""
        return perplexity_of(self.counts)

    @property
    def share_used(self) -> float:
        """Share of the words that turn up at all: at least once in as many cells as are remembered."""
        return float((self.counts >= 0.5).double().mean())


def perplexity_of(counts: Float[Tensor, " v"]) -> float:
    """Return the exponential of the entropy of how often each word is used.

    Args:
        counts: of each word, at least 0; 1 is returned when there are none.
    """
    total = float(counts.sum())
    if total <= 0:
        return 1.0
    share = counts.double() / total
    return math.exp(float(torch.special.entr(share).sum()))


def collapsed(perplexity: float, vocabulary: int, todo: str) -> str | None:
    """Say that a codebook has collapsed, and what may help; None: it has not.

    Args:
        perplexity: of the words in use.
        vocabulary: words in all.
        todo: advice that fits the codebook.
    """
    if perplexity >= max(2.0, LEFT * vocabulary):
        return None
    return f"the codebook has collapsed: {perplexity:.1f} of {vocabulary} words are in use.  {todo}"


def wrong_range(least: float, most: float) -> str | None:
    """Say that pictures do not lie in [-1, 1]; None: they do, as far as can be told.

    Args:
        least: smallest value of many pictures.
        most: largest.
    """
    if least < -1.001 or most > 1.001:
        return f"pixels from {least:.3g} to {most:.3g} where -1 to 1 is wanted: divide bytes by 127.5 and take 1 away."
    if least > -0.5 and most > 0.5:
        return f"no pixel is darker than {least:.3g}: pictures seem to lie in 0 to 1 where -1 to 1 is wanted."
    return None


class RangeWatch:
    """Looks at the first pictures of a run, to tell when they lie in a wrong range."""

    def __init__(self) -> None:
        self.least, self.most, self.seen = math.inf, -math.inf, 0

    def look(self, pictures: Pictures) -> str | None:
        """Return a warning, as soon as enough pictures have been seen to be sure.

        Args:
            pictures: any.
        """
        if self.seen >= LOOKED_AT:
            return None
        self.least, self.most = min(self.least, pictures.min().item()), max(self.most, pictures.max().item())
        self.seen += len(pictures)
        return wrong_range(self.least, self.most) if self.seen >= LOOKED_AT else None


class Warnings:
    """Hands each warning on once.

    Args:
        warn: told; None: nobody is.
    """

    def __init__(self, warn: Callable[[str], None] | None) -> None:
        self.warn, self.said = warn, set[str]()

    def tell(self, warning: str | None) -> None:
        """Hand a warning on, unless one of its kind was.

        Args:
            warning: its words up to the first colon are its kind; None: there is nothing to say.
        """
        if warning is None or self.warn is None:
            return
        kind = warning.split(":")[0]
        if kind not in self.said:
            self.said.add(kind)
            self.warn(warning)
