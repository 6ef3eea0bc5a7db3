"""Reading a picture that somebody else made.

A picture file is a stranger: a few kilobytes can ask for gigabytes of pixels.  So the order here matters: cap the
bytes, decide the format by content (a name proves nothing), learn the size from the header, cap the pixels, and only
then decode.  What comes out is always upright, eight bits, RGB or RGBA, and carries no metadata on.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from opendalle.base.errors import BadPicture

MAX_BYTES = 64 * 2**20  # of the file; a 16-bit PNG of MAX_PIXELS that does not compress is twice this
MAX_PIXELS = 4096 * 4096

_ORIENTATION = 0x0112  # the EXIF tag
_LYING = (5, 6, 7, 8)  # its values where width and height change places
_upright_from_orientation = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# All that Pillow is known to raise on a damaged file; MemoryError is left to pass, it is not the file's word.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
)


@runtime_checkable
class Readable(Protocol):
    """An open binary file, or anything else with its `read`."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, fewer only at the end."""
        ...


Source = Path | str | bytes | Readable  # text is a path


def read_picture(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a PNG, JPEG or WebP picture: upright, RGB, or RGBA (straight alpha) if it has transparency.

    Colour profiles are not applied; of an animation the first frame is read.

    Args:
        source: a path, the bytes of a file, or an open binary file.
        max_pixels: the largest width times height that is decoded.

    Raises:
        BadPicture: when the file is missing, too large, of another format, cut short or damaged.
    """
    name = name_of(source)
    data = read_bytes(source)
    with warnings.catch_warnings(action="ignore"):  # Pillow's grumbling about metadata that we drop anyway
        picture = _open(data, name, max_pixels)
        try:
            picture.load()
            return plain_picture(picture)
        except _DAMAGE:
            raise BadPicture(f"{name} is damaged or cut short", "a whole picture file") from None


def picture_size(source: Source, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return width and height of a picture as `read_picture` gives it, without decoding it.

    Args:
        source: a path, the bytes of a file, or an open binary file.
        max_pixels: the largest width times height that is taken.

    Raises:
        BadPicture: when the file is missing, too large, of another format, or its header is damaged.
    """
    with warnings.catch_warnings(action="ignore"):
        picture = _open(read_bytes(source), name_of(source), max_pixels)
        try:
            orientation = picture.getexif().get(_ORIENTATION, 1)
        except _DAMAGE:
            orientation = 1
    width, height = picture.size
    return (height, width) if orientation in _LYING else (width, height)


def plain_picture(picture: Image.Image) -> Image.Image:
    """Return a picture upright, in RGB, or in RGBA if it has transparency, and without metadata; a copy.

    Args:
        picture: of any mode that Pillow knows.

    Raises:
        BadPicture: when it has no pixels.
    """
    if picture.width * picture.height == 0:
        raise BadPicture(f"a picture of {picture.width} x {picture.height} pixels", "one pixel or more")
    plain = _eight_bit(_upright(picture))
    plain.info = {}
    return plain


def read_bytes(source: Source, max_bytes: int = MAX_BYTES) -> bytes:
    """Read at most `max_bytes` of a source, never more, whatever its length claims to be.

    Args:
        source: a path, the bytes of a file, or an open binary file.
        max_bytes: the longest file that is accepted.

    Raises:
        BadPicture: when the file is missing, no plain file, unreadable or longer.
    """
    name = name_of(source)
    try:
        if isinstance(source, bytes):
            data = source
        elif isinstance(source, Path | str):
            if not Path(source).is_file():
                raise BadPicture(f"no picture at {name}", "the path of a picture file")
            with Path(source).open("rb") as file:
                data = file.read(max_bytes + 1)
        else:
            data = source.read(max_bytes + 1) if isinstance(source, Readable) else None
    except OSError as error:
        raise BadPicture(f"{name} cannot be read ({error.strerror or error})", "a file you may read") from None
    if not isinstance(data, bytes):
        came = f"a picture from a {type(source).__name__}"
        raise BadPicture(came, "a path, the bytes of a file, or a file open in binary mode")
    if len(data) > max_bytes:
        raise BadPicture(f"{name} is larger than {max_bytes // 2**20} MiB", "a smaller picture file")
    return data


def name_of(source: Source) -> str:
    """Say in a message what is being read.

    Args:
        source: what `read_bytes` accepts.
    """
    return str(source) if isinstance(source, Path | str) else "the picture"


def _open(data: bytes, name: str, max_pixels: int) -> ImageFile:
    """Parse the header alone; the format's own class is called, so no other decoder can be reached."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack(">II", data[16:24])
            opener = PngImageFile
        elif data.startswith(b"\xff\xd8\xff"):
            width, height = JpegImageFile(io.BytesIO(data)).size
            opener = JpegImageFile
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            width, height = _webp_size(data)
            opener = WebPImageFile
        else:
            raise BadPicture(f"{name} is no picture this house reads", "a PNG, JPEG or WebP file (judged by content)")
        if width * height > max_pixels:
            raise BadPicture(f"{name} has {width} x {height} pixels", f"at most {max_pixels} pixels")
        return opener(io.BytesIO(data))
    except BadPicture:
        raise
    except _DAMAGE:
        raise BadPicture(f"{name} has a damaged header", "a whole picture file") from None


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return width and height; Pillow's WebP class reserves the canvas as soon as it opens, so we read the header.

    Raises:
        ValueError: when there is no frame header.

    Source: WebP container specification (RFC 9649), sections 2.5 to 2.7.
    """
    kind = data[12:16]
    if kind == b"VP8X":  # extended: two 24-bit numbers, one less than the canvas
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and data[20:21] == b"\x2f":  # lossless: two 14-bit numbers, one less
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":  # lossy: two 14-bit numbers, the rest is scaling
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no WebP frame header")


def _upright(picture: Image.Image) -> Image.Image:
    """Turn the picture as its EXIF orientation says; a damaged EXIF block turns nothing."""
    try:
        turn = _upright_from_orientation.get(picture.getexif().get(_ORIENTATION, 1))
    except _DAMAGE:
        return picture
    if turn is None:
        return picture
    turned = picture.transpose(turn)
    turned.info = picture.info  # the transparent colour of a palette lives there
    return turned


def _eight_bit(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "I;16", "I;16B", "I;16L"):  # Pillow would clip sixteen bits at 255, not scale them
        wide = np.asarray(picture).astype(np.int64).clip(0, 65535)
        grey = ((wide + 128) // 257).astype(np.uint8)
        clear = picture.info.get("transparency")
        alpha = np.full_like(grey, 255) if clear is None else np.where(wide == clear, 0, 255).astype(np.uint8)
        layers = [grey, grey, grey] if clear is None else [grey, grey, grey, alpha]
        return Image.fromarray(np.stack(layers, axis=-1))
    has_alpha = "transparency" in picture.info or "A" in picture.getbands() or "a" in picture.getbands()
    wanted = "RGBA" if has_alpha else "RGB"
    return picture.copy() if picture.mode == wanted else picture.convert(wanted)
