"""ByT5's tokens: the bytes of UTF-8, moved up by three specials.  No vocabulary, no torch.

A network that reads bytes sees how a word is spelled, which one that reads whole words must guess; a Chinese character
costs it three tokens, though.

Source: Xue et al., "ByT5", arXiv:2105.13626, section 3.1.
"""

from collections.abc import Iterable
from typing import Any

from opendalle.base.errors import BadModel, require
from opendalle.tokenizers.packing import EndsCaptions
from opendalle.tokenizers.text import check_characters

FIRST_BYTE = 3  # the token of byte k is FIRST_BYTE + k
NUM_SENTINELS = 125  # tokens at the end of the vocabulary that marked holes while it was trained; no text has them

_FORMAT = "opendalle bytes 1"


class ByteTokenizer(EndsCaptions):
    """The one vocabulary of all ByT5 networks; all instances are equal."""

    pad, end, unknown = 0, 1, 2
    vocab_size = FIRST_BYTE + 256 + NUM_SENTINELS

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByteTokenizer)

    def __hash__(self) -> int:
        return hash(_FORMAT)

    def encode(self, text: str, *, limit: int | None = None) -> list[int]:
        """Turn a caption into token numbers, without specials; what looks like a special is spelled like all else.

        Args:
            text: any text, taken as it is: case and spaces count.
            limit: tokens wanted at most; the cut may fall inside of a character.  None: all.

        Raises:
            BadRequest: when the text holds half a surrogate pair.
        """
        check_characters(text)
        return [FIRST_BYTE + value for value in text.encode("utf-8")[:limit]]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn token numbers back into text: `decode(encode(text)) == text`.

        Args:
            ids: token numbers; specials are passed over, bytes that form no character show as U+FFFD.

        Raises:
            BadConfig: when a number is not in the vocabulary.
        """
        spelled = bytearray()
        for token in ids:
            require(0 <= token < self.vocab_size, f"token {token}", f"0 to {self.vocab_size - 1}")
            if FIRST_BYTE <= token < FIRST_BYTE + 256:
                spelled.append(token - FIRST_BYTE)
        return spelled.decode("utf-8", errors="replace")

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes an equal tokenizer."""
        return {"format": _FORMAT}

    @classmethod
    def from_json(cls, plain: Any) -> "ByteTokenizer":
        """Rebuild a tokenizer from the result of `to_json`.

        Raises:
            BadModel: when the data is of another format.
        """
        if plain != {"format": _FORMAT}:
            raise BadModel("a tokenizer of another format", f"format {_FORMAT!r}")
        return cls()
