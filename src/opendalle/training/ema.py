"""The running average of weights, which draws better pictures than any single step's weights.

    average <- decay * average + (1 - decay) * weights,   decay = 0.5 ** (pictures of the step / half-life)

The half-life is counted in pictures, so the average means the same for any batch size.  Early on it is short (a
fraction of what has been seen): an average over a run's beginning must not remember the random start.

Source: EDM, arXiv:2206.00364, appendix F.2 (half-life in pictures, ramp-up); Polyak and Juditsky 1992 (averaging).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """The averages of some modules' parameters; buffers are not averaged but taken as they are.

    Args:
        modules: group name -> module; the averages begin as copies of their weights.
        halflife: pictures after which a weight counts half.
        rampup: the half-life is at most this fraction of the pictures seen.
    """

    def __init__(self, modules: Mapping[str, nn.Module], halflife: int, rampup: float = 0.05) -> None:
        self.modules = dict(modules)
        self.halflife = halflife
        self.rampup = rampup
        self._is_applied = False
        self.averages = {
            group: {name: one.detach().clone() for name, one in module.named_parameters()}
            for group, module in self.modules.items()
        }

    def decay_at(self, pictures: int, step_pictures: int) -> float:
        """Return how much of the old average a step keeps.

        Args:
            pictures: seen so far, this step's included.
            step_pictures: of this step.
        """
        halflife = min(float(self.halflife), pictures * self.rampup)
        return 0.5 ** (step_pictures / max(halflife, 1e-8))

    @torch.no_grad()
    def update(self, pictures: int, step_pictures: int) -> None:
        """Move the averages towards the weights.

        Args:
            pictures: seen so far, this step's included.
            step_pictures: of this step.
        """
        weight = 1 - self.decay_at(pictures, step_pictures)
        for group, module in self.modules.items():
            live = dict(module.named_parameters())
            names = [name for name, one in live.items() if one.requires_grad]
            averages = [self.averages[group][name] for name in names]
            torch._foreach_lerp_(averages, [live[name] for name in names], weight)  # pyright: ignore[reportPrivateImportUsage]

    def state(self, group: str) -> dict[str, Tensor]:
        """Return a module's state dict with averages in place of parameters: what a model folder wants.

        Args:
            group: a key of `modules`.
        """
        with self.applied():  # through the module, so that tied weights appear under all their names
            return {name: one.detach().clone() for name, one in self.modules[group].state_dict().items()}

    @torch.no_grad()
    def load(self, group: str, averages: Mapping[str, Tensor]) -> None:
        """Set the averages of one group.

        Args:
            group: a key of `modules`.
            averages: parameter name -> tensor, one for each.
        """
        for name, one in self.averages[group].items():
            one.copy_(averages[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the modules hold the averages; afterwards their own weights again, bit for bit.

        A block within a block changes nothing.
        """
        outermost, self._is_applied = not self._is_applied, True
        if outermost:
            self._swap()
        try:
            yield
        finally:
            if outermost:
                self._swap()
                self._is_applied = False

    @torch.no_grad()
    def _swap(self) -> None:
        for group, module in self.modules.items():
            for name, parameter in module.named_parameters():
                average = self.averages[group][name]
                weights = parameter.detach().clone()  # copied in place: a compiled network knows weights by address
                parameter.copy_(average)
                average.copy_(weights)
