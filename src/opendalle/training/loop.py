"""The training loop, the only one of the house.

It yields one record a step and decides nothing about showing it: printing, progress bars and pages belong to the
caller.  Stop iterating to abandon a run; Ctrl-C, SIGTERM and the clock end it after a save.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Generator, Tensor

from opendalle.base.errors import require
from opendalle.base.protocols import Losses, Objective
from opendalle.base.records import TrainStep
from opendalle.checkpoint.run import RunFolder
from opendalle.training.batches import Batches, move_to, next_batch
from opendalle.training.chance import batch_generator, undisturbed
from opendalle.training.clock import Clock
from opendalle.training.config import TrainConfig, Upkeep
from opendalle.training.distributed import Compute, World, shared, unsynchronised
from opendalle.training.diverged import refuse_non_finite
from opendalle.training.ema import EMA
from opendalle.training.learner import Learner
from opendalle.training.log import RunLog
from opendalle.training.precision import autocast_dtype
from opendalle.training.stop import Stop

Show = Callable[[int], None]  # pictures seen -> None; the modules hold their averages meanwhile


def train(
    objective: Objective,
    batches: Batches,
    config: TrainConfig,
    run: RunFolder | None = None,
    *,
    resume: bool = False,
    upkeep: Upkeep | None = None,
    ema: EMA | None = None,
    show: Show | None = None,
    world: World | None = None,
) -> Iterator[TrainStep]:
    """Train an objective's groups and yield one record a step.

    The objective may have these hooks: `backward(batch, rng) -> Losses` runs its own backward passes (gradient
    caching), `before_step(pictures, total)` lets it follow the run's progress, `after_step()` lets a teacher follow
    the weights, `remember() -> tensors` and `recall(tensors)` keep what lives outside its groups across a resume.

    Args:
        objective: its modules lie on the device to train on.
        batches: micro-batches from a position on; this process's slice of them where there are several.
        config: what is computed.
        run: where saves and the log go; None keeps nothing.  Processes other than the first open it as readers.
        resume: go on from the run's newest whole save, bit for bit.
        upkeep: when to save, show and stop.
        ema: the caller's averages, `EMA(objective.groups, config.ema_halflife, config.ema_rampup)`, to read when the
            run is over; None makes them here.
        show: draws a sample grid from seeds of its own; called every `upkeep.show_every` pictures and at the end.
        world: the processes of this run; None: this one alone.

    Yields:
        A step, after it was made, logged, and saved if it was time.

    Raises:
        BadConfig: when the config does not fit the objective or the resumed run.
        BadModel: when there is nothing whole to resume from, or a save fails.
        BadData: when the batches end.
        Diverged: when a loss or gradient is not finite; the weights are as before that step.
    """
    upkeep, world = upkeep or Upkeep(), world or World()
    require(run is not None or not resume, "resume without a run folder", "the run to go on with")
    world.share(config.batch_size)
    learner = Learner(objective, config, ema)
    if resume and run is not None:
        learner.restore(run.load(), world)
    compute = None if hasattr(objective, "backward") else shared(objective, world)
    clock = Clock(config.pictures, learner.pictures)
    saved_at, saved = time.monotonic(), str(run.step_path(learner.step)) if run and resume else None
    finite: dict[str, float] = {}
    feed = batches(learner.position)
    folder = run.path if run is not None and world.writes else None
    with Stop(upkeep.max_minutes) as stop, RunLog(folder, learner.step, learner.pictures, upkeep.tensorboard) as log:
        while learner.pictures < config.pictures:
            learner.prepare()
            sums: dict[str, Tensor] = {}
            for part in range(config.accumulate):
                position = learner.position + part
                batch = move_to(next_batch(feed, position), learner.device)
                rng = batch_generator(config.seed, position, world.rank)
                losses = _backward(learner, compute, batch, rng, last=part == config.accumulate - 1)
                for name, value in (*losses.total.items(), *losses.watch.items()):
                    value = torch.as_tensor(value, dtype=torch.float32, device=learner.device).detach()
                    sums[name] = sums[name] + value if name in sums else value
            _mean_gradients(learner, world if compute is None else World())  # DistributedDataParallel has seen to it
            norms = torch.stack(learner.gradient_norms())
            means = world.mean(torch.stack(list(sums.values())) / config.accumulate)
            numbers = torch.cat([means.float(), norms.square().sum().sqrt().reshape(1)]).tolist()  # the step's one wait
            values = dict(zip((*sums, "gradient norm"), numbers, strict=True))
            refuse_non_finite(values, finite, learner.step + 1, saved)
            finite = values
            learning_rate = learner.update()

            done = learner.pictures >= config.pictures
            due = 0 < upkeep.save_minutes <= (time.monotonic() - saved_at) / 60
            stopping, due = world.any(stop.wanted, due or _crosses(learner, upkeep.save_every))
            if show and world.writes and (done or _crosses(learner, upkeep.show_every)):
                with undisturbed(), learner.ema.applied() if learner.ema else nullcontext():
                    show(learner.pictures)
            now_saved = None
            if run and (done or stopping or due):
                state = learner.state(world)
                if world.writes:
                    now_saved = saved = str(run.save(state, upkeep.keep))
                world.barrier()
                saved_at = time.monotonic()
            speed, seconds_left = clock.tick(learner.pictures)
            step = TrainStep(
                step=learner.step,
                pictures=learner.pictures,
                losses={name: values[name] for name in sums},
                learning_rate=learning_rate,
                gradient_norm=values["gradient norm"],
                pictures_per_second=speed,
                seconds_left=seconds_left,
                saved=now_saved,
            )
            log.write(step)
            yield step
            if stopping:
                return


def _backward(learner: Learner, compute: Compute | None, batch: Any, rng: Generator, last: bool) -> Losses:
    """Add one micro-batch's gradients to those of the step."""
    dtype = autocast_dtype(learner.config.precision, learner.device)
    with unsynchronised(compute, last):
        with torch.autocast(learner.device.type, dtype=dtype, enabled=dtype is not None):
            if compute is None:
                return learner.objective.backward(batch, rng)  # type: ignore[attr-defined]
            losses = compute(batch, rng)
        torch.stack(list(losses.total.values())).sum().backward()  # outside: gradients take the forward pass's dtypes
    return losses


def _mean_gradients(learner: Learner, world: World) -> None:
    """Turn sums over a step's micro-batches (and processes) into means."""
    parameters = learner.parameters()
    world.average_gradients(parameters)
    if learner.config.accumulate > 1:
        for one in parameters:
            if one.grad is not None:
                one.grad /= learner.config.accumulate


def _crosses(learner: Learner, every: int) -> bool:
    """Say whether the step just made reached or passed a multiple of `every` pictures; 0 means never."""
    before = learner.pictures - learner.config.pictures_per_step
    return every > 0 and learner.pictures // every > before // every
