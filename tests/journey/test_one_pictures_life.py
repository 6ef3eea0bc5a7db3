"""One life with each generation: a picture drawn, varied, edited, grown, enlarged, and each of them made again.

DALL·E 2 is the bundled one; DALL·E 1 the one that is still learning: its doors are as they will be, whatever it draws.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import opendalle
from opendalle.cli.app import run
from opendalle.pictures import read_picture, read_recipe

UNFINISHED = Path(__file__).parents[2] / "unfinished" / "dalle1-emoji"
PLACES = {"dalle1": str(UNFINISHED), "dalle2": "dalle2"}
LIFE = (  # what makes each picture of the one before; the last words are its name
    ("generate", "a red apple", "--background", "transparent", "--out", "drawn.png"),
    ("vary", "drawn.png", "a red apple", "--eta", "0.4", "--out", "varied.png"),
    ("edit", "varied.png", "a green apple", "--box", "0,128,256,128", "--out", "edited.png"),
    ("edit", "edited.png", "a tree", "--extend", "right=64", "--out", "grown.png"),
)
OWN = {  # what only this model can, or does another way
    "dalle1": (
        ("generate", "a red apple", "--size", "64", "--candidates", "3", "--lookahead", "4", "--out", "small.png"),
        ("generate", "a red apple", "--size", "64", "--candidates", "3", "--rank", "gain", "--out", "ranked.png"),
        ("generate", "a red apple", "--size", "512x256", "--candidates", "1", "--out", "wide.png"),
        ("edit", "drawn.png", "a green apple", "--mask", "mask.png", "--temperature", "0.8", "--out", "masked.png"),
        ("vary", "drawn.png", "a red apple", "--keep", "0,128,256,128", "--out", "kept.png"),
        ("upscale", "small.png", "--scale", "4", "--out", "enlarged.png"),
    ),
    "dalle2": (
        ("upscale", "grown.png", "--scale", "2", "--out", "enlarged.png"),
        ("blend", "drawn.png", "edited.png", "a blue car", "--weights", "2,1,1", "--size", "64", "--out", "mix.png"),
        ("morph", "drawn.png", "--from", "a red apple", "--to", "a green apple", "--size", "64", "--out", "morph.png"),
        ("ladder", "drawn.png", "--components", "20,200", "--size", "64", "--out", "ladder.png"),
    ),
}
LIVES = {model: (*LIFE, *own) for model, own in OWN.items()}
ENLARGED = {"dalle1": (256, 256), "dalle2": (640, 512)}
PICTURES = [(model, words[-1]) for model, life in LIVES.items() for words in life]

both = pytest.mark.parametrize("model", LIVES)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """For each model a folder with every picture of its life, lived when it is first asked for."""

    @cache
    def of(model: str) -> Path:
        folder = tmp_path_factory.mktemp(model)
        mask = Image.new("RGBA", (256, 256), "white")
        mask.paste((0, 0, 0, 0), (96, 160, 200, 256))
        mask.save(folder / "mask.png")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            for words in LIVES[model]:
                assert run((*words, "--model", PLACES[model])) == 0, words
        return folder

    return of


@pytest.mark.slow
@pytest.mark.parametrize(("model", "name"), PICTURES)
def test_every_picture_is_made_again_from_its_metadata(
    life: Callable[[str], Path], model: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(life(model))
    assert run(("generate", "--again", name, "--model", PLACES[model], "--out", f"again-{name}")) == 0
    assert Path(f"again-{name}").read_bytes() == Path(name).read_bytes()


@pytest.mark.slow
@both
def test_what_was_to_stay_stayed(life: Callable[[str], Path], model: str) -> None:
    folder = life(model)
    drawn, varied, edited, grown = (read_picture(folder / words[-1]) for words in LIFE)
    assert varied.size == drawn.size == (256, 256)
    assert varied.mode == edited.mode == "RGBA"  # a sticker stays one
    before, after = np.asarray(varied.convert("RGBA")), np.asarray(edited.convert("RGBA"))
    assert np.array_equal(before[:128], after[:128])
    assert not np.array_equal(before[128:], after[128:])
    assert np.array_equal(after, np.asarray(grown.convert("RGBA"))[:, :256])
    assert grown.size == (320, 256)
    assert read_picture(folder / "enlarged.png").size == ENLARGED[model]
    assert read_recipe(folder / "grown.png")["inputs"][0]["name"] == "edited.png"
    assert all(read_recipe(folder / words[-1])["model"].startswith(model) for words in LIVES[model])


@pytest.mark.slow
def test_an_apple_is_green_where_it_was_asked_to_be(life: Callable[[str], Path]) -> None:
    edited = np.asarray(read_picture(life("dalle2") / "edited.png").convert("RGBA"))
    green = edited[160:224, 96:160, :3].astype(int).mean(axis=(0, 1))
    assert green[1] > green[0], "the lower half of the apple is green now"


@pytest.mark.slow
def test_words_outside_a_mask_and_inside_what_is_kept_stay(life: Callable[[str], Path]) -> None:
    drawn, masked, kept = (
        np.asarray(read_picture(life("dalle1") / name).convert("RGBA"))
        for name in ("drawn.png", "masked.png", "kept.png")
    )
    outside = np.ones((256, 256), dtype=bool)
    outside[160:256, 96:200] = False
    assert np.array_equal(drawn[outside], masked[outside])
    assert not np.array_equal(drawn[~outside], masked[~outside])
    assert np.array_equal(drawn[128:], kept[128:])


@pytest.mark.slow
@both
def test_a_picture_is_its_seeds_whatever_else_is_drawn(model: str, tmp_path: Path) -> None:
    words = ("generate", "a red apple", "--model", PLACES[model], "--size", "64", "--exact", "--candidates", "2")
    assert run((*words, "--count", "2", "--seed", "3", "--out", str(tmp_path / "two"))) == 0
    assert run((*words, "--seed", "4", "--out", str(tmp_path / "one.png"))) == 0
    first, second = (read_picture(tmp_path / "two" / name) for name in ("0001.png", "0002.png"))
    assert second.tobytes() == read_picture(tmp_path / "one.png").tobytes()
    assert first.tobytes() != second.tobytes()


@pytest.mark.slow
@both
def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(("generate", "a red apple", "--model", PLACES[model], "--size", "1025")) == 2
    assert "1024" in capsys.readouterr().err
    assert run(("generate", "", "--model", PLACES[model])) == 2
    assert list(tmp_path.iterdir()) == []
    (sample,) = opendalle.load(PLACES[model]).generate("", width=64, height=64)  # in Python: the unconditional model
    assert sample.picture.size == (64, 64)


@pytest.mark.slow
def test_previews_show_the_rows_that_are_drawn() -> None:
    asked = {"previews": 3, "width": 64, "height": 64, "background": "white"}
    *previews, whole = opendalle.load(UNFINISHED).generate("a red apple", **asked)
    assert [one.is_preview for one in (*previews, whole)] == [True, True, True, False]
    for preview in previews:
        drawn = preview.step // 8 * 8  # eight words a row, eight pixels a word
        assert (np.asarray(preview.picture)[drawn:] == 255).all()
        assert 0 < drawn < 64
