"""Recaptioning a set: every picture, every voice, whatever happens meanwhile."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from opendalle.base.errors import BadConfig, BadData
from opendalle.base.protocols import WritesCaptions
from opendalle.dalle3.recaption import WritingConfig, recaption, write_captions
from opendalle.data.caption_shelf import CaptionShelf, Shard, ShelfConfig, ShelfWriter
from opendalle.data.folder import FolderSet, FolderSetConfig

WHO = {"captioner": {"name": "grey", "sha256": "0" * 64}}
VOICES = ShelfConfig(languages=("en", "zh"), piece=4)


class Grey:
    """Says how bright a picture is, in which manner, and from which seed; dies at the picture `stop_at`."""

    picture_size, picture_channels = 8, 3

    def __init__(self, stop_at=None):
        self.looked, self.stop_at = 0, stop_at

    def caption_many(self, pictures, *, kind="short", language="en", decoding=None, seeds=None):
        assert pictures.shape[1:] == (3, 8, 8)
        told = []
        for picture, seed in zip(pictures, seeds, strict=True):
            if self.looked == self.stop_at:
                raise KeyboardInterrupt
            self.looked += 1
            told.append(SimpleNamespace(text=f"{kind} {language} {picture.mean():.2f} {seed}", log_likelihood=-0.5))
        return told


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "set").mkdir()
    for number in range(10):
        Image.new("RGB", (8, 8), (number * 20,) * 3).save(tmp_path / f"set/{number}.png")
        (tmp_path / f"set/{number}.txt").write_text(f"number {number}")
    (tmp_path / "set/6.png").write_bytes(b"no picture")
    return FolderSet(tmp_path / "set", FolderSetConfig(size=8, crop="whole", bare=True))


def carry_out(folder, pictures, captioner, batch=3, shard=None):
    shelf = ShelfWriter(folder, pictures, VOICES, WHO)
    config = WritingConfig(batch=batch, seed=100)
    return list(recaption(pictures, captioner, shelf, config=config, shard=shard))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_every_picture_gets_every_voice_whatever_the_batch(tmp_path, pictures):
    originals = {path: path.read_bytes() for path in pictures.folder.iterdir()}
    assert isinstance(Grey(), WritesCaptions)
    steps = carry_out(tmp_path / "captions", pictures, Grey())
    assert [step.done for step in steps] == [3, 4, 7, 8, 10]
    assert {step.total for step in steps} == {10}
    amiss = [one for step in steps for one in step.unreadable]
    assert len(amiss) == 1
    assert amiss[0].startswith("6.png: ")
    shelf = CaptionShelf(tmp_path / "captions", pictures)
    for row in range(10):
        texts = [line.text for line in shelf.lines(row)]
        bright = f"{row * 20 / 127.5 - 1:.2f} {100 + row}"
        voices = ("short en", "short zh", "descriptive en", "descriptive zh")
        assert texts == ([] if row == 6 else [f"{voice} {bright}" for voice in voices])
    carry_out(tmp_path / "one by one", pictures, Grey(), batch=1)
    assert files(tmp_path / "one by one") == files(tmp_path / "captions")
    assert {path: path.read_bytes() for path in pictures.folder.iterdir()} == originals


@pytest.mark.parametrize("stop_at", [0, 13, 16, 25, 35])
def test_work_that_was_cut_short_goes_on_and_ends_the_same(tmp_path, pictures, stop_at):
    carry_out(tmp_path / "whole", pictures, Grey())
    with pytest.raises(KeyboardInterrupt):
        carry_out(tmp_path / "cut", pictures, Grey(stop_at=stop_at))
    left = [path for path in files(tmp_path / "cut") if path.endswith("jsonl")]
    assert len(left) == stop_at // 16  # four pictures in four voices are a piece
    (tmp_path / "cut" / f".{min(files(tmp_path / 'whole'))}.draft-0123abcd").write_bytes(b"half a pie")
    with pytest.raises(BadData, match="pieces"):
        CaptionShelf(tmp_path / "cut", pictures)
    again = Grey()
    carry_out(tmp_path / "cut", pictures, again)
    assert again.looked == 9 * 4 - len(left) * 16 + (4 if len(left) > 1 else 0)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert carry_out(tmp_path / "cut", pictures, Grey()) == []


def test_shards_share_the_work(tmp_path, pictures):
    carry_out(tmp_path / "whole", pictures, Grey())
    done = [
        carry_out(tmp_path / "shared", pictures, Grey(), shard=Shard(number=number, count=2))[-1].done
        for number in (2, 1)
    ]
    assert done == [4, 6]
    assert files(tmp_path / "shared") == files(tmp_path / "whole")


def test_settings_are_checked():
    for wrong in ({"batch": 0}, {"seed": -1}):
        with pytest.raises(BadConfig):
            WritingConfig(**wrong)
    seen = np.zeros((2, 8, 8, 4), dtype=np.uint8)
    told = write_captions(Grey(), seen, kind="short", language="en", places=[5, 9], config=WritingConfig(seed=2))
    assert told == [("short en 1.00 7", -0.5), ("short en 1.00 11", -0.5)]  # nothing is seen on white
