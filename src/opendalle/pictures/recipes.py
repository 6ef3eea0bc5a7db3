"""The recipe inside a picture: everything needed to make it again, as JSON in a PNG text chunk.

It is read by walking the file's chunks, without decoding a pixel, so a hostile picture can at worst be refused.
Source: PNG specification (third edition), sections 5.3 (chunk layout) and 11.3.3 (tEXt, iTXt).
"""

import io
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from PIL.PngImagePlugin import PngInfo

from opendalle.base.errors import BadPicture
from opendalle.pictures.reading import Source, name_of, read_bytes

KEY = "opendalle"
MAX_RECIPE_BYTES = 32 * 2**20  # a recipe may carry a mask

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def recipe_chunk(recipe: Mapping[str, Any]) -> PngInfo:
    """Put a recipe into the form that Pillow writes into a PNG.

    Args:
        recipe: plain JSON data; no NaN, no infinity.
    """
    chunk = PngInfo()
    chunk.add_itxt(KEY, json.dumps(recipe, ensure_ascii=False, allow_nan=False, sort_keys=True))
    return chunk


def read_recipe(source: Source) -> dict[str, Any]:
    """Read the recipe of a picture that this house wrote.

    Args:
        source: a PNG file, its bytes, or an open binary file.

    Raises:
        BadPicture: when it is no PNG, carries no recipe, or the recipe is damaged.
    """
    name = name_of(source)
    data = read_bytes(source)
    if not data.startswith(_SIGNATURE):
        raise BadPicture(f"{name} is no PNG", "a PNG that opendalle wrote")
    for kind, body in _chunks(data):
        text = _text(kind, body)
        if text is not None:
            return _parse(text, name)
    raise BadPicture(f"{name} carries no recipe", "a PNG that opendalle wrote, with its metadata left in")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, body) of each whole chunk; stop at the first one that is cut short or damaged."""
    file = io.BytesIO(data)
    file.seek(len(_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        body = file.read(length) if length <= len(data) else b""
        check = file.read(4)
        if len(body) != length or len(check) != 4 or zlib.crc32(kind + body) != int.from_bytes(check, "big"):
            return
        yield kind, body


def _text(kind: bytes, body: bytes) -> bytes | None:
    """Return the text of our chunk in UTF-8, None for any other chunk."""
    key, _, rest = body.partition(b"\0")
    if key != KEY.encode() or len(body) > MAX_RECIPE_BYTES:
        return None
    if kind == b"tEXt":
        return rest.decode("latin-1").encode()
    if kind == b"iTXt" and rest[:1] == b"\0":  # not compressed: flag, method, language, translated key, text
        return rest[2:].split(b"\0", 2)[-1]
    return None


def _parse(text: bytes, name: str) -> dict[str, Any]:
    try:
        recipe = json.loads(text.decode())
    except (ValueError, RecursionError):  # also bad UTF-8, and thousands of nested brackets
        recipe = None
    if not isinstance(recipe, dict):
        raise BadPicture(f"the recipe in {name} is damaged", "a PNG that opendalle wrote")
    return recipe
