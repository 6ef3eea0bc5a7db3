"""Key tables and forms on their own, where every case fits a line; Karlo's are compared in tests/parity."""

import pytest
import torch

from opendalle.base.errors import BadModel
from opendalle.pretrained.maps.foreign_form import NEEDED, Field, ForeignForm, number, only, several, whole
from opendalle.pretrained.maps.key_table import KeyTable, Row, layer

TABLE = KeyTable(
    origin="their network",
    rows=(*layer("qkv", "q", "k", "v"), Row(ours="query", theirs=("start",), num_leading=2)),
    dropped={"mask": "computed"},
)


def theirs() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = {
        f"{one}.{kind}": torch.randn(2, 3) if kind == "weight" else torch.randn(2)
        for one in "qkv"
        for kind in ("weight", "bias")
    }
    return state | {"start": torch.randn(1, 1, 4)}


def test_parts_are_stacked_in_order_and_parted_again() -> None:
    state = theirs()
    ours = TABLE.to_ours({**state, "mask": torch.zeros(1)})
    assert list(ours) == ["qkv.weight", "qkv.bias", "query"]
    assert torch.equal(ours["qkv.weight"], torch.cat([state["q.weight"], state["k.weight"], state["v.weight"]]))
    assert torch.equal(ours["query"], state["start"][0, 0])
    back = TABLE.to_theirs(ours)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_precision_is_kept() -> None:
    half = {key: tensor.half() for key, tensor in theirs().items()}
    ours = TABLE.to_ours(half)
    assert {one.dtype for one in [*ours.values(), *TABLE.to_theirs(ours).values()]} == {torch.float16}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"extra": torch.zeros(1)}, "'extra', which their network"),
        ({"extra": torch.zeros(1), "more": torch.zeros(1)}, "'extra' and 1 more"),
        ({"k.bias": None}, "no weights 'k.bias' for their network"),
        ({"k.bias": torch.zeros(3)}, r"'k.bias' of shape \(3,\) in their network; wanted \(2,\) as q.bias"),
        ({"start": torch.zeros(4)}, r"'start' of shape \(4,\)"),
        ({"start": torch.zeros(1, 2, 4)}, "2 axes of length 1 and its own"),
    ],
)
def test_foreign_keys_are_known_or_refused(change: dict, says: str) -> None:
    state = {key: tensor for key, tensor in {**theirs(), **change}.items() if tensor is not None}
    with pytest.raises(BadModel, match=says):
        TABLE.to_ours(state)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mask": torch.zeros(1)}, "'mask', which our network"),
        ({"query": None}, "no weights 'query' for our network"),
        ({"qkv.bias": torch.zeros(4)}, r"'qkv.bias' of shape \(4,\); wanted a first axis that 3 parts divide"),
    ],
)
def test_our_keys_are_known_or_refused(change: dict, says: str) -> None:
    ours = TABLE.to_ours(theirs())
    state = {key: tensor for key, tensor in {**ours, **change}.items() if tensor is not None}
    with pytest.raises(BadModel, match=says):
        TABLE.to_theirs(state)


def test_a_key_stands_in_one_row_only() -> None:
    with pytest.raises(AssertionError):
        KeyTable(origin="x", rows=(*layer("a", "b"), *layer("c", "b")))


FORM = ForeignForm(
    class_name="Theirs",
    fields={
        "size": whole(8),
        "side": whole(None, optional=True),
        "kind": only("a", "b"),
        "flag": only(False, default=True),
        "level": only(0),
        "share": number(0.5, 0.0, 1.0),
        "widths": several("a positive whole number", whole().fits),
    },
)
GOOD = {"_class_name": "Theirs", "_version": "9", "flag": False, "widths": [1, 2]}


def test_what_is_absent_has_the_foreign_default() -> None:
    filled = {"size": 8, "side": None, "kind": "a", "flag": False, "level": 0, "share": 0.5, "widths": [1, 2]}
    assert FORM.read(GOOD) == filled


@pytest.mark.parametrize(
    "wrong",
    [
        {"_class_name": "Other"},
        {"surprise": 1},
        {"flag": None},
        {"flag": 0},
        {"level": False},
        {"size": None},
        {"size": 0},
        {"size": 2.0},
        {"side": "1"},
        {"kind": ["a"]},
        {"share": 1.0},
        {"share": float("nan")},
        {"share": "half"},
        {"widths": []},
        {"widths": "12"},
        {"widths": [1, [2]]},
        {"widths": {"1": 2}},
    ],
)
def test_everything_else_is_refused(wrong: dict) -> None:
    with pytest.raises(BadModel):
        FORM.read({**GOOD, **wrong})


@pytest.mark.parametrize(("absent", "says"), [("flag", "flag = True"), ("widths", "without 'widths'")])
def test_a_default_must_be_acceptable_too(absent: str, says: str) -> None:
    with pytest.raises(BadModel, match=says):
        FORM.read({key: value for key, value in GOOD.items() if key != absent})


def test_a_field_without_default_says_so() -> None:
    assert isinstance(whole(), Field)
    assert whole().default is NEEDED
