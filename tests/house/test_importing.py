"""Importing does nothing: no file, no network, no environment, no switch of torch, no chance used up."""

PROGRAM = """
import importlib, logging, os, pkgutil, random, signal, sys, threading, warnings

# The world's own packages first: what they do when imported is their business.
for name in ("torch", "torch.nn.functional", "torch.utils.data", "torch.utils.checkpoint", "numpy", "PIL.Image",
             "PIL.WebPImagePlugin", "PIL.PngImagePlugin", "PIL.JpegImagePlugin", "safetensors.torch", "einops",
             "jaxtyping", "yaml", "cyclopts", "rich.console", "platformdirs", "importlib.resources"):
    importlib.import_module(name)
import numpy, torch

def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": str(torch.get_default_device()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "matmul": torch.get_float32_matmul_precision(),
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "chance": (torch.get_rng_state().sum().item(), hash(random.getstate()), str(numpy.random.get_state())),
        "numpy errors": numpy.geterr(),
        "print options": numpy.get_printoptions()["precision"],
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "logging": (len(logging.getLogger().handlers), logging.getLogger().level),
        "warnings": list(warnings.filters),
        "python threads": threading.active_count(),
        "recursion": sys.getrecursionlimit(),
    }

did = []
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            did.append(f"wrote {path}")
    elif event.startswith(("socket.", "subprocess.", "os.mkdir", "os.remove", "os.rename", "os.putenv", "shutil.")):
        did.append(f"{event} {arguments}")

before = state()
sys.addaudithook(watch)
import opendalle
for one in pkgutil.walk_packages(opendalle.__path__, "opendalle."):
    if not one.name.endswith("__main__"):
        importlib.import_module(one.name)
after = state()
did += [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]
y = (torch.ones(1, requires_grad=True) * 2).sum()
y.backward()  # autograd is still on
if did:
    sys.exit("importing did something: " + "; ".join(did))
"""


def test_importing_every_module_does_nothing(house):
    house.python("-c", PROGRAM)


def test_importing_the_roof_fetches_no_room(house):
    rooms = "import sys, opendalle; print(sorted(one for one in sys.modules if one.startswith('opendalle')))"
    assert house.python("-c", rooms).stdout.strip() == "['opendalle']"
