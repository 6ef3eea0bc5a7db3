"""SentencePiece's table of what stands for what: full-width letters, ligatures, odd spaces.  No torch.

A vocabulary brings the table it was trained with, compiled into one block of bytes:

    4 bytes        size of the trie in bytes
    the trie       a double array of 32-bit units, keyed by UTF-8
    the strings    each ended by a zero byte; a key's value is where its string begins

All numbers are little-endian.  A unit of the trie holds

    bits 0-7       the byte by which it was reached
    bit 8          whether a key ends here: then the unit at its children's base holds the value, in bits 0-30
    bits 9-31      how far its children's base lies: bits 10-31, moved up by 8 more if bit 9 is set

and the child by byte c of a unit lies at its children's base xor c.

Source: Kudo and Richardson, "SentencePiece", arXiv:1808.06226, section 3.2 (normalisation by a finite table); Aoe, "An
    Efficient Digital Search Algorithm by Using a Double-Array Structure", 1989, as the darts-clone library packs it.
"""

import base64
import binascii
import struct
from typing import Any

from opendalle.base.errors import BadModel

_WANTED = "a compiled table as SentencePiece writes it"


class CharacterMap:
    """The table; `apply` replaces the longest key that begins at each place.

    Args:
        compiled: in base64, as a tokenizer.json holds it.

    Raises:
        BadModel: when it is no such table.
    """

    def __init__(self, compiled: Any) -> None:
        try:
            data = base64.b64decode(compiled, validate=True)
            (size,) = struct.unpack_from("<I", data)
            self._units = struct.unpack_from(f"<{size // 4}I", data, 4)
        except (binascii.Error, struct.error, ValueError, TypeError):
            raise BadModel("a damaged character map", _WANTED) from None
        self._strings = data[4 + size :]
        if size % 4 or not self._units or (self._strings and self._strings[-1] != 0):
            raise BadModel("a character map cut short", _WANTED)

    def apply(self, text: str) -> str:
        """Replace, from left to right, the longest key at each place; what no key fits stays.

        Args:
            text: valid Unicode.

        Raises:
            BadModel: when the table leads outside of itself, or to what is no text.
        """
        spelled, out, at = text.encode("utf-8"), bytearray(), 0
        while at < len(spelled):
            length, string = self._longest(spelled, at)
            if length == 0:  # one character as it is
                length = 1
                while at + length < len(spelled) and spelled[at + length] & 0xC0 == 0x80:
                    length += 1
                string = spelled[at : at + length]
            out += string
            at += length
        try:
            return out.decode("utf-8")
        except UnicodeDecodeError:
            raise BadModel("a character map that cuts characters", _WANTED) from None

    def _longest(self, spelled: bytes, at: int) -> tuple[int, bytes]:
        """Find the longest key that the text goes on with; how many bytes it has and what stands for it."""
        units, found, value = self._units, 0, 0
        try:
            base = _base(units[0])
            for length, byte in enumerate(spelled[at:], start=1):
                unit = units[base ^ byte]
                if byte == 0 or unit & 0x800000FF != byte:
                    break
                base ^= byte ^ _base(unit)
                if unit >> 8 & 1:
                    found, value = length, units[base] & 0x7FFFFFFF
            if not found:
                return 0, b""
            return found, self._strings[value : self._strings.index(0, value)]
        except (IndexError, ValueError):
            raise BadModel("a character map that leads outside of itself", _WANTED) from None


def _base(unit: int) -> int:
    return unit >> 10 << (8 if unit & 0x200 else 0)
