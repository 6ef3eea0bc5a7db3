"""A failure at every single step of a save: whatever the operating system refuses, whenever the process dies."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from opendalle.base.errors import BadModel
from opendalle.checkpoint.folder import Part, read_model, verify_model, write_model
from opendalle.checkpoint.run import RunFolder, RunState

STEPS = ("open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "rmdir")
CARD = {"data": "d", "recipe": "r", "licence": "MIT"}


class Death(BaseException):
    """The process ends here: from now on no system call is made, so no cleaning up either."""


class Faults:
    """Counts the system calls of a save and fails at one of them."""

    def __init__(self, fail_at: int, fault: str) -> None:
        self.count, self.fail_at, self.fault, self.dead = 0, fail_at, fault, False

    def before(self, name: str) -> None:
        if self.dead:
            raise Death
        self.count += 1
        if self.count == self.fail_at:
            if self.fault == "death":
                self.dead = True
                raise Death
            raise OSError(getattr(errno, self.fault), f"{self.fault} in {name}")


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, fail_at: int, fault: str) -> Iterator[Faults]:
    faults = Faults(fail_at, fault)
    real_close, real_write = os.close, os.write

    def wrap(name: str, real: Callable) -> Callable:
        def call(*args: Any, **named: Any) -> Any:
            try:
                faults.before(name)
            except BaseException:
                if name == "close":
                    real_close(args[0])  # the operating system closes files, whatever happens
                if name == "write":
                    real_write(args[0], args[1][: len(args[1]) // 2])  # a part of the bytes has arrived
                raise
            return real(*args, **named)

        return call

    with monkeypatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        yield faults


def state(step: int) -> RunState:
    return RunState(step=step, values={"step": step}, tensors={"weights": {"w": torch.full((8, 8), float(step))}})


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "death"])
def test_a_fault_at_every_step_of_a_run_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    fail_at, failures, outcomes = 0, 0, set()
    while True:
        fail_at += 1
        run = RunFolder.create(tmp_path / str(fail_at), {})
        run.save(state(1))
        with failing(monkeypatch, fail_at, fault) as faults:
            try:
                run.save(state(2), keep=1)
            except (BadModel, OSError, Death):
                failures += 1
        run.close()
        again = RunFolder.open(tmp_path / str(fail_at))
        found = again.load()
        assert found.step in (1, 2)
        assert bool((found.tensors["weights"]["w"] == found.step).all())
        again.save(state(3), keep=1)  # and the run goes on
        assert again.load().step == 3
        leftovers = {one.name for one in (tmp_path / str(fail_at)).iterdir()} - {".lock", "run.json"}
        assert fault != "death" or leftovers == {"step-000000003"}
        again.close()
        outcomes.add(found.step)
        if faults.count < fail_at:
            break
    assert fail_at > 15
    assert failures >= 12
    assert outcomes == {1, 2}


@pytest.mark.parametrize("fault", ["ENOSPC", "death"])
@pytest.mark.parametrize("replace", [False, True])
def test_a_fault_at_every_step_of_a_model_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, replace: bool
) -> None:
    def write(folder: Path, value: float, replace: bool) -> None:
        parts = {"net": Part({"width": 8}, {"w": torch.full((8, 8), value)}, "int8-row")}
        write_model(folder, kind="x", parts=parts, card=CARD, replace=replace)

    fail_at = 0
    while True:
        fail_at += 1
        folder = tmp_path / str(fail_at) / "model"
        if replace:
            write(folder, 1.0, False)
        with failing(monkeypatch, fail_at, fault) as faults, suppress(BadModel, OSError, Death):
            write(folder, 2.0, replace)
        values = (1.0, 2.0) if replace else (2.0,)
        if folder.exists():
            assert float(verify_model(folder).part("net").state()["w"][0, 0]) == pytest.approx(values[-1]) or replace
            assert float(read_model(folder).part("net").state()["w"][0, 0]) in [pytest.approx(one) for one in values]
        elif replace:
            assert fault == "death"
            with pytest.raises(BadModel, match="rename that back"):
                read_model(folder)
        if faults.count < fail_at:
            break
    assert folder.exists()
    assert fail_at > 12


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, payload: real(descriptor, payload[:7]))
    run = RunFolder.create(tmp_path, {})
    run.save(state(1))
    assert bool((run.load().tensors["weights"]["w"] == 1).all())


def test_a_full_disk_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path, {})
    with failing(monkeypatch, 4, "ENOSPC"), pytest.raises(BadModel, match="room on the disk"):
        run.save(state(1))
