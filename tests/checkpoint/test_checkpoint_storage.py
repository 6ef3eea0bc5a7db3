import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opendalle.base.errors import BadModel
from opendalle.checkpoint.storage import dequantise_rows, from_storage, pack_six, quantise_rows, to_storage, unpack_six


def some_state() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "layer.weight": torch.randn(16, 8, 3, 3, generator=g) * torch.logspace(-4, 2, 16).reshape(16, 1, 1, 1),
        "layer.bias": torch.randn(16, generator=g),
        "table": torch.randn(5, 5, generator=g, dtype=torch.float64),
        "ids": torch.arange(6).reshape(2, 3),
        "flag": torch.tensor(True),
    }


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8-row", "int6-row"])
def test_only_matrices_of_float_weights_are_rounded(storage: str) -> None:
    state = some_state()
    back = from_storage(to_storage(state, storage))
    assert {name: one.dtype for name, one in back.items()} == {name: one.dtype for name, one in state.items()}
    exact = set(state) - ({"layer.weight"} if storage != "float32" else set())
    assert all(torch.equal(back[name], state[name]) for name in exact)


def test_error_of_each_storage_is_within_what_its_docstring_promises() -> None:
    weight = some_state()["layer.weight"]
    halved = from_storage(to_storage({"w": weight}, "bfloat16"))["w"]
    assert bool(((halved - weight).abs() <= weight.abs() * 2**-8).all())
    byte = from_storage(to_storage({"w": weight}, "int8-row"))["w"]
    scale = weight.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1) / 127
    assert bool(((byte - weight).abs() <= scale * 0.5001).all())
    six = from_storage(to_storage({"w": weight}, "int6-row"))["w"]
    assert bool(((six - weight).abs() <= scale * (127 / 31) * 0.5001).all())


@given(st.lists(st.integers(-32, 31), min_size=0, max_size=13))
def test_six_bits_come_back(numbers: list[int]) -> None:
    whole = torch.tensor(numbers, dtype=torch.int8)
    packed = pack_six(whole)
    assert len(packed) == -(-len(numbers) // 4) * 3
    assert torch.equal(unpack_six(packed, [len(numbers)]), whole)


def test_six_bits_take_three_quarters_of_eight_and_refuse_what_is_torn() -> None:
    weight = torch.randn(64, 64)
    stored = to_storage({"w": weight}, "int6-row")
    assert stored["w"].numel() == 64 * 64 * 3 // 4
    with pytest.raises(BadModel, match="six bits"):
        from_storage(stored | {"w": stored["w"][:-3]})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=8), st.integers(1, 4))
def test_rounding_again_changes_nothing(row: list[float], num_rows: int) -> None:
    once = dequantise_rows(*quantise_rows(torch.tensor(row).repeat(num_rows, 1)))
    assert torch.allclose(dequantise_rows(*quantise_rows(once)), once, rtol=1e-6, atol=0)


def test_a_row_of_zeros_and_a_half_precision_source() -> None:
    state = {"zeros": torch.zeros(3, 4), "half": torch.ones(3, dtype=torch.float16)}
    back = from_storage(to_storage(state, "int8-row"))
    assert torch.equal(back["zeros"], state["zeros"])
    assert back["half"].dtype == torch.float32


def test_stored_tensors_share_no_memory_with_the_network() -> None:
    weight = torch.ones(2, 2)
    stored = to_storage({"a": weight, "b": weight, "c": weight.T}, "float32")
    weight.zero_()
    assert len({one.data_ptr() for one in stored.values()}) == 3
    assert all(bool((one == 1).all()) for one in stored.values())


def test_refusals() -> None:
    with pytest.raises(BadModel, match="int4"):
        to_storage({}, "int4")
    with pytest.raises(BadModel, match="'w' with NaN"):
        to_storage({"w": torch.tensor([[1.0, float("nan")]])}, "int8-row")
