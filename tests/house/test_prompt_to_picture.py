"""From a prompt to its picture there are at most ten stations, the bricks of the lower floors aside.

A station is one step of the way with the file or two that make it: docs/decisions/0004-stations.md says why files are
counted so.
"""

import json

import pytest

STATIONS, FILES = 10, 20
BRICKS = {"nn", "diffusion", "base", "pictures", "checkpoint"}
VERB = "cli/generate.py"  # counted as one: the rest of the front door parses words and prints
OWN_STATIONS = {
    "dalle2/priors/diffusion.py",
    "dalle2/decoder.py",
}  # the paper's two networks, beside the pipeline's own files


def station(file: str) -> str:
    """Name the station that a file belongs to: its room, or itself where a room holds several steps of the way."""
    return file if file in OWN_STATIONS else file.split("/")[0]


PROGRAM = """
import json, sys
from pathlib import Path
import opendalle
package = str(Path(opendalle.__file__).parent) + "/"
ran = {}  # file -> its functions that were called, in order of the first call
def watch(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(package) and not code.co_name.startswith("<"):
        above = frame.f_back  # what a module makes while it is imported is no step of the way
        while above is not None and not above.f_code.co_filename.startswith("<frozen importlib"):
            above = above.f_back
        if above is None and code.co_flags & 0x2:  # 0x2: a function's own locals, not a class body
            ran.setdefault(code.co_filename[len(package):], {}).setdefault(code.co_name)
sys.setprofile(watch)
for sample in opendalle.load("dalle2").generate("a red apple", seed=7):
    pass
sys.setprofile(None)
print(json.dumps({"way": {file: list(names) for file, names in ran.items()}, "size": sample.picture.size}))
"""


def test_at_most_ten_stations_from_prompt_to_picture(house):
    if not (house.package / "bundled/dalle2-emoji/model.json").is_file():
        pytest.skip("the bundled model is not built yet")
    told = json.loads(house.python("-c", PROGRAM).stdout.splitlines()[-1])
    assert told["size"] == [256, 256]
    way = [VERB, *(file for file in told["way"] if file.split("/")[0] not in BRICKS and "/" in file)]
    drawn = "\n".join(f"  {number:2}. {file}" for number, file in enumerate(way, start=1))
    print(f"From a prompt to a picture:\n{drawn}")
    assert len({station(file) for file in way}) <= STATIONS, drawn
    assert len(way) <= FILES, drawn
