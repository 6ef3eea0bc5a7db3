"""A picture file is a stranger: caps before decoding, one kind of result, one kind of error."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from opendalle.base.errors import BadPicture
from opendalle.pictures import read_bytes, read_picture


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def gradient(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    rng = np.random.default_rng(0)
    channels = len(mode)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, pixels: bytes = b"", depth: int = 8, colour: int = 2, before: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before + body + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_lossless_pictures_come_back_bit_for_bit(mode, format, options):
    image = gradient(mode)
    read = read_picture(encoded(image, format, **options))
    assert read.mode == mode
    assert np.array_equal(np.asarray(read), np.asarray(image))


def test_a_path_bytes_and_an_open_file_are_read_alike(tmp_path):
    data = encoded(gradient(), "PNG")
    path = tmp_path / "named wrongly.jpg"  # content decides, not the name
    path.write_bytes(data)
    with path.open("rb") as file:
        pictures = [read_picture(path), read_picture(data), read_picture(file), read_picture(io.BytesIO(data))]
    assert len({picture.tobytes() for picture in pictures}) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied_and_forgotten(orientation, format):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(gradient(), format, exif=exif)
    read = read_picture(data)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(np.asarray(read), np.asarray(wanted))
    assert read.info == {}
    assert not read.getexif()


def test_damaged_exif_turns_nothing():
    data = encoded(gradient(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert read_picture(data).size == (24, 16)


def test_palette_with_a_clear_colour_becomes_rgba():
    image = gradient().quantize(8)
    read = read_picture(encoded(image, "PNG", transparency=3))
    assert read.mode == "RGBA"
    index = np.asarray(image)
    assert np.array_equal(np.asarray(read)[..., 3], np.where(index == 3, 0, 255))


def test_a_turned_palette_keeps_its_clear_colour():
    exif = Image.Exif()
    exif[0x0112] = 6
    read = read_picture(encoded(gradient().quantize(8), "PNG", transparency=3, exif=exif))
    assert read.mode == "RGBA"
    assert read.size == (16, 24)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [("1", "RGB"), ("L", "RGB"), ("LA", "RGBA"), ("P", "RGB"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("I;16", "RGB")],
)
def test_every_png_mode_becomes_rgb_or_rgba(mode, wanted):
    image = Image.new(mode, (5, 4))
    assert read_picture(encoded(image, "PNG")).mode == wanted


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_jpeg_mode_becomes_rgb(mode):
    read = read_picture(encoded(Image.new(mode, (8, 8)), "JPEG"))
    assert read.mode == "RGB"
    assert read.getpixel((4, 4)) == ((255, 255, 255) if mode == "CMYK" else (0, 0, 0))


def test_sixteen_bits_are_scaled_not_clipped():
    wide = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    read = np.asarray(read_picture(encoded(Image.fromarray(wide), "PNG")))
    assert np.array_equal(read[..., 0], np.round(wide / 257).astype(np.uint8))


def test_a_transparent_grey_or_colour_key_becomes_alpha():
    grey = png_of(2, 1, b"\0\x10\x20", colour=0, before=png_chunk(b"tRNS", b"\0\x20"))
    assert np.asarray(read_picture(grey))[0, :, 3].tolist() == [255, 0]
    wide = png_of(2, 1, b"\0\x10\x00\x20\x01", depth=16, colour=0, before=png_chunk(b"tRNS", b"\x20\x01"))
    assert np.asarray(read_picture(wide))[0, :, 3].tolist() == [255, 0]
    colour = png_of(2, 1, b"\0\1\2\3\4\5\6", before=png_chunk(b"tRNS", b"\0\1\0\2\0\3"))
    assert np.asarray(read_picture(colour))[0, :, 3].tolist() == [0, 255]


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for format in ("PNG", "WEBP"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        assert np.asarray(read_picture(data))[0, 0, 0] > 200


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_are_refused_whatever_they_are_called(format, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(gradient(), format))
    with pytest.raises(BadPicture, match="PNG, JPEG or WebP"):
        read_picture(path)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_cut_short_anywhere_is_refused(format):
    data = encoded(gradient(size=(64, 48)), format)
    for kept in range(0, len(data) - 20, max(1, len(data) // 60)):
        with pytest.raises(BadPicture):
            read_picture(data[:kept])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_a_damaged_picture_is_read_or_refused_never_worse(format, data):
    whole = bytearray(encoded(gradient(), format))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = read_picture(bytes(whole), max_pixels=10_000)
    except BadPicture:
        return
    assert read.mode in ("RGB", "RGBA")
    assert read.width * read.height <= 10_000


def test_the_pixel_cap_counts_before_decoding():
    with pytest.raises(BadPicture, match="24 x 16"):
        read_picture(encoded(gradient(), "PNG"), max_pixels=24 * 16 - 1)
    read_picture(encoded(gradient(), "PNG"), max_pixels=24 * 16)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"quality": 1}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_webp_header_is_read_in_all_its_forms(mode, options):
    data = encoded(gradient(mode, (301, 17)), "WEBP", **options)
    with pytest.raises(BadPicture, match="301 x 17"):
        read_picture(data, max_pixels=300 * 17)
    read_picture(data, max_pixels=301 * 17)


def test_the_byte_cap_never_reads_past_itself():
    class Endless:
        taken = 0

        def read(self, size):
            self.taken += size
            return bytes(size)

    endless = Endless()
    with pytest.raises(BadPicture, match="larger than 1 MiB"):
        read_bytes(endless, max_bytes=2**20)
    assert endless.taken == 2**20 + 1


@pytest.mark.parametrize("place", ["nothing.png", ".", "/dev/zero"])
def test_what_is_no_file_is_refused(place, tmp_path):
    with pytest.raises(BadPicture, match="no picture at"):
        read_picture(tmp_path / place)


def test_what_the_system_refuses_and_what_is_open_as_text_is_told(tmp_path):
    with pytest.raises(BadPicture, match=r"cannot be read \(File name too long\)"):
        read_picture(str(tmp_path / ("a" * 300)))
    (tmp_path / "a.png").write_text("words")
    with (tmp_path / "a.png").open() as file, pytest.raises(BadPicture, match="open in binary mode"):
        read_picture(file)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadPicture):
        read_picture(tmp_path / "pipe.png")


BOMBS = """
import resource, struct, sys, zlib
from opendalle.base.errors import BadPicture
from opendalle.pictures import read_picture, read_recipe
import numpy, PIL.Image, PIL.WebPImagePlugin, PIL.PngImagePlugin, PIL.JpegImagePlugin
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 96 * 2**20,) * 2)
def chunk(kind, body): return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
def png(side, *extra):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\\x89PNG\\r\\n\\x1a\\n" + head + b"".join(extra) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
packer = zlib.compressobj(9)
flood = b"".join(packer.compress(bytes(2**20)) for _ in range(400)) + packer.flush()
webp = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\\0" * 4
webp += (16382).to_bytes(3, "little") * 2
jpeg = b"\\xff\\xd8\\xff\\xc0" + struct.pack(">HBHHB", 17, 8, 65000, 65000, 3) + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0])
bombs = {
    "pixels": png(60_000), "webp canvas": webp, "jpeg": jpeg,
    "profile": png(8, chunk(b"iCCP", b"x\\0\\0" + flood)), "text": png(8, chunk(b"zTXt", b"opendalle\\0\\0" + flood)),
    "itxt": png(8, chunk(b"iTXt", b"opendalle\\0\\1\\0\\0\\0" + flood)),
    "claimed length": b"\\x89PNG\\r\\n\\x1a\\n" + struct.pack(">I4s", 2**31 - 1, b"IHDR") + bytes(40),
}
for name, data in bombs.items():
    for read in (read_picture, read_recipe):
        try:
            read(data)
        except BadPicture:
            continue
        sys.exit(f"{name} was not refused by {read.__name__}")
print("refused", len(bombs))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is capped the Linux way")
def test_bombs_are_refused_within_little_memory():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", BOMBS], capture_output=True, text=True, env=environment, timeout=60)
    assert ran.stdout.strip() == "refused 7", ran.stderr
