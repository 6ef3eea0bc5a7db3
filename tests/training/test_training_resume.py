"""Ten steps in one piece equal five, a resume, and five more: bit for bit, in everything that is remembered."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadConfig, BadModel
from opendalle.base.records import TrainStep
from opendalle.checkpoint.run import RunFolder, RunState
from opendalle.training.config import AdamWConfig, TrainConfig, Upkeep
from opendalle.training.loop import train

CONFIG = TrainConfig(
    pictures=160,
    batch_size=8,
    accumulate=2,
    warmup_pictures=48,
    ema_halflife=64,
    group_optimisers={"far": AdamWConfig(learning_rate=1e-2)},
)


def stir() -> None:
    """Leave the process-wide generators somewhere else, as another process would find them."""
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)


def assert_same(one: RunState, other: RunState) -> None:
    assert one.step == other.step
    assert one.values == other.values
    assert one.tensors.keys() == other.tensors.keys()
    for stem, tensors in one.tensors.items():
        assert tensors.keys() == other.tensors[stem].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other.tensors[stem][name]), f"{stem} {name}"


def test_two_pieces_equal_one(tmp_path: Path, objective: Callable, batches: Callable) -> None:
    whole = RunFolder.create(tmp_path / "whole", {})
    stir()
    steps = list(train(objective(), batches, CONFIG, whole))
    assert [one.pictures for one in steps] == list(range(16, 161, 16))

    first = RunFolder.create(tmp_path / "pieces", {})
    stir()
    for step in train(objective(), batches, CONFIG, first, upkeep=Upkeep(save_every=80)):
        if step.saved:
            break
    first.close()
    stir()
    torch.rand(5)  # a new process has drawn other things before
    second = RunFolder.open(tmp_path / "pieces")
    rest = list(train(objective(), batches, CONFIG, second, resume=True))
    assert len(rest) == 5

    assert_same(whole.load(), second.load())
    wanted = {f"{what}.{group}" for what in ("weights", "optimiser", "average") for group in ("near", "far")}
    assert set(whole.load().tensors) == wanted | {"chance", "objective"}
    assert whole.load().values["position"] == 20
    losses = [(one.losses, one.learning_rate, one.gradient_norm) for one in steps]
    assert losses[5:] == [(one.losses, one.learning_rate, one.gradient_norm) for one in rest]
    lines = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "pieces")]
    assert len(lines[0]) == len(lines[1]) == 10


def test_a_crash_after_a_save_leaves_no_double_lines_in_the_log(
    tmp_path: Path, objective: Callable, batches: Callable
) -> None:
    run = RunFolder.create(tmp_path, {})
    list(islice(train(objective(), batches, CONFIG, run, upkeep=Upkeep(save_every=64)), 6))
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 7, "pict')  # the crash fell into a line
    assert run.load().step == 4
    assert len(list(train(objective(), batches, CONFIG, run, resume=True))) == 6
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == [f'{{"step": {k}' for k in range(1, 11)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_once_and_ends(
    tmp_path: Path, objective: Callable, batches: Callable, number: signal.Signals
) -> None:
    def signalled(position: int) -> Iterator[Tensor]:
        for k, batch in enumerate(batches(position)):
            if k == 5:
                os.kill(os.getpid(), number)
            yield batch

    before = signal.getsignal(number)
    run = RunFolder.create(tmp_path, {})
    steps = list(train(objective(), signalled, CONFIG, run))
    assert [bool(one.saved) for one in steps] == [False, False, True]
    assert signal.getsignal(number) is before
    assert len(list(train(objective(), batches, CONFIG, run, resume=True))) == 7
    assert run.load().values["pictures"] == 160


def test_the_clock_cuts_a_run_in_pieces(tmp_path: Path, objective: Callable, batches: Callable) -> None:
    run = RunFolder.create(tmp_path, {})
    pieces: list[list[TrainStep]] = []
    while not pieces or pieces[-1][-1].pictures < 160:
        upkeep = Upkeep(max_minutes=1e-9)
        pieces.append(list(train(objective(), batches, CONFIG, run, resume=bool(pieces), upkeep=upkeep)))
    assert len(pieces) == 10
    whole = RunFolder.create(tmp_path / "whole", {})
    list(train(objective(), batches, CONFIG, whole))
    for stem in ("weights.near", "average.far"):
        one, other = run.load().tensors[stem], whole.load().tensors[stem]
        assert all(one[name].shape == other[name].shape for name in one)
    assert run.load().values == whole.load().values


def test_a_resume_with_another_config_or_network_is_refused(
    tmp_path: Path, objective: Callable, batches: Callable
) -> None:
    run = RunFolder.create(tmp_path, {})
    with pytest.raises(BadModel, match="no whole save"):
        next(train(objective(), batches, CONFIG, run, resume=True))
    with pytest.raises(BadConfig, match="the run to go on with"):
        next(train(objective(), batches, CONFIG, resume=True))
    list(islice(train(objective(), batches, CONFIG, run, upkeep=Upkeep(save_every=16)), 1))
    other = TrainConfig(pictures=320, batch_size=8)
    with pytest.raises(BadConfig, match=r"pictures = 320 \(begun with 160\)"):
        next(train(objective(), batches, other, run, resume=True))
    stranger = objective()
    stranger.near.layers[0] = torch.nn.Linear(4, 9)
    with pytest.raises(BadModel, match="do not fit the network 'near'"):
        next(train(stranger, batches, CONFIG, run, resume=True))
