"""In which order a run sees a set: a pure function of (seed, epoch, position).

Every epoch visits each example once, in an order of its own.  Position counts samples over the whole run, so a run that
stops at a position goes on from there with the very samples it would have seen, whatever the number of processes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from opendalle.base.errors import require

_ORDER, _EXAMPLE = 0, 1  # keep the two uses of one seed apart


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a position of the run falls."""

    epoch: int
    index: int  # of the example in its set


class SampleOrder:
    """The order of a run over a set.

    Args:
        num_examples: length of the set.
        seed: of the run; another seed is another order.

    Raises:
        BadConfig: when the set is empty or the seed negative.
    """

    def __init__(self, num_examples: int, seed: int) -> None:
        require(num_examples > 0, f"a set of {num_examples} examples", "at least one")
        require(seed >= 0, f"seed {seed}", "a seed of at least 0")
        self.num_examples = num_examples
        self.seed = seed
        self._epoch = -1
        self._shuffled: Int[np.ndarray, " n"] = np.empty(0, dtype=np.int64)

    def place(self, position: int) -> Place:
        """Return what the sample at `position` (0 and up, over the whole run) is."""
        epoch, within = divmod(position, self.num_examples)
        if epoch != self._epoch:  # only a memory of the last epoch: the answer never depends on what was asked before
            entropy = np.random.SeedSequence([_ORDER, self.seed, epoch])
            self._shuffled = np.random.Generator(np.random.PCG64(entropy)).permutation(self.num_examples)
            self._epoch = epoch
        return Place(epoch=epoch, index=int(self._shuffled[within]))

    def generator(self, position: int) -> np.random.Generator:
        """Return the generator from which the sample at `position` draws all its chance."""
        epoch, within = divmod(position, self.num_examples)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([_EXAMPLE, self.seed, epoch, within])))
