"""Pairs that are computed once: stamped with all that makes them, and gone on with where they were cut short."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from opendalle.base.errors import BadData, BadModel
from opendalle.data.embeddings import EmbeddingStore, StoreWriter
from opendalle.data.emoji.fixture import build_fixture
from opendalle.data.folder import FolderSet, FolderSetConfig
from opendalle.recipes import data as room
from opendalle.recipes.data import stamps_of, write_pairs


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(3):
        Image.new("RGB", (8, 8), (80 * k, 0, 0)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"number {k}")
    return folder


def encoders() -> SimpleNamespace:
    """Stand in for CLIP, codec and tokenizer: means, pixels, and bytes."""

    def pack(captions: list[str], context: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.array([list(one.encode().ljust(context, b"\0")[:context]) for one in captions])
        return ids, ids > 0

    clip = SimpleNamespace(
        log_scale=torch.zeros(()), config=SimpleNamespace(context=8), encode_pictures=lambda x: x.mean((2, 3))
    )
    codec = SimpleNamespace(picture_channels=3, encode=lambda x: x[:, :, ::4, ::4])
    return SimpleNamespace(clip=clip, codec=codec, tokenizer=SimpleNamespace(pack=pack))


@pytest.fixture
def write(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    monkeypatch.setattr(room, "PIECE", 4)
    monkeypatch.setattr(room, "PIECES", 2)
    source = FolderSet(pictures, FolderSetConfig(size=8))

    def pairs(name: str, **asked: object) -> bool:
        asked = {"stamps": {"set": "a"}, **asked}
        return write_pairs(tmp_path / name, source, encoders(), count=22, seed=1, **asked)

    return pairs


def test_pairs_cut_short_are_those_of_one_piece(write: Callable[..., bool], tmp_path: Path) -> None:
    done: list[int] = []
    assert write("whole", tell=done.append)
    assert done == [4, 8, 12, 16, 20, 24]
    calls = 0
    while not write("cut", tell=done.append, stop=lambda: True):
        assert not (tmp_path / "cut").exists()
        calls += 1
    assert calls == 5  # a piece each time, and none twice
    assert done == [4, 8, 12, 16, 20, 24] * 2
    one, other = (EmbeddingStore(tmp_path / name, stamps={"set": "a"}, verify=True) for name in ("whole", "cut"))
    for name in ("z", "grid", "ids", "length"):
        np.testing.assert_array_equal(one.array(name), other.array(name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "pictures", "whole"]


def test_a_crash_loses_no_written_piece_and_damaged_ones_are_made_again(
    write: Callable[..., bool], tmp_path: Path
) -> None:
    def crash(done: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write("cut", tell=crash)
    shards = sorted((tmp_path / "cut.pieces").glob("shard-*"))
    assert len(shards) == 2
    shards[1].write_bytes(b"torn")
    done: list[int] = []
    assert write("cut", tell=done.append)
    assert done == [12, 16, 20, 24]
    assert write("whole")
    one, other = (EmbeddingStore(tmp_path / name, stamps={}, verify=True) for name in ("whole", "cut"))
    np.testing.assert_array_equal(one.array("z"), other.array("z"))


def test_pairs_of_other_data_are_refused(write: Callable[..., bool], tmp_path: Path) -> None:
    assert not write("pairs", stop=lambda: True)
    with pytest.raises(BadData, match=r"made with set a; wanted set b.*delete .*pairs\.pieces"):
        write("pairs", stamps={"set": "b"})
    assert write("pairs")
    with pytest.raises(BadData, match="made with set a; wanted set b"):
        EmbeddingStore(tmp_path / "pairs", stamps={"set": "b"})
    with pytest.raises(BadData, match="whose seed nobody wrote down; wanted seed 1"):
        EmbeddingStore(tmp_path / "pairs", stamps={"set": "a", "seed": "1"})


def test_one_process_writes_a_store(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", stamps={})
    with pytest.raises(BadModel, match="another process"):
        StoreWriter(tmp_path / "store", stamps={})
    writer.discard()
    StoreWriter(tmp_path / "store", stamps={}).discard()
    assert list(tmp_path.iterdir()) == []


def test_a_folders_stamp_changes_with_names_pictures_and_captions(pictures: Path, tmp_path: Path) -> None:
    stamps = [stamps_of(pictures, seed=1, scenes=None)]
    assert {"seed": "1", "scenes": "None"}.items() <= stamps[0].items()
    (pictures / "0.txt").write_text("another")
    stamps.append(stamps_of(pictures))
    (pictures / "0.png").rename(pictures / "9.png")
    (pictures / "0.txt").rename(pictures / "9.txt")
    stamps.append(stamps_of(pictures))
    Image.effect_noise((8, 8), 90).save(pictures / "1.png")
    stamps.append(stamps_of(pictures))
    assert len({one["set"] for one in stamps}) == 4
    assert stamps_of(pictures.rename(tmp_path / "moved"))["set"] == stamps[-1]["set"]


def test_a_worlds_stamp_is_its_own(tmp_path: Path) -> None:
    for _ in build_fixture(tmp_path / "world"):
        pass
    from opendalle.data.emoji.world import World

    assert stamps_of(tmp_path / "world") == {"set": World(tmp_path / "world").stamp}
