"""Blending: of every picture a caption that was written anew with probability p, else one of its own.

The paper's reason: who learns from a captioner's words alone learns its habits too (how long, how it begins, which
case), and draws badly what people type.  A few captions of the set's own keep that from happening.

What a sample gets is a function of the run's seed and the sample's position: its generator has a child that decides
here, so that nothing depends on batches or processes, the picture is the one that an unblended set shows, and two
blends of one seed agree wherever their shares allow it.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, section 3.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np

from opendalle.base.errors import require
from opendalle.data.order import SampleOrder
from opendalle.data.sets import Example, PictureSet

OWN = "original"  # how the set's own captions are called in a tally


@runtime_checkable
class CaptionSource(Protocol):
    """Other captions of a set's pictures."""

    @property
    def kinds(self) -> Sequence[str]:
        """Kinds of captions that there are."""
        ...

    @property
    def languages(self) -> Sequence[str]:
        """Languages that they are in."""
        ...

    def caption(self, index: int, example: Example, kind: str, language: str, rng: np.random.Generator) -> str | None:
        """Return a caption of example `index`; None where this source has none."""
        ...


def _descriptive() -> dict[str, float]:
    return {"descriptive": 1.0}


@dataclass(frozen=True, kw_only=True)
class BlendingConfig:
    """How captions are blended."""

    share: float = 0.95  # p: of samples whose caption was written anew; the paper's is 0.95
    kinds: Mapping[str, float] = field(default_factory=_descriptive)  # of those, kind -> weight
    languages: Mapping[str, float] | None = None  # of those, language -> weight; None: all that there are, alike

    def __post_init__(self) -> None:
        require(0.0 <= self.share <= 1.0, f"share={self.share}", "a share from 0 to 1")
        for name, weights in (("kinds", self.kinds), ("languages", self.languages)):
            if weights is not None:
                is_right = min(weights.values(), default=-1.0) >= 0 and sum(weights.values()) > 0
                require(is_right, f"{name} {dict(weights)}", "weights of at least 0, not all 0")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a sample gets."""

    is_rewritten: bool  # whether the caption is one that was written anew
    kind: str  # of one that is
    language: str  # of one that is


class BlendedSet:
    """A set with other captions in the place of most of its own.

    Args:
        pictures: the set.
        source: where the other captions come from.
        config: how often they are taken, and which.

    Raises:
        BadConfig: when the source has no captions of a kind or language that is asked for.
    """

    def __init__(self, pictures: PictureSet, source: CaptionSource, config: BlendingConfig | None = None) -> None:
        self.pictures, self.source, self.config = pictures, source, config or BlendingConfig()
        self._languages = self.config.languages or dict.fromkeys(source.languages, 1.0)
        for name, asked, known in (
            ("kind", self.config.kinds, source.kinds),
            ("language", self._languages, source.languages),
        ):
            strange = [one for one, weight in asked.items() if weight > 0 and one not in known]
            require(not strange, f"captions of {name} {', '.join(strange)}", "some of " + ", ".join(known))

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pictures)

    def read(self, index: int, rng: np.random.Generator) -> Example:
        """Return an example with the caption that chance gives it.

        An example without words of its own gets others in any case; one of which the source knows none keeps its own.

        Args:
            index: of the picture.
            rng: of the sample; a child of it decides about the caption.
        """
        own = rng.spawn(1)[0]
        choice = self.choose(own)
        example = self.pictures.read(index, rng)
        if not choice.is_rewritten and example.caption:
            return example
        text = self.source.caption(index, example, choice.kind, choice.language, own)
        return example if text is None else replace(example, caption=text, voice=choice.kind)

    def choose(self, rng: np.random.Generator) -> Choice:
        """Decide about one sample.

        Args:
            rng: three numbers are drawn from it.
        """
        return choose(self.config, self._languages, rng)

    def tally(self, *, seed: int, first: int, count: int) -> Mapping[str, float]:
        """Return the share that each kind really has in a stretch of a run, without reading a picture.

        Args:
            seed: of the run.
            first: position of the first sample.
            count: of samples, at least 1.

        Returns:
            Kind -> share, the set's own captions under `original`.
        """
        order = SampleOrder(len(self.pictures), seed)
        choices = [self.choose(order.generator(position).spawn(1)[0]) for position in range(first, first + count)]
        seen = Counter(one.kind if one.is_rewritten else OWN for one in choices)
        return {kind: seen[kind] / count for kind in (OWN, *self.config.kinds)}


def choose(config: BlendingConfig, languages: Mapping[str, float], rng: np.random.Generator) -> Choice:
    """Decide about one sample.

    Args:
        config: how often other captions are taken, and of which kinds.
        languages: language -> weight.
        rng: three numbers are drawn from it.
    """
    coin, kind, language = rng.random(3)
    return Choice(
        is_rewritten=bool(coin < config.share),
        kind=_weighted(config.kinds, kind),
        language=_weighted(languages, language),
    )


def _weighted(weights: Mapping[str, float], mark: float) -> str:
    """Return the key at `mark`, 0 to 1, of all weights laid end to end."""
    names = [name for name, weight in weights.items() if weight > 0]
    ends = np.cumsum([weights[name] for name in names])
    return names[min(int(np.searchsorted(ends, mark * ends[-1], side="right")), len(names) - 1)]
