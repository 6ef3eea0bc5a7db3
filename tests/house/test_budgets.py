"""A file is one idea and a function fits a screen; docstrings and comments are not charged to a function."""

import ast

FILE_LINES = 400
FUNCTION_LINES = 60
FUNCTION_LINES_OF = {"src/opendalle/training/loop.py": 120}  # the one loop, read from top to bottom
ROOF_NAMES = 20


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = ast.get_docstring(function, clean=False)
    body = function.body[1:] if docstring is not None else function.body
    said = body[0].lineno if body else function.end_lineno or function.lineno
    signature = function.body[0].lineno - function.lineno
    return signature + (function.end_lineno or said) - said + 1


def test_files(house):
    lengths = {house.name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in house.files}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_functions(house):
    long = {}
    for path in house.files:
        budget = FUNCTION_LINES_OF.get(house.name(path), FUNCTION_LINES)
        for node in ast.walk(house.tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > budget:
                long[f"{house.name(path)}:{node.lineno} {node.name}"] = code_lines(node)
    assert long == {}


def test_no_junk_drawers(house):
    junk = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}
    assert [house.name(path) for path in house.files if {path.stem, path.parent.name} & junk] == []


ROOF = """
import opendalle
missing = [name for name in opendalle.__all__ if not hasattr(opendalle, name)]
assert not missing, missing
assert set(dir(opendalle)) == set(opendalle.__all__)
print(len(opendalle.__all__))
try:
    opendalle.nonsense
except AttributeError as error:
    assert "load" in str(error)
"""


def test_the_roof_has_few_names_and_each_exists(house):
    assert int(house.python("-c", ROOF).stdout) <= ROOF_NAMES
