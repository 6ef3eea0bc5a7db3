"""What a run computes (`TrainConfig`) and how it is looked after (`Upkeep`).

Every length is counted in pictures, never in steps or epochs: a schedule then means the same for any batch size and
any number of processes, and a run can be compared with another by what it has seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from opendalle.base.errors import require

DECAYS = ("cosine", "linear", "constant")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """One group's optimiser.  Source: Decoupled weight decay regularization, arXiv:1711.05101, algorithm 2."""

    learning_rate: float = 3e-4  # at the top of the schedule
    beta1: float = 0.9  # memory of the gradient's mean; 0.9 remembers about 10 steps
    beta2: float = 0.99  # memory of its square; short runs want less than the usual 0.999
    eps: float = 1e-8  # keeps the division finite
    weight_decay: float = 0.01  # a step's pull of matrices towards zero, times the learning rate

    def __post_init__(self) -> None:
        require(0 < self.learning_rate < 10, f"learning_rate {self.learning_rate}", "above 0, below 10")
        require(0 <= self.beta1 < 1, f"beta1 {self.beta1}", "0 to below 1")
        require(0 <= self.beta2 < 1, f"beta2 {self.beta2}", "0 to below 1")
        require(0 < self.eps < 1, f"eps {self.eps}", "above 0, below 1")
        require(0 <= self.weight_decay <= 10, f"weight_decay {self.weight_decay}", "0 to 10")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a run computes; a resumed run must have the same one, so that it goes on bit for bit."""

    pictures: int  # length of the run; 0: the weights stay as a warm start brought them
    batch_size: int = 64  # pictures a micro-batch, over all processes together
    accumulate: int = 1  # micro-batches an optimiser step
    seed: int = 0  # of everything the objectives draw
    optimiser: AdamWConfig = field(default_factory=AdamWConfig)  # of every group without one of its own
    group_optimisers: Mapping[str, AdamWConfig] = field(default_factory=dict)  # groups that want another one
    warmup_pictures: int = 0  # learning rate rises linearly over the first so many
    decay: str = "cosine"  # its way down: cosine, linear or constant
    decay_pictures: int | None = None  # the way down takes the last so many; None: all after the warm-up
    final_rate: float = 0.0  # what is left of the learning rate at the end, as a fraction
    clip: float = 1.0  # largest gradient norm of a group; 0: off
    ema_halflife: int = 0  # pictures after which a weight counts half in the average; 0: no average
    ema_rampup: float = 0.05  # early on, the half-life is this fraction of the pictures seen
    precision: str = "auto"  # of the forward pass; auto: bfloat16 where the device is fast at it

    def __post_init__(self) -> None:
        require(self.pictures >= 0, f"pictures {self.pictures}", "at least 0")
        require(self.batch_size >= 1, f"batch_size {self.batch_size}", "at least 1")
        require(self.accumulate >= 1, f"accumulate {self.accumulate}", "at least 1")
        require(0 <= self.seed < 2**63, f"seed {self.seed}", "0 to 2^63 - 1")
        require(0 <= self.warmup_pictures <= self.pictures, f"warmup_pictures {self.warmup_pictures}", "0 to pictures")
        require(self.decay in DECAYS, f"decay {self.decay!r}", "one of " + ", ".join(DECAYS))
        room = self.pictures - self.warmup_pictures
        decay_fits = self.decay_pictures is None or 0 <= self.decay_pictures <= room
        require(decay_fits, f"decay_pictures {self.decay_pictures}", f"0 to {room}, what the warm-up leaves")
        require(0 <= self.final_rate <= 1, f"final_rate {self.final_rate}", "0 to 1")
        require(0 <= self.clip < math.inf, f"clip {self.clip}", "0 (off) or a norm")
        require(self.ema_halflife >= 0, f"ema_halflife {self.ema_halflife}", "0 (off) or a number of pictures")
        require(0 < self.ema_rampup <= 1, f"ema_rampup {self.ema_rampup}", "above 0, at most 1")
        require(self.precision in PRECISIONS, f"precision {self.precision!r}", "one of " + ", ".join(PRECISIONS))

    @property
    def pictures_per_step(self) -> int:
        """Pictures an optimiser step, over all processes together."""
        return self.batch_size * self.accumulate


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """How a run is looked after; nothing here changes a weight, so pieces of one run may differ in it."""

    save_every: int = 0  # pictures between saves; 0: by the clock only
    save_minutes: float = 10.0  # minutes between saves; 0: by pictures only
    keep: int = 2  # saves that stay
    show_every: int = 0  # pictures between sample grids; 0: none
    max_minutes: float | None = None  # save and stop after so long; None: go on to the end
    tensorboard: bool = False  # also write TensorBoard events beside the log

    def __post_init__(self) -> None:
        require(self.save_every >= 0, f"save_every {self.save_every}", "0 (off) or a number of pictures")
        require(self.save_minutes >= 0, f"save_minutes {self.save_minutes}", "0 (off) or minutes")
        require(self.keep >= 1, f"keep {self.keep}", "at least 1")
        require(self.show_every >= 0, f"show_every {self.show_every}", "0 (off) or a number of pictures")
        limit_fits = self.max_minutes is None or self.max_minutes > 0
        require(limit_fits, f"max_minutes {self.max_minutes}", "more than 0")
