"""A config is a frozen keyword-only dataclass; each field tells its meaning, and wrong values are refused by code."""

import ast

import pytest


def configs(house):
    for path in house.files:
        for node in ast.walk(house.tree(path)):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config") and node.name != "BadConfig":
                yield path, node


def options_of_dataclass(node: ast.ClassDef) -> set[str]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith("dataclass"):
            chosen = [
                one for one in decorator.keywords if isinstance(one.value, ast.Constant) and one.value.value is True
            ]
            return {str(one.arg) for one in chosen}
    return set()


def test_configs_are_frozen_and_keyword_only(house):
    broken = [
        f"{house.name(path)}:{node.lineno} {node.name}"
        for path, node in configs(house)
        if not {"frozen", "kw_only"} <= options_of_dataclass(node)
    ]
    assert broken == []


def test_every_field_of_a_config_tells_its_meaning(house):
    broken = []
    for path, node in configs(house):
        lines = path.read_text(encoding="utf-8").splitlines()
        for field in node.body:
            if not isinstance(field, ast.AnnAssign):
                continue
            beside = "#" in " ".join(lines[field.lineno - 1 : field.end_lineno])
            above = lines[field.lineno - 2].strip().startswith("#")
            if not (beside or above):
                broken.append(f"{house.name(path)}:{field.lineno} {node.name}.{ast.unparse(field.target)}")
    assert broken == []


def test_configs_check_themselves(house):
    broken = [
        f"{house.name(path)}:{node.lineno} {node.name}"
        for path, node in configs(house)
        if not any(isinstance(one, ast.FunctionDef) and one.name == "__post_init__" for one in node.body)
    ]
    assert broken == []


def test_the_request_refuses_what_lies_outside():
    from dataclasses import FrozenInstanceError

    from opendalle.base.errors import BadRequest
    from opendalle.base.request import Request

    wrong = [{"count": 0}, {"seed": -1}, {"guidance": float("nan")}, {"sampler": "x"}, {"prompt": "\ud800"}]
    for values in wrong:
        with pytest.raises(BadRequest):
            Request(**values)
    with pytest.raises(FrozenInstanceError):
        Request().count = 2  # pyright: ignore[reportAttributeAccessIssue]
