"""Everything of a run that changes: weights, averages, optimisers, counts.  It can be written down and given back."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opendalle.base.errors import BadConfig, BadModel, require
from opendalle.base.protocols import Objective
from opendalle.checkpoint.run import RunState
from opendalle.training.chance import chance_tensors, restore_chance
from opendalle.training.config import TrainConfig
from opendalle.training.distributed import World
from opendalle.training.ema import EMA
from opendalle.training.optimisers import load_optimiser, make_optimiser, optimiser_tensors
from opendalle.training.schedule import rate_at


class Learner:
    """An objective on its way through a run.

    Args:
        objective: what is trained.
        config: how.
        ema: the caller's averages; None: made here if the config wants them.

    Raises:
        BadConfig: when the config speaks of a group that the objective has not.
    """

    def __init__(self, objective: Objective, config: TrainConfig, ema: EMA | None = None) -> None:
        self.objective, self.config = objective, config
        self.groups: dict[str, nn.Module] = dict(objective.groups)
        unknown = sorted(set(config.group_optimisers) - set(self.groups))
        require(not unknown, f"group_optimisers for {unknown}", "groups of the objective: " + ", ".join(self.groups))
        own = {group: config.group_optimisers.get(group, config.optimiser) for group in self.groups}
        self.peaks = {group: one.learning_rate for group, one in own.items()}
        self.optimisers = {group: make_optimiser(self.groups[group], one) for group, one in own.items()}
        self.ema = ema
        if ema is None and config.ema_halflife:
            self.ema = EMA(self.groups, config.ema_halflife, config.ema_rampup)
        self.step = 0  # optimiser steps done

    @property
    def position(self) -> int:
        """Micro-batches used so far."""
        return self.step * self.config.accumulate

    @property
    def pictures(self) -> int:
        """Pictures seen so far, by all processes together."""
        return self.step * self.config.pictures_per_step

    @property
    def device(self) -> torch.device:
        """Where the first group's weights live."""
        return next(next(iter(self.groups.values())).parameters()).device

    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters, group after group."""
        return [one for group in self.groups for one in self.parameters_of(group)]

    def parameters_of(self, group: str) -> list[nn.Parameter]:
        """The trained parameters of one group.

        Args:
            group: its name.
        """
        return [one for one in self.groups[group].parameters() if one.requires_grad]

    def prepare(self) -> None:
        """Before a step: training mode, and the objective's `before_step` hook."""
        for module in self.groups.values():
            module.train()
        if before_step := getattr(self.objective, "before_step", None):
            before_step(self.pictures, self.config.pictures)

    def gradient_norms(self) -> list[Tensor]:
        """Clip each group's gradients; return their norms before that, one scalar a group."""
        limit = self.config.clip or float("inf")
        return [nn.utils.clip_grad_norm_(self.parameters_of(group), limit).to(self.device) for group in self.groups]

    def update(self) -> float:
        """Make the step that the gradients ask for; return the first group's learning rate."""
        seen = self.pictures + self.config.pictures_per_step
        for group, optimiser in self.optimisers.items():
            for one in optimiser.param_groups:
                one["lr"] = self.peaks[group] * rate_at(seen, self.config)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.pictures, self.config.pictures_per_step)
        if after_step := getattr(self.objective, "after_step", None):
            after_step()
        return next(iter(self.peaks.values())) * rate_at(seen, self.config)

    def state(self, world: World) -> RunState:
        """Write down everything; every process must call it, since each has chance of its own.

        Args:
            world: of this run.
        """
        tensors: dict[str, Mapping[str, Tensor]] = {"chance": world.gather(chance_tensors())}
        for group, module in self.groups.items():
            tensors[f"weights.{group}"] = module.state_dict()
            tensors[f"optimiser.{group}"] = optimiser_tensors(self.optimisers[group], module)
            if self.ema is not None:
                tensors[f"average.{group}"] = self.ema.state(group)
        if remember := getattr(self.objective, "remember", None):
            tensors["objective"] = remember()
        values = {"pictures": self.pictures, "position": self.position, "config": plain(self.config)}
        return RunState(step=self.step, values=values, tensors=tensors)

    def restore(self, state: RunState, world: World) -> None:
        """Go on from what `state` wrote down.

        Args:
            state: as read from a run folder.
            world: of this run; a process that the save did not know keeps the chance it was born with.

        Raises:
            BadConfig: when the run was begun with another config.
            BadModel: when the weights are another network's.
        """
        _same_config(state.values.get("config", {}), plain(self.config))
        for group, module in self.groups.items():
            load_weights(module, _needed(state, f"weights.{group}"), group)
            load_optimiser(self.optimisers[group], module, _needed(state, f"optimiser.{group}"))
            if self.ema is not None:
                self.ema.load(group, _needed(state, f"average.{group}"))
        if recall := getattr(self.objective, "recall", None):
            recall(_needed(state, "objective"))
        self.step = state.step
        prefix = f"{world.rank}/"
        chance = {
            key.removeprefix(prefix): one for key, one in state.tensors["chance"].items() if key.startswith(prefix)
        }
        if chance:
            restore_chance(chance)


def plain(config: TrainConfig) -> dict[str, Any]:
    """Return a config as JSON gives it back.

    Args:
        config: any.
    """
    return json.loads(json.dumps(dataclasses.asdict(config)))


def load_weights(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load a state dict strictly, and say in one line what does not fit.

    Args:
        module: takes the weights.
        state: every parameter and buffer, no more.
        name: of the network, for the message.

    Raises:
        BadModel: for missing, unexpected or differently shaped weights.
    """
    own = module.state_dict()
    wrong = [
        f"{key} is {_sides(state[key])}, not {_sides(one)}"
        for key, one in own.items()
        if key in state and state[key].shape != one.shape
    ]
    wrong += [f"{key} is missing" for key in own if key not in state]
    wrong += [f"{key} is unknown" for key in state if key not in own]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise BadModel(
            f"weights that do not fit the network {name!r}: {wrong[0]}{more}", "weights of a network of the same config"
        )
    module.load_state_dict(dict(state), strict=True)


def _sides(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "one number"


def _needed(state: RunState, stem: str) -> Mapping[str, Tensor]:
    if stem not in state.tensors:
        raise BadModel(f"a save without {stem}", "a save of the same objective: " + ", ".join(sorted(state.tensors)))
    return state.tensors[stem]


def _same_config(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    different = [key for key in sorted({*saved, *wanted}) if saved.get(key) != wanted.get(key)]
    if different:
        came = ", ".join(f"{key} = {wanted.get(key)} (begun with {saved.get(key)})" for key in different)
        raise BadConfig(
            f"a resumed run with {came}", "the config it was begun with", "To change it, begin anew by --from."
        )
