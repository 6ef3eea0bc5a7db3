"""The scripts that draw the figures of docs/dalle1.md draw what the model says, at a size that takes no time."""

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from opendalle.codec.likeness import psnr
from opendalle.dalle1.patterns import visible
from opendalle.dalle1.pipeline import Dalle1
from opendalle.data.emoji.fixture import build_fixture

BENCH = Path(__file__).parents[2] / "bench"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import one of the scripts."""
    monkeypatch.syspath_prepend(str(BENCH))
    spec = util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("visual_words", monkeypatch)


class Greys:
    """A codec of words whose words are known: nine opaque greys, the last one transparent."""

    picture_channels, picture_size, vocabulary, factor = 4, 32, 9, 8

    def encode_tokens(self, pictures: torch.Tensor) -> torch.Tensor:
        value, alpha = (F.avg_pool2d(pictures, 8)[:, channel] for channel in (0, 3))
        return torch.where(alpha < 0, 8, ((value + 1) * 3.5).round().long())

    def decode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        cells = (tokens / 3.5 - 1)[:, None].repeat(1, 4, 1, 1)
        cells[:, 3] = 1.0
        cells = torch.where(tokens[:, None] == 8, -1.0, cells)
        return cells.repeat_interleave(8, 2).repeat_interleave(8, 3)


def all_words() -> torch.Tensor:
    """Nine pictures, each of a word."""
    tokens = torch.arange(9)[:, None, None].repeat(1, 4, 4)
    tokens[0, 0, 0] = 8  # the transparent one is used once more than the others, the first once less
    return Greys().decode_tokens(tokens)


def test_patterns_are_counted_and_drawn_as_the_network_has_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    patterns = script("patterns", monkeypatch)
    rows = patterns.main(["--picture", str(tmp_path / "p.png"), "--side", "8", "--depth", "6"])
    of_paper = {row["pattern"]: row for row in rows if row["preset"] == "paper"}
    assert [of_paper[one]["layers"] for one in patterns.SHOWN] == [47, 16, 1, 0]
    assert of_paper["row"]["words seen"] == f"{visible('row', 32, 32).sum() / 1024:.1f}"
    drawn = patterns.picture(8, 6)
    with Image.open(tmp_path / "p.png") as written:
        assert written.size == drawn.size
    seen = visible("convolution", 8, 8)[5 * 8 + 3]
    left = patterns.GAP + 2 * (8 * patterns.CELL + 1 + patterns.GAP) + patterns.CELL // 2
    top = patterns.GAP + patterns.TEXT + 10 + patterns.CELL // 2
    colours = [drawn.getpixel((left + k % 8 * patterns.CELL, top + k // 8 * patterns.CELL)) for k in range(64)]
    asking = 5 * 8 + 3
    assert [one == (0xD9, 0x82, 0x2B) for one in colours] == [*seen[:asking], False, *seen[asking + 1 :]]


def test_reconstructions_are_measured(words: ModuleType, tmp_path: Path) -> None:
    pictures = all_words()
    noisy = (pictures + 0.1).clamp(-1, 1)
    (found,) = words.reconstructions({"mine": Greys()}, noisy, tmp_path / "r.png")
    assert found["dB"] == pytest.approx(psnr(pictures, noisy), abs=0.01)
    assert (found["words"], found["used"], found["perplexity"]) == (9, 9, 9)
    with Image.open(tmp_path / "r.png") as sheet:
        assert sheet.size == (8 * 132 + 4, 2 * 132 + 4)


def test_an_atlas_has_every_word_once_and_leads_from_dark_to_light(words: ModuleType, tmp_path: Path) -> None:
    found = words.atlas(Greys(), all_words(), 9, tmp_path / "a.png", magnified=1)
    assert (found["drawn"], found["share of all cells"]) == (9, 1.0)
    columns = words.columns_of(9)
    with Image.open(tmp_path / "a.png") as sheet:
        places = [(k % columns * 9 + 5, k // columns * 9 + 5) for k in range(9)]
        grey, below = sheet.convert("L"), (-(-9 // columns) + 1) * 9
        seen = [grey.getpixel(place) for place in places]
        first = [grey.getpixel((x, y + below)) for x, y in places]
    assert seen == sorted(seen)
    assert len(set(seen)) == 8, "eight greys; white and transparent look alike on white"
    assert first == seen, "a word of this codec looks the same wherever it stands"
    few = words.atlas(Greys(), all_words(), 2, tmp_path / "a.png")
    assert (few["drawn"], few["share of all cells"]) == (2, round(33 / 144, 3))


def test_what_is_ranked_is_what_the_first_seeds_draw(
    words: ModuleType, dalle: Dalle1, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles: list[Image.Image] = []
    monkeypatch.setattr(words, "save", lambda some, columns, out, gap=4: tiles.extend(some))
    by_clip, by_likelihood = words.best_of(dalle, ["a red apple"], 3, tmp_path / "b.png")
    drawn = list(dalle.generate("a red apple", count=3, width=64, height=64, background="white"))
    for place, record in enumerate((by_clip, by_likelihood)):
        assert sorted(record["seeds"]) == [0, 1, 2]
        assert float(record["best"]) >= float(record["worst"])
        for column, seed in enumerate(record["seeds"]):
            tile = np.asarray(tiles[3 * place + column].crop((0, 0, 128, 128)), dtype=int)
            assert np.abs(tile - np.asarray(words.fitted(drawn[seed].picture), dtype=int)).max() <= 1


def test_pictures_grow_row_by_row(words: ModuleType, dalle: Dalle1, tmp_path: Path) -> None:
    words.growing(dalle, ["a red apple", "红苹果"], tmp_path / "g.png")
    with Image.open(tmp_path / "g.png") as sheet:
        assert sheet.size == (4 * 132 + 4, 2 * 132 + 4)  # three rows drawn one after another, and the whole
        seen = np.asarray(sheet.convert("RGB"), dtype=int)
    for column in range(4):
        tile = seen[4:132, 4 + 132 * column : 132 + 132 * column]
        is_grey = (np.abs(tile - words.UNDRAWN[0]) <= 2).all(axis=(1, 2))
        assert is_grey[32 * (column + 1) :].all(), "no word there yet"
        assert not is_grey[: 32 * (column + 1)].all()


def test_drawings_are_spread_over_what_was_held_out(words: ModuleType, tmp_path: Path) -> None:
    for _ in build_fixture(tmp_path / "world"):
        pass
    pictures = words.drawings(tmp_path / "world", 64, 3)
    assert pictures.shape == (3, 4, 64, 64)
    assert not torch.equal(pictures[0], pictures[1])
    with pytest.raises(SystemExit):
        words.main(["--atlas", str(tmp_path / "a.png")])
    assert words.main([]) == []
