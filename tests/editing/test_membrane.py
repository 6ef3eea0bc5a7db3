"""The film from coarse to fine against a direct solution of the same equations."""

import math

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from opendalle.editing.membrane import membrane

STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def solved(values: np.ndarray, given: np.ndarray, inside: np.ndarray, reach: float) -> np.ndarray:
    """Each free pixel times its neighbours (and the tension) equals their sum: one equation a pixel, solved at once."""
    free = inside & ~given
    number = np.where(free, free.cumsum().reshape(free.shape) - 1, -1)
    rows, columns, entries, right = [], [], [], np.zeros(free.sum())
    for y, x in zip(*np.nonzero(free), strict=True):
        own = 0.0 if math.isinf(reach) else reach**-2
        for dy, dx in STEPS:
            there = y + dy, x + dx
            if min(there) < 0 or there[0] >= free.shape[0] or there[1] >= free.shape[1]:
                continue
            own += bool(given[there] or free[there])
            if given[there]:
                right[number[y, x]] += values[there]
            elif free[there]:
                rows, columns, entries = [*rows, number[y, x]], [*columns, number[there]], [*entries, -1.0]
        rows, columns, entries = [*rows, number[y, x]], [*columns, number[y, x]], [*entries, own]
    film = np.where(given, values, 0.0)
    film[free] = spsolve(coo_array((entries, (rows, columns)), shape=(len(right),) * 2).tocsr(), right)
    return film


def scene(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A hole of odd shape that touches the border, its rim, and a wave with noise on it."""
    y, x = np.mgrid[: size[0], : size[1]]
    hole = (y - size[0] / 2) ** 2 + (x - size[1] / 3) ** 2 < (size[0] / 3) ** 2
    hole[size[0] // 2 : size[0] // 2 + 5, size[1] // 3 :] = True
    noise = np.random.default_rng(0).normal(size=size)
    values = (np.sin(x / 9) + 0.1 * noise).astype(np.float32)
    rim = np.zeros_like(hole)
    for dy, dx in STEPS:
        rim |= np.roll(hole, (dy, dx), (0, 1))
    return values, rim & ~hole, hole


@pytest.mark.parametrize("reach", [math.inf, 6.0])
@pytest.mark.parametrize("size", [(47, 61), (32, 32), (9, 40)])
def test_the_film_solves_its_equations(size, reach):
    values, rim, hole = scene(size)
    found = membrane(values[None], rim, hole, reach)[0]
    wanted = solved(values, rim, hole, reach)
    assert wanted[hole].std() > 0.1
    assert np.abs(found - wanted).max() < 0.03
    assert np.array_equal(found[rim], values[rim])
    assert not found[~(rim | hole)].any()


def test_a_level_rim_holds_a_level_film():
    _, rim, hole = scene((40, 50))
    values = np.full((3, 40, 50), 0.7, np.float32)
    np.testing.assert_allclose(membrane(values, rim, hole)[:, hole], 0.7, atol=1e-5)


def test_a_film_that_forgets_is_nothing_in_the_middle():
    values, rim, hole = scene((90, 90))
    far = membrane(values[None] + 1, rim, hole, 3.0)[0]
    assert abs(far[45, 30]) < 0.01
    assert abs(membrane(values[None] + 1, rim, hole)[0][45, 30]) > 0.5


def test_without_a_rim_there_is_nothing_to_carry_in():
    values = np.ones((1, 12, 12), np.float32)
    everywhere = np.ones((12, 12), bool)
    assert not membrane(values, ~everywhere, everywhere).any()
    assert np.array_equal(membrane(values, everywhere, ~everywhere), values)
