"""One life with the bundled model: a picture drawn, varied, edited, grown, enlarged, and each of them made again."""

from pathlib import Path

import numpy as np
import pytest

from opendalle.cli.app import run
from opendalle.pictures import read_picture, read_recipe

LIFE = (  # what makes each picture of the one before; the last words are its name
    ("generate", "a red apple", "--background", "transparent", "--out", "drawn.png"),
    ("vary", "drawn.png", "a red apple", "--eta", "0.4", "--out", "varied.png"),
    ("edit", "varied.png", "a green apple", "--box", "0,128,256,128", "--out", "edited.png"),
    ("edit", "edited.png", "a tree", "--extend", "right=64", "--out", "grown.png"),
    ("upscale", "grown.png", "--scale", "2", "--out", "enlarged.png"),
    ("blend", "drawn.png", "edited.png", "a blue car", "--weights", "2,1,1", "--size", "64", "--out", "blended.png"),
    ("morph", "drawn.png", "--from", "a red apple", "--to", "a green apple", "--size", "64", "--out", "morphed.png"),
    ("ladder", "drawn.png", "--components", "20,200", "--size", "64", "--out", "ladder.png"),
)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every picture of a life."""
    folder = tmp_path_factory.mktemp("life")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in LIFE:
            assert run(words) == 0, words
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [words[-1] for words in LIFE])
def test_every_picture_is_made_again_from_its_metadata(life: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(life)
    assert run(("generate", "--again", name, "--out", f"again-{name}")) == 0
    assert (life / f"again-{name}").read_bytes() == (life / name).read_bytes()


@pytest.mark.slow
def test_what_was_to_stay_stayed(life: Path) -> None:
    drawn, varied, edited, grown, enlarged = (read_picture(life / words[-1]) for words in LIFE[:5])
    assert varied.size == drawn.size == (256, 256)
    assert varied.mode == edited.mode == "RGBA"  # a sticker stays one
    before, after = np.asarray(varied.convert("RGBA")), np.asarray(edited.convert("RGBA"))
    assert np.array_equal(before[:128], after[:128])
    assert not np.array_equal(before[128:], after[128:])
    assert np.array_equal(after, np.asarray(grown.convert("RGBA"))[:, :256])
    assert (grown.size, enlarged.size) == ((320, 256), (640, 512))
    green = after[160:224, 96:160, :3].astype(int).mean(axis=(0, 1))
    assert green[1] > green[0], "the lower half of the apple is green now"
    assert read_recipe(life / "grown.png")["inputs"][0]["name"] == "edited.png"
