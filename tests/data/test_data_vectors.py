"""A world's vectors: kept with it, rendered in windows, and shown as a set."""

from pathlib import Path

import numpy as np
import pytest

from opendalle.base.errors import BadConfig, BadData
from opendalle.data.crops import CropSet
from opendalle.data.emoji.artwork import render_svg, svg_of_icon
from opendalle.data.emoji.build import write_world
from opendalle.data.emoji.catalogue import Words
from opendalle.data.emoji.holdout import HoldoutConfig
from opendalle.data.emoji.vectors import VectorSet, VectorSetConfig
from opendalle.data.emoji.world import VECTORS, World
from opendalle.data.order import SampleOrder
from opendalle.data.sets import Example

SHAPES = {
    "A": '<circle fill="#d33" cx="16" cy="16" r="13"/><path fill="#222" d="M8 8h5v5H8z"/>',
    "B": '<path fill="#38d" d="M3 29L16 3l13 26z"/>',
    "C": '<rect fill="#3a5" x="2" y="9" width="28" height="14" rx="4"/>',
}


def svg(hexcode: str) -> str:
    return svg_of_icon({"body": SHAPES[hexcode], "width": 32, "height": 32}, 0.0)


def build(out: Path, *, with_vectors: bool = True) -> World:
    words = [
        Words(
            hexcode=hexcode,
            family=hexcode,
            is_variant=False,
            names={"en": f"shape {hexcode}"},
            keywords={"en": (), "zh": ()},
            group="objects",
            subgroup="tool",
        )
        for hexcode in SHAPES
    ]
    draws = {style: lambda hexcode: render_svg(svg(hexcode)) for style in ("3d", "flat", "noto")}
    traces = {"flat": svg, "noto": lambda hexcode: svg(hexcode) if hexcode == "B" else None}
    keep = HoldoutConfig(concepts=0.0, cells=0.0)
    for _ in write_world(words, draws, out, holdout=keep, sources=[], traces=traces if with_vectors else None):
        pass
    return World(out)


@pytest.fixture(scope="module")
def vector_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("vectors") / "w")


@pytest.fixture
def pictures(vector_world: World) -> VectorSet:
    config = VectorSetConfig(styles=("flat", "noto"), sizes=(256, 128), crop=64)
    return VectorSet(vector_world, config)


def premultiplied(picture: np.ndarray) -> np.ndarray:
    values = picture.astype(np.float64)
    values[..., :3] *= values[..., 3:] / 255
    return values


@pytest.mark.parametrize("hexcode", list(SHAPES))
@pytest.mark.parametrize(("left", "top", "side"), [(0, 0, 256), (64, 128, 64), (96, 32, 96)])
def test_a_window_is_that_part_of_the_whole(hexcode: str, left: int, top: int, side: int) -> None:
    whole = render_svg(svg(hexcode), 256)
    window = render_svg(svg(hexcode), side, (left / 256, top / 256, side / 256))
    off = np.abs(premultiplied(window) - premultiplied(whole[top : top + side, left : left + side]))
    assert off.mean() < 0.05  # of 255; edges are sampled from places a rounding apart
    assert (off > 32).mean() < 0.001
    larger = render_svg(svg(hexcode), 2 * side, (left / 256, top / 256, side / 256))
    means = premultiplied(larger).reshape(side, 2, side, 2, 4).mean(axis=(1, 3))
    assert np.abs(means - premultiplied(window)).mean() < 0.5


def test_a_world_keeps_its_vectors_in_the_same_bytes_and_under_the_same_stamp(
    vector_world: World, tmp_path: Path
) -> None:
    again, without = build(tmp_path / "again"), build(tmp_path / "without", with_vectors=False)
    kept = [(world.folder / VECTORS).read_bytes() for world in (vector_world, again)]
    assert kept[0] == kept[1]
    assert vector_world.stamp == again.stamp == without.stamp
    assert not (without.folder / VECTORS).exists()
    vectors = vector_world.vectors()
    assert [vectors.has(hexcode, "flat") for hexcode in SHAPES] == [True] * 3
    assert [vectors.has(hexcode, "noto") for hexcode in SHAPES] == [False, True, False]
    for hexcode in SHAPES:
        assert vectors.svg(hexcode, "flat") == svg(hexcode)
    with pytest.raises(BadData, match=r"3d/A\.svg"):
        vectors.svg("A", "3d")


