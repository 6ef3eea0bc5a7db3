"""`python -m opendalle.recipes.NAME`: exit codes, what is refused, and the words at the end."""

from pathlib import Path

import pytest
from PIL import Image

from opendalle.recipes.codec import codec
from opendalle.recipes.command import main
from opendalle.recipes.places import about


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two captioned pictures in the working folder."""
    monkeypatch.chdir(tmp_path)
    folder = Path("pictures")
    folder.mkdir()
    for k in range(2):
        Image.new("RGBA", (64, 64), (0, 120 * k, 0, 255)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"number {k}")
    return folder


def run(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[object, str, str]:
    """Return exit code, last line of output, errors."""
    words = ["--data", "pictures", "--out", "m", "--pictures", "4", "--batch-size", "2", *more]
    code: object = 0
    try:
        main(codec, words)
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr()
    return code, (said.out.splitlines() or [""])[-1], said.err


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--max-minutes", "nan"], "max_minutes nan; wanted more than 0"),
        (["--threads", "-1"], "--threads -1; wanted 1 or more"),
        (["--threads", "0"], "--threads 0; wanted 1 or more"),
        (["--from", "nobody"], "model 'nobody'"),
        (["--from", "clip"], "wanted a model with codec"),
        (["--from", "codec", "--resume"], "one of them"),
        (["--resume"], "no folder m.runs to resume"),
        (["--resume", "pictures"], "pictures, which holds no run"),
        (["--out", "pictures"], "pictures exists"),
    ],
)
def test_wrong_words_are_one_line_before_any_step(
    pictures: Path, capsys: pytest.CaptureFixture[str], more: list[str], why: str
) -> None:
    code, out, err = run(capsys, *more)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert why in err
    assert [path.name for path in Path().iterdir()] == ["pictures"]


@pytest.mark.parametrize("inside", [[], ["m.runs"], ["m.runs/codec"]])
def test_a_run_is_stopped_resumed_and_found_finished(
    pictures: Path, capsys: pytest.CaptureFixture[str], inside: list[str]
) -> None:
    assert run(capsys, "--max-minutes", "1e-6", "--from", "codec") == (
        0,
        "saved in m.runs; go on with --resume m.runs",
        "",
    )
    assert about(Path("m.runs/codec"))["from"] == "codec"
    assert run(capsys, "--resume", *inside) == (0, "m", "")
    assert run(capsys) == (0, "m", "codec: nothing to do, the model m is there\n")
