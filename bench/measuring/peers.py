"""Other people's code, read from a checkout that the caller names: imported as it stands, whatever it lacks made up.

What a peer imports and our measurement never calls (a downloader, a tokenizer's table of emoji) is a stand-in without
content.  A peer's import may change switches of the whole process; so each peer is measured in a process of its own,
and the switches are put back.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

BENCH = Path(__file__).parents[1]
FAR = 1e-5  # largest difference of outputs, over the range of theirs, in float32


class Anything(types.ModuleType):
    """A module that has every name, each of them a class of its own that does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {"__init__": lambda self, *given, **named: None})
        setattr(self, name, made)
        return made


def import_from(path: Path, name: str, missing: Sequence[str], known: Mapping[str, Any] | None = None) -> Any:
    """Import a module of a checkout.

    Args:
        path: the checkout.
        name: of the module.
        missing: modules that stand-ins may replace, where they are not installed.
        known: name of a module -> what stands in for it in any case.
    """
    for one in missing:
        if one not in sys.modules and importlib.util.find_spec(one.partition(".")[0]) is None:
            sys.modules[one] = Anything(one)
    sys.modules.update(known or {})
    sys.path.insert(0, str(path))
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module(name)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(grad)
    return module


def beside(module: str, path: Path, arguments: Sequence[str]) -> None:
    """Measure beside a peer, in a process of its own.

    Args:
        module: of this folder.
        path: the peer's checkout.
        arguments: of the module.
    """
    if not path.is_dir():
        raise SystemExit(f"{path} is no folder; give a checkout of the peer")
    before = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCH), *([before] if before else [])])}
    ran = subprocess.run([sys.executable, "-m", f"measuring.{module}", str(path), *arguments], env=environment)
    if ran.returncode:
        raise SystemExit(ran.returncode)


def require_equal(what: str, theirs: torch.Tensor, ours: torch.Tensor, limit: float = FAR) -> float:
    """Compare outputs; too large a difference ends the run.

    Args:
        what: is compared.
        theirs: the peer's.
        ours: of the same shape.
        limit: of the largest difference, over the range of theirs.

    Returns:
        The largest difference, over the range of theirs.
    """
    difference = float((theirs - ours).abs().max() / (theirs.max() - theirs.min()))
    if not difference <= limit:
        raise SystemExit(f"{what} differ by {difference:.1e} of their range; at most {limit:.0e} is allowed")
    print(f"{what}: largest difference {difference:.1e} of their range", flush=True)
    return difference