def test_worlds_of_before_say_what_to_do(tmp_path: Path) -> None:
    world = build(tmp_path / "old", with_vectors=False)
    with pytest.raises(BadData, match=r"without a whole vectors\.zip.*Build it again: opendalle data emoji"):
        VectorSet(world)
    (world.folder / VECTORS).write_bytes(b"torn")
    with pytest.raises(BadData, match="Build it again"):
        VectorSet(world)


def test_what_is_shown_depends_on_cell_and_generator_alone(pictures: VectorSet) -> None:
    assert [(cell.concept.hexcode, cell.style) for cell in pictures.cells] == [
        ("A", "flat"),
        ("B", "flat"),
        ("B", "noto"),
        ("C", "flat"),
    ]
    order, seen = SampleOrder(len(pictures), seed=4), []
    for position in (0, 3, 9, 3, 0):
        example = pictures.read(order.place(position).index, order.generator(position))
        assert example.picture.shape == (64, 64, 4)
        assert example.caption.startswith("shape ")
        seen.append(example.picture)
    np.testing.assert_array_equal(seen[0], seen[4])
    np.testing.assert_array_equal(seen[1], seen[3])
    assert not np.array_equal(seen[0], seen[1])


def test_windows_stand_on_nothing_or_on_a_colour(vector_world: World) -> None:
    def alphas(share: float) -> list[int]:
        config = VectorSetConfig(styles=("flat",), sizes=(128,), crop=128, background=share)
        pictures = VectorSet(vector_world, config)
        return [int(pictures.read(k % 3, np.random.default_rng(k)).picture[..., 3].min()) for k in range(12)]

    assert alphas(0.0) == [0] * 12
    assert alphas(1.0) == [255] * 12
    assert set(alphas(0.5)) == {0, 255}


def test_the_window_with_most_edges_is_shown(vector_world: World) -> None:
    def flat_share(places: int) -> float:
        config = VectorSetConfig(styles=("flat",), sizes=(1024,), crop=128, places=places, background=0.0)
        pictures = VectorSet(vector_world, config)
        shown = [pictures.read(k % 3, np.random.default_rng(k)).picture for k in range(40)]
        return sum(len(np.unique(one.reshape(-1, 4), axis=0)) == 1 for one in shown) / 40

    assert flat_share(4) < flat_share(1)


def test_wrong_settings_are_refused(vector_world: World) -> None:
    for wrong in (
        {"styles": ("3d",)},
        {"styles": ()},
        {"split": "some"},
        {"crop": 2048},
        {"sizes": ()},
        {"places": 0},
        {"background": 2.0},
    ):
        with pytest.raises(BadConfig):
            VectorSetConfig(**wrong)
    with pytest.raises(BadData, match="no vectors of split"):
        VectorSet(vector_world, VectorSetConfig(styles=("twemoji",)))


class Ramp:
    """Two pictures whose pixels say where they are."""

    def __len__(self) -> int:
        return 2

    def read(self, index: int, rng: np.random.Generator) -> Example:
        y, x = np.mgrid[:20, :30]
        picture = np.stack([y, x, np.full_like(x, index), np.full_like(x, 255)], axis=-1).astype(np.uint8)
        return Example(picture=picture, caption=f"number {index} {rng.integers(9)}")


def test_squares_are_parts_of_their_pictures() -> None:
    crops, corners = CropSet(Ramp(), 8), set()
    assert len(crops) == 2
    for k in range(50):
        example = crops.read(k % 2, np.random.default_rng(k))
        top, left = (int(number) for number in example.picture[0, 0, :2])
        whole = Ramp().read(k % 2, np.random.default_rng(k))
        np.testing.assert_array_equal(example.picture, whole.picture[top : top + 8, left : left + 8])
        assert example.caption == whole.caption
        corners.add((top, left))
    assert len(corners) > 30
    with pytest.raises(BadData, match="30x20"):
        CropSet(Ramp(), 21).read(0, np.random.default_rng(0))
    with pytest.raises(BadConfig):
        CropSet(Ramp(), 0)
