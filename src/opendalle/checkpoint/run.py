"""The run folder: what a training run leaves behind so that it can go on, bit for bit.

    RUN/
      run.json                   what is being trained: written once, when the run begins
      log.jsonl                  one line a step (the training room writes it)
      step-000001200/
        state.json               plain data: counts, config
        weights.decoder.safetensors, average.decoder.safetensors, optimiser.decoder.safetensors, chance.safetensors
        manifest.json            size and sha256 of the files above, written last

A step is written into a hidden draft, every file pushed to the disk, the manifest last, then one rename shows it.
It is read back and compared before an older one is pruned, so at every moment at least one whole save is there.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from opendalle.base.errors import BadModel
from opendalle.checkpoint.files import (
    checked,
    inside,
    is_there,
    new_folder,
    read_json,
    remove_drafts,
    remove_folder,
    replace_file,
    sync_folder,
    to_json,
    write_file,
)
from opendalle.checkpoint.folder import read_tensors
from opendalle.checkpoint.lock import FolderLock

FORMAT = 1
_STEP = re.compile(r"step-(\d{9,})")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Everything a run must remember at one step."""

    step: int  # optimiser steps done
    values: Mapping[str, Any]  # plain data
    tensors: Mapping[str, Mapping[str, Tensor]]  # file stem -> name -> tensor


class RunFolder:
    """A folder of saved steps.  Make one with `create` (a new run) or `open` (one to go on with, or to read).

    Args:
        path: the folder.
        lock: held by the process that writes; None for readers.
    """

    def __init__(self, path: Path, lock: FolderLock | None) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path, about: Mapping[str, Any]) -> "RunFolder":
        """Begin a run.

        Args:
            path: a folder without saved steps; made if missing.
            about: what is being trained, plain data, kept in run.json.

        Raises:
            BadModel: when a run with saved steps lies there, or another process is writing there.
        """
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        if steps := _steps(path):
            raise BadModel(
                f"{path}, which holds a run saved at step {steps[-1]}", "a new folder", "Go on with it by --resume."
            )
        run = cls(path, FolderLock(path))
        remove_drafts(path)
        replace_file(path / "run.json", to_json({"format": FORMAT, "about": dict(about)}))
        sync_folder(path.parent)
        return run

    @classmethod
    def open(cls, path: Path, *, to_write: bool = True) -> "RunFolder":
        """Open a run that exists.

        Args:
            path: its folder.
            to_write: take the writer's lock and sweep away drafts of a crashed writer.

        Raises:
            BadModel: when there is no run, a newer opendalle wrote it, or another process is writing in it.
        """
        path = Path(path)
        if not is_there(path / "run.json"):
            raise BadModel(f"no run in {path}", "a folder with run.json", "To begin a new run, leave out --resume.")
        if (found := read_json(path / "run.json").get("format")) != FORMAT:
            raise BadModel(f"a run in format {found!r} in {path}", f"format {FORMAT}", "Update opendalle.")
        run = cls(path, FolderLock(path) if to_write else None)
        if to_write:
            remove_drafts(path)
        return run

    @property
    def about(self) -> dict[str, Any]:
        """What is being trained, as given to `create`."""
        return read_json(self.path / "run.json").get("about", {})

    def steps(self) -> tuple[int, ...]:
        """Steps that have been saved, oldest first; whether they are undamaged shows when they are loaded."""
        return _steps(self.path)

    def step_path(self, step: int) -> Path:
        """Return the folder of a step, whether it exists or not.

        Args:
            step: optimiser steps done.
        """
        return self.path / f"step-{step:09d}"

    def save(self, state: RunState, keep: int = 2) -> Path:
        """Save a step in one piece, read it back, and only then prune older ones.

        Args:
            state: what to remember.
            keep: how many saves stay, the new one included; at least 1.

        Returns:
            The folder of the step.

        Raises:
            BadModel: when the disk refuses or what is read back differs; older saves are untouched then.
        """
        assert self._lock is not None, "readers do not save"
        final = self.step_path(state.step)
        try:
            if final.exists() and not self._is_whole(final):
                remove_folder(final)
            if not final.exists():
                with new_folder(final) as draft:
                    _write(draft, state)
            _verify(final)
            self.prune(keep)
        except OSError as error:
            raise BadModel(
                f"a save of step {state.step} that the system refused ({error})",
                f"room on the disk and the right to write in {self.path}",
                "Earlier saves are untouched; go on from them by --resume.",
            ) from error
        return final

    def load(self, step: int | None = None) -> RunState:
        """Read a step whose every file is the one that was written.

        Args:
            step: which; None for the newest whole one (a damaged newer one is skipped with a warning).

        Raises:
            BadModel: when there is no whole save.  A resume that was asked for never starts afresh.
        """
        wanted = [step] if step is not None else list(reversed(self.steps()))
        troubles: list[str] = []
        for one in wanted:
            try:
                state = _read(self.step_path(one))
            except BadModel as error:
                troubles.append(str(error))
                continue
            for trouble in troubles:
                warnings.warn(f"skipped a damaged save: {trouble}", stacklevel=2)
            return state
        raise BadModel(
            f"no whole save in {self.path}" + (f" ({troubles[0]})" if troubles else ""),
            "at least one saved step",
            "To begin anew, give a new folder and leave out --resume.",
        )

    def prune(self, keep: int) -> None:
        """Delete all but the newest saves, if the newest of all is whole.

        Args:
            keep: how many stay; at least 1.

        Raises:
            BadModel: when the newest save is damaged; nothing has been deleted then.
        """
        assert keep >= 1, "pruning never deletes the last save"
        steps = self.steps()
        if len(steps) > keep:
            _verify(self.step_path(steps[-1]))
            for step in steps[:-keep]:
                remove_folder(self.step_path(step))

    def close(self) -> None:
        """Let another process write; harmless when repeated."""
        if self._lock is not None:
            self._lock.release()

    @staticmethod
    def _is_whole(folder: Path) -> bool:
        try:
            _verify(folder)
        except BadModel:
            return False
        return True


