import tracemalloc
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opendalle.base.errors import BadModel
from opendalle.checkpoint.storage import (
    dequantise_rows,
    from_storage,
    pack,
    quantise_rows,
    to_storage,
    unpack,
)


def some_state() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "layer.weight": torch.randn(16, 8, 3, 3, generator=g) * torch.logspace(-4, 2, 16).reshape(16, 1, 1, 1),
        "layer.bias": torch.randn(16, generator=g),
        "table": torch.randn(5, 5, generator=g, dtype=torch.float64),
        "ids": torch.arange(6).reshape(2, 3),
        "flag": torch.tensor(True),
    }


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8-row", "even-step"])
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


@pytest.mark.parametrize("shape", [(64, 64), (7, 3, 3, 3), (1, 1), (2, 5), (3000, 1), (2, 3, 4, 5, 6, 7, 8)])
def test_what_was_rounded_comes_back_bit_for_bit(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    back = from_storage(to_storage({"w": weight}, "int8-row"))["w"]
    wanted = dequantise_rows(*quantise_rows(weight))
    assert torch.equal(back.view(torch.int32), wanted.view(torch.int32))


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=300), st.integers(1, 3))
def test_any_whole_numbers_come_back(row: list[int], num_rows: int) -> None:
    numbers = torch.tensor(row, dtype=torch.int8).repeat(num_rows, 1)
    assert torch.equal(unpack("w", pack(numbers), torch.tensor(numbers.shape)), numbers)


def test_the_same_weights_are_the_same_bytes() -> None:
    one, again = (to_storage(some_state(), "int8-row") for _ in range(2))
    assert set(one) == set(again)
    assert all(torch.equal(one[name], again[name]) for name in one)


@pytest.mark.parametrize(("storage", "most"), [("int8-row", 7.5), ("even-step", 4.6)])
def test_a_bell_takes_fewer_bits_than_its_largest_number(storage: str, most: float) -> None:
    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(2))
    stored = to_storage({"w": weight}, storage, {"w": torch.eye(512)})
    assert stored["w"].numel() * 8 / weight.numel() < most


@pytest.mark.parametrize("shape", [(8, 8), (100, 2), (2,) * 12])
def test_where_packing_gains_nothing_numbers_lie_a_byte_each(shape: tuple[int, ...]) -> None:
    even = torch.linspace(-1, 1, 2**6 if len(shape) < 12 else 2**12).repeat(4)[: torch.Size(shape).numel()]
    stored = to_storage({"w": even.reshape(shape)}, "int8-row")
    assert set(stored) == {"w", "w#scale"}
    assert (stored["w"].dtype, stored["w"].shape) == (torch.int8, shape)


def test_numbers_that_lie_as_in_format_1_are_read() -> None:
    numbers, scale = quantise_rows(torch.randn(64, 64))
    assert torch.equal(from_storage({"w": numbers, "w#scale": scale})["w"], dequantise_rows(numbers, scale))


def packed_bell() -> dict[str, torch.Tensor]:
    return to_storage(
        {"w": torch.randn(64, 64, generator=torch.Generator().manual_seed(3))}, "even-step", {"w": torch.eye(64)}
    )


def as_bytes(payload: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(payload), dtype=torch.uint8)


@pytest.mark.parametrize("place", [0, 1, 7, 1000, -1])
def test_any_changed_byte_is_refused(place: int) -> None:
    stored = packed_bell()
    stored["w"][place] ^= 1
    with pytest.raises(BadModel, match="'w', whose bytes are not 4096 packed numbers"):
        from_storage(stored)


@pytest.mark.parametrize("torn", [-5, -1, 1])
def test_missing_and_additional_bytes_are_refused(torn: int) -> None:
    stored = packed_bell()
    stored["w"] = stored["w"][:torn] if torn < 0 else torch.cat([stored["w"], stored["w"][:torn]])
    with pytest.raises(BadModel, match="'w', whose bytes are not 4096 packed numbers"):
        from_storage(stored)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("w#shape", torch.tensor([64, 63]), "4032 packed numbers .another number"),
        ("w#shape", torch.tensor([65, 64]), "4160 packed numbers .another number"),
        ("w#shape", torch.tensor([-64, -64]), "a shape that they can fill"),
        ("w#shape", torch.tensor([0, 2**62]), "a shape that they can fill"),
        ("w#shape", torch.tensor([2**62, 2**62]), "a shape that they can fill"),
        ("w#shape", torch.tensor([4096]), "of 2 to 8 sizes"),
        ("w#shape", torch.ones(100_000, dtype=torch.int64), "of 2 to 8 sizes"),
        ("w#shape", torch.tensor([64.0, 64.0]), "of 2 to 8 sizes"),
        ("w#shape", torch.tensor(4096), "of 2 to 8 sizes"),
        ("w", torch.zeros(64, 64, dtype=torch.int8), "packed bytes"),
        ("w", torch.zeros(4096), "packed bytes"),
        ("w#scale", torch.ones(1), "a float32 scale a row"),
        ("w#scale", torch.ones(64, 1), "a float32 scale a row"),
        ("w#scale", torch.ones(64, dtype=torch.int32), "a float32 scale a row"),
        ("w#scale", None, "no scales"),
    ],
)
def test_what_does_not_fit_together_is_refused(name: str, value: torch.Tensor | None, says: str) -> None:
    stored = {key: one for key, one in (packed_bell() | {name: value}).items() if one is not None}
    with pytest.raises(BadModel, match=says):
        from_storage(stored)


@pytest.mark.parametrize("numbers", [torch.ones(4, 4), torch.ones(4, dtype=torch.int8), torch.tensor(1)])
def test_scales_beside_what_is_no_whole_numbers_are_refused(numbers: torch.Tensor) -> None:
    with pytest.raises(BadModel, match="int8 numbers"):
        from_storage({"w": numbers, "w#scale": torch.ones(4)})


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = as_bytes(zlib.compress(bytes(2**26), 9))  # a thousand to one; nothing of ours is more than eight
    with pytest.raises(BadModel, match="a shape that they can fill"):
        from_storage({"w": bomb, "w#scale": torch.ones(2**13), "w#shape": torch.tensor([2**13, 2**13])})
    tracemalloc.start()
    with pytest.raises(BadModel, match="4096 packed numbers"):  # a shape that lies: no more than it says is inflated
        from_storage({"w": bomb, "w#scale": torch.ones(64), "w#shape": torch.tensor([64, 64])})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**18


def test_bytes_packed_otherwise_are_refused() -> None:
    with pytest.raises(BadModel, match="not 4096 packed numbers"):
        from_storage(
            {
                "w": torch.full((3072,), 130, dtype=torch.uint8),
                "w#scale": torch.ones(64),
                "w#shape": torch.tensor([64, 64]),
            }
        )


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
