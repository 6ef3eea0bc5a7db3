"""`opendalle doctor`: is this machine ready to draw?"""

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from opendalle import __version__
from opendalle.base.errors import OpenDalleError
from opendalle.checkpoint import places
from opendalle.cli.console import one_line
from opendalle.pictures import read_picture, read_recipe, write_png

FREE_BYTES = 200 * 2**20  # room for a few hundred pictures


def doctor() -> int:
    """Check Python, torch, the device, the disk and the bundled models, a line each.

    Returns:
        The exit code: 1 when something is amiss.
    """
    checks: dict[str, Callable[[], str]] = {
        "opendalle": lambda: f"{__version__}, Python {platform.python_version()}, {platform.platform()}",
        "torch": _torch,
        "device": _device,
        "bfloat16": _bfloat16,
        "disk": _disk,
        "writing": _writing,
        "models": _models,
    }
    code = 0
    for name, check in checks.items():
        try:
            mark, words = "ok", check()
        except (OpenDalleError, ImportError, OSError, RuntimeError) as error:
            mark, words, code = "AMISS", one_line(str(error)), 1
        print(f"{name:<10} {mark:<6} {words}", flush=True)
    return code


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple GPU" if torch.backends.mps.is_available() else f"CPU ({platform.machine()})"


def _bfloat16() -> str:
    import torch

    from opendalle.training.precision import is_bfloat16_fast

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "fast" if is_bfloat16_fast(device) else "no faster here; float32 is used"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    if free < FREE_BYTES:
        raise OSError(f"{free / 2**20:.0f} MiB free here; wanted {FREE_BYTES // 2**20} MiB")
    return f"{free / 2**30:.1f} GiB free here"


def _writing() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = write_png(Image.new("RGBA", (2, 2), (9, 8, 7, 6)), Path(folder) / "a.png", {"prompt": "红苹果"})
        if read_picture(path).getpixel((1, 1)) != (9, 8, 7, 6) or read_recipe(path) != {"prompt": "红苹果"}:
            raise OSError("a picture did not come back as it was written")
    return f"a picture and its recipe came back whole ({sys.getfilesystemencoding()})"


def _models() -> str:
    from opendalle.checkpoint.folder import verify_model

    names = places.bundled_models()
    for name in names:
        verify_model(places.bundled_folder() / name)
    if not names:
        raise OSError("no bundled model was found; the installation is not whole")
    return f"{len(names)} bundled models are whole: {', '.join(names)}"
