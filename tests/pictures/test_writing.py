"""Files appear whole, under a free name, with their recipe; or not at all."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from opendalle.base.errors import BadPicture, BadRequest
from opendalle.pictures import (
    next_number,
    numbered_path,
    read_picture,
    read_recipe,
    refuse_unwritable,
    write_gif,
    write_png,
)

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc红🚀\0", max_size=5), inner, max_size=4),
    max_leaves=12,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_picture_and_its_recipe_come_back(tmp_path):
    recipe = {"prompt": "红苹果 🍎 \u202eabc", "seed": 7, "nested": {"steps": [1, 2.5, None]}}
    path = write_png(PICTURE, tmp_path / "new" / "folder" / "a.png", recipe)
    assert np.array_equal(np.asarray(read_picture(path)), np.asarray(PICTURE))
    assert read_recipe(path) == recipe
    assert read_recipe(path.read_bytes()) == recipe
    assert names(path.parent) == ["a.png"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abc", max_size=5), json_values, max_size=5))
def test_any_plain_data_is_a_recipe(tmp_path_factory, recipe):
    path = tmp_path_factory.mktemp("recipe") / "a.png"
    assert read_recipe(write_png(PICTURE, path, recipe)) == recipe


def test_the_same_picture_and_recipe_are_the_same_bytes(tmp_path):
    paths = [write_png(PICTURE, tmp_path / name, {"b": 1, "a": 2}) for name in ("one.png", "two.png")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("taken", ["file", "folder", "dangling link"])
def test_a_taken_name_is_never_overwritten(tmp_path, taken):
    path = tmp_path / "a.png"
    match taken:
        case "file":
            path.write_bytes(b"precious")
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadRequest, match="exists"):
        write_png(PICTURE, path)
    assert names(tmp_path) == ["a.png"]
    assert taken != "file" or path.read_bytes() == b"precious"


def test_a_name_taken_while_writing_is_not_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save = Image.Image.save

    def rival(self, file, **options):
        path.write_bytes(b"rival")
        save(self, file, **options)

    monkeypatch.setattr(Image.Image, "save", rival)
    with pytest.raises(BadRequest, match="exists"):
        write_png(PICTURE, path)
    assert path.read_bytes() == b"rival"
    assert names(tmp_path) == ["a.png"]


def test_without_hard_links_the_promise_holds_too(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    path = write_png(PICTURE, tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_picture(path)), np.asarray(PICTURE))
    with pytest.raises(BadRequest, match="exists"):
        write_png(PICTURE, path)
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, error):
    def broken(self, file, **options):
        file.write(b"half")
        raise error

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises((BadRequest, KeyboardInterrupt)):
        write_png(PICTURE, tmp_path / "a.png")
    assert names(tmp_path) == []


def test_the_ending_must_tell_the_truth(tmp_path):
    with pytest.raises(BadRequest, match=r"\.png"):
        write_png(PICTURE, tmp_path / "a.jpg")
    with pytest.raises(BadRequest, match=r"\.gif"):
        write_gif([PICTURE], tmp_path / "a.png")
    assert names(tmp_path) == []


def test_a_folder_that_is_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(BadRequest):
        write_png(PICTURE, tmp_path / "out" / "a.png")


KILLED = """
import sys, itertools
from pathlib import Path
from PIL import Image
import numpy as np
from opendalle.pictures import numbered_path, write_png
folder = Path(sys.argv[1])
image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
print("ready", flush=True)
for number in itertools.count(1):
    write_png(image, numbered_path(folder, number), {"number": number})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_writer_leaves_only_whole_pictures(tmp_path):
    source = str(Path(__file__).parents[2] / "src")
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": source},
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.05 + 0.037 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        for path in folder.glob("[0-9]*.png"):
            assert read_picture(path).size == (300, 300)
            assert read_recipe(path) == {"number": int(path.stem)}


