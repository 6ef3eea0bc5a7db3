"""Aspect buckets: what a batch is made of, from its position alone; folders by their shapes, scenes spread out."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from opendalle.base.errors import BadConfig, BadData
from opendalle.data.buckets import BucketBatches, BucketOrder, Canvas, canvases_of, nearest
from opendalle.data.emoji.dataset import EmojiSet, EmojiSetConfig
from opendalle.data.emoji.truth import GRID, SCENE_KINDS, Thing, Truth, spread, truth_of_record
from opendalle.data.folder import FolderSet, FolderSetConfig
from opendalle.data.loading import LoadingConfig
from opendalle.pictures import picture_size, read_picture

CANVASES = canvases_of(64, 16)
SHAPES = {"square": (40, 40), "wide": (80, 44), "tall": (30, 60)}


def test_canvases_are_those_that_the_paper_draws() -> None:
    assert [(one.width, one.height) for one in canvases_of(1024, 64)] == [(1024, 1024), (1792, 1024), (1024, 1792)]
    assert [(one.width, one.height) for one in CANVASES] == [(64, 64), (112, 64), (64, 112)]
    with pytest.raises(BadConfig):
        canvases_of(100, 16)


@pytest.mark.parametrize(
    ("width", "height", "wanted"), [(100, 100, 0), (130, 100, 0), (140, 100, 1), (300, 100, 1), (100, 140, 2)]
)
def test_a_picture_belongs_where_least_of_it_is_lost(width: int, height: int, wanted: int) -> None:
    assert nearest(width, height, CANVASES) == wanted
    kept = [min(width / one.width, height / one.height) ** 2 * one.width * one.height for one in CANVASES]
    assert int(np.argmax(kept)) == wanted


def test_the_order_is_a_function_of_seed_and_position() -> None:
    counts, batch = (50, 7, 0, 23), 4
    order = BucketOrder(counts, batch, seed=3)
    places = [order.place(position) for position in range(2_300)]
    again = BucketOrder(counts, batch, seed=3)
    for position in (2_299, 5, 1_200, 0, 999, 1_000):  # asked in any order
        assert again.place(position) == places[position]
    assert [one.bucket for one in places[:50]] != [BucketOrder(counts, batch, 4).place(p).bucket for p in range(50)]

    turn = int(order.batches.sum())
    first = Counter(one.bucket for one in places[:turn])
    assert [first[bucket] / turn for bucket in range(4)] == list(order.shares)
    for bucket, count in enumerate(counts):
        if not count:
            assert first[bucket] == 0
            continue
        assert abs(order.shares[bucket] - count / sum(counts)) < 0.001
        own = [one for one in places if one.bucket == bucket]
        assert [one.first for one in own] == list(range(0, batch * len(own), batch))  # nothing skipped, nothing twice
        seen = [row for one in own for row in one.rows]
        epochs = [sorted(seen[start : start + count]) for start in range(0, len(seen) - count, count)]
        assert all(epoch == list(range(count)) for epoch in epochs)


def test_shares_may_be_asked_for() -> None:
    order = BucketOrder((5, 5, 5), 2, seed=0, shares=(2, 1, 1))
    assert order.shares == (0.5, 0.25, 0.25)
    for shares in ((0, 0, 0), (-1, 2, 0)):
        with pytest.raises(BadConfig):
            BucketOrder((5, 5, 5), 2, seed=0, shares=shares)


def folder_of(place: Path, each: int = 3) -> FolderSet:
    for name, (width, height) in SHAPES.items():
        for number in range(each):
            across = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
            picture = np.broadcast_to(across, (height, width, 3))
            Image.fromarray(np.ascontiguousarray(picture)).save(place / f"{name}{number}.png")
            (place / f"{name}{number}.txt").write_text(name)
    return FolderSet(place, FolderSetConfig(size=64, crop="random"))


def test_a_folders_pictures_go_where_they_fit(tmp_path: Path) -> None:
    batches = BucketBatches(folder_of(tmp_path), LoadingConfig(batch_size=2, seed=1), CANVASES)
    assert batches.shares == pytest.approx({"square": 1 / 3, "wide": 1 / 3, "tall": 1 / 3}, abs=1e-3)
    feed, seen = batches(0), Counter[str]()
    for position in range(12):
        batch = next(feed)
        canvas = next(one for one in CANVASES if (one.height, one.width) == tuple(batch.pictures.shape[2:]))
        assert set(batch.captions) == {canvas.name}
        assert batch.position == position
        seen[canvas.name] += 1
        same = batches.batch(position)
        assert np.array_equal(batch.pictures, same.pictures)
    assert len(seen) == 3
    ahead = BucketBatches(folder_of(tmp_path), LoadingConfig(batch_size=2, seed=1, prefetch=2), CANVASES)(7)
    assert np.array_equal(next(ahead).pictures, batches.batch(7).pictures)
    ahead.close()


def test_only_what_does_not_fit_is_cut_off(tmp_path: Path) -> None:
    pictures = folder_of(tmp_path, each=1)
    wide = CANVASES[1]
    shown = pictures.read_on(wide, 2, np.random.default_rng(0)).picture  # 80x44 on 7:4: 3 pixels of 80 go
    assert shown.shape == (64, 112, 4)
    assert int(shown[0, 0, 0]) < 15
    assert int(shown[0, -1, 0]) > 240
    square = FolderSet(tmp_path, FolderSetConfig(size=64)).read(2, np.random.default_rng(0)).picture
    assert 50 < int(square[0, 0, 0]) < 70  # the middle of it


def test_a_photograph_that_lies_on_its_side_is_counted_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ("jpg", "webp", "png"):
        Image.new("RGB", (30, 20)).save(tmp_path / f"lying.{suffix}", exif=exif)
        assert picture_size(tmp_path / f"lying.{suffix}") == read_picture(tmp_path / f"lying.{suffix}").size == (20, 30)


def centres(truth: Truth) -> list[tuple[float, float]]:
    width, height = truth.canvas
    return [((x + side / 2) / width, (y + side / 2) / height) for x, y, side in (thing.box for thing in truth.things)]


@pytest.mark.parametrize("kind", SCENE_KINDS)
@pytest.mark.parametrize("shape", [(112, 64), (64, 112), (96, 64), (112, 112)])
def test_a_scene_spread_out_is_as_true_as_before(world: Any, kind: str, shape: tuple[int, int]) -> None:
    pictures = EmojiSet(world, EmojiSetConfig(kinds={kind: 1.0}))
    for seed in range(12):
        truth = pictures.truth(0, np.random.default_rng(seed))
        long = spread(truth, *shape)
        assert long.canvas == shape
        assert truth_of_record(long.record()) == long
        for before, after in zip(truth.things, long.things, strict=True):
            assert Thing(**{**vars(after), "box": before.box}) == before  # nothing but its place has changed
            assert before.box[2] == after.box[2]
            for axis in (0, 1):
                assert 0 <= after.box[axis] <= shape[axis] - after.box[2]
                assert (after.box[axis] - before.box[axis]) % 8 == 0  # on the codec's cells as before
        for one, (a, b) in enumerate(zip(centres(truth), centres(long), strict=True)):
            assert max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= 8 / 64
            for other in range(one):  # left of, above: the same order
                for axis in (0, 1):
                    gap = centres(truth)[other][axis] - a[axis]
                    assert np.sign(gap) == np.sign(centres(long)[other][axis] - b[axis])


def test_a_spread_scene_is_drawn_where_its_truth_says(world: Any) -> None:
    pictures = EmojiSet(world, EmojiSetConfig(kinds={"pair": 1.0}, scene_background=0.0))
    wide = Canvas(name="wide", width=112, height=64)
    plain = pictures.read(0, np.random.default_rng(5))
    example = pictures.read_on(wide, 0, np.random.default_rng(5))
    assert example.caption == plain.caption
    assert plain.truth is not None
    assert example.truth is not None
    assert example.picture.shape == (64, 112, 4)
    assert plain.truth["canvas"] == (GRID, GRID)
    for before, after in zip(plain.truth["things"], example.truth["things"], strict=True):
        (x, y, side), (u, v, _) = before["box"], after["box"]
        assert np.array_equal(plain.picture[y : y + side, x : x + side], example.picture[v : v + side, u : u + side])
    large = EmojiSet(world, EmojiSetConfig(size=128))
    assert (
        large.read_on(Canvas(name="tall", width=128, height=224), 0, np.random.default_rng(0)).picture.shape[0] == 224
    )


def test_what_cannot_be_spread_is_refused(world: Any, tmp_path: Path) -> None:
    pictures = EmojiSet(world)
    for width, height in ((100, 64), (128, 128), (64, 60)):
        with pytest.raises(BadConfig):
            pictures.read_on(Canvas(name="x", width=width, height=height), 0, np.random.default_rng(0))
    with pytest.raises(BadConfig):
        BucketBatches(pictures, LoadingConfig(batch_size=2), CANVASES, {"round": 1.0})
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (tmp_path / "bad.txt").write_text("bad")
    with pytest.raises(BadData):
        BucketBatches(FolderSet(tmp_path, FolderSetConfig(size=64)), LoadingConfig(batch_size=2), CANVASES)