def _steps(path: Path) -> tuple[int, ...]:
    found = (_STEP.fullmatch(one.name) for one in path.iterdir() if one.is_dir())
    return tuple(sorted(int(one.group(1)) for one in found if one))


def _write(draft: Path, state: RunState) -> None:
    files = {"state.json": write_file(draft / "state.json", to_json({"step": state.step, "values": state.values}))}
    for stem, tensors in state.tensors.items():
        name = inside(f"{stem}.safetensors")
        # Copies: safetensors refuses tensors that share memory, and training must not move what is being written.
        copies = {key: one.detach().to("cpu", copy=True).contiguous() for key, one in tensors.items()}
        files[name] = write_file(draft / name, safetensors.torch.save(copies))
    write_file(draft / "manifest.json", to_json({"format": FORMAT, "files": files}))


def _verify(folder: Path) -> dict[str, Path]:
    manifest = read_json(folder / "manifest.json")
    if manifest.get("format") != FORMAT or not isinstance(manifest.get("files"), dict):
        raise BadModel(f"{folder}/manifest.json in format {manifest.get('format')!r}", f"format {FORMAT}")
    return {name: checked(folder, name, entry) for name, entry in manifest["files"].items()}


def _read(folder: Path) -> RunState:
    paths = _verify(folder)
    if "state.json" not in paths:
        raise BadModel(f"{folder} without state.json", "a whole save")
    state = read_json(paths["state.json"])
    if not isinstance(state.get("step"), int) or not isinstance(state.get("values"), dict):
        raise BadModel(f"{folder}/state.json without step or values", "a whole save")
    tensors = {name.removesuffix(".safetensors"): path for name, path in paths.items() if path.suffix == ".safetensors"}
    return RunState(
        step=state["step"],
        values=state["values"],
        tensors={stem: read_tensors(path) for stem, path in tensors.items()},
    )