def test_numbering_goes_on_after_the_highest(tmp_path):
    assert next_number(tmp_path / "missing") == 1
    assert next_number(tmp_path) == 1
    for name in ["0001.png", "0007.png", "0009.txt", "12.png", "x0010.png", "0008.PNG"]:
        (tmp_path / name).touch()
    assert next_number(tmp_path) == 9
    assert numbered_path(tmp_path, 9).name == "0009.png"
    (tmp_path / "12345.png").touch()
    assert numbered_path(tmp_path, next_number(tmp_path)).name == "12346.png"


def test_an_animation_plays_every_frame_for_ever(tmp_path):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    path = write_gif(frames, tmp_path / "a.gif", [50, 60, 900])
    with Image.open(path) as gif:
        assert (getattr(gif, "n_frames"), gif.info["loop"]) == (3, 0)  # noqa: B009 - Pillow types it nowhere
        for number, frame in enumerate(frames):
            gif.seek(number)
            assert gif.info["duration"] == (50, 60, 900)[number]
            assert gif.convert("RGB").getpixel((3, 2)) == frame.getpixel((3, 2))


def test_an_animation_of_clear_frames_lies_on_white(tmp_path):
    path = write_gif([Image.new("RGBA", (2, 2))], tmp_path / "a.gif")
    with Image.open(path) as gif:
        assert gif.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(BadPicture, match="no frames"):
        write_gif([], tmp_path / "b.gif")


def png_with(text: str, **options) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("opendalle", text, **options)
    buffer = io.BytesIO()
    PICTURE.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no PNG"),
        (b"\xff\xd8\xff not a png", "no PNG"),
        (b"\x89PNG\r\n\x1a\n", "no recipe"),
        (png_with("{not json"), "damaged"),
        (png_with("[1, 2]"), "damaged"),
        (png_with("[" * 200_000), "damaged"),
        (png_with('{"a": 1}', zip=True), "no recipe"),
        (png_with('{"a": 1}')[:60], "no recipe"),
    ],
    ids=["empty", "jpeg", "no chunks", "not json", "a list", "deep", "compressed", "cut short"],
)
def test_a_recipe_is_whole_or_refused(data, told):
    with pytest.raises(BadPicture, match=told):
        read_recipe(data)


def test_a_plain_picture_has_no_recipe(tmp_path):
    with pytest.raises(BadPicture, match="no recipe"):
        read_recipe(write_png(PICTURE, tmp_path / "a.png"))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_garbage_never_breaks_the_recipe_reader(data):
    whole = bytearray(png_with('{"prompt": "a rocket", "seed": 1}'))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadPicture):
        assert read_recipe(bytes(whole)) == {"prompt": "a rocket", "seed": 1}  # the checksum lets nothing else through


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "LA", "I;16"])
def test_other_modes_are_refused_before_anything_is_touched(tmp_path, mode):
    with pytest.raises(BadPicture, match=f"mode {mode}; wanted a picture of mode RGB or RGBA"):
        write_png(Image.new(mode, (2, 2)), tmp_path / "new/x.png")
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_be_text(tmp_path):
    path = write_png(Image.new("RGB", (2, 2), "red"), str(tmp_path / "x.png"), {"a": 1})
    assert path == tmp_path / "x.png"
    assert read_recipe(str(path)) == {"a": 1}
    assert read_picture(str(path)).tobytes() == read_picture(path).tobytes()


def test_a_name_with_a_zero_byte_is_refused(tmp_path):
    with pytest.raises(BadRequest, match="cannot be written"):
        write_png(Image.new("RGB", (2, 2)), tmp_path / "a\0b.png")


def test_a_place_is_refused_before_long_work_as_writing_would_refuse_it(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    for place in ("a.png", "a.png/x.png", "a.png/deep/x.png", "a" * 300 + ".png"):
        with pytest.raises(BadRequest, match=r"a\.png"):
            refuse_unwritable(tmp_path / place)
        with pytest.raises(BadRequest, match=r"a\.png"):
            write_png(PICTURE, tmp_path / place)
    refuse_unwritable(tmp_path / "new/deep/x.png")
    monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path)  # root may write everywhere
    with pytest.raises(BadRequest, match="no right to write in"):
        refuse_unwritable(tmp_path / "new/deep/x.png")
    assert names(tmp_path) == ["a.png"]
