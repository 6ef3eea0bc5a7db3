"""Who may import whom."""

import ast

NO_TORCH = """
import importlib, pkgutil, sys
import opendalle
names = ["opendalle", "opendalle.base.errors", "opendalle.base.records", "opendalle.base.request"]
for room in ("opendalle.cli", "opendalle.pictures", "opendalle.tokenizers"):
    names += [room] + [one.name for one in pkgutil.walk_packages(importlib.import_module(room).__path__, room + ".")]
for name in names:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{name} imports torch")
"""


def test_the_import_law_holds(house):
    house.tool("lint-imports")


def test_the_roof_is_imported_by_nobody_inside(house):
    """The contract cannot see this: rooms and the version may be named, what the roof re-exports may not."""
    broken = []
    for path in house.files:
        for node in ast.walk(house.tree(path)):
            if isinstance(node, ast.Import) and any(one.name == "opendalle" for one in node.names):
                broken.append(f"{house.name(path)}:{node.lineno} import opendalle")
            if isinstance(node, ast.ImportFrom) and node.module == "opendalle":
                names = {one.name for one in node.names} - set(house.rooms) - {"__version__"}
                broken += [f"{house.name(path)}:{node.lineno} from opendalle import {name}" for name in names]
            if isinstance(node, ast.ImportFrom) and node.level:
                broken.append(f"{house.name(path)}:{node.lineno} relative import: say which room")
    assert broken == []


def test_rooms_without_torch_really_have_none(house):
    house.python("-c", NO_TORCH)
