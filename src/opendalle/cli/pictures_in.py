"""Pictures that a command line hands in: files, or standard input as `-`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opendalle.base.errors import BadPicture
from opendalle.pictures import Given, take, take_or_text

if TYPE_CHECKING:
    from opendalle.clip.embedded import Embedded

STANDARD_INPUT = "-"


def picture_of(word: str) -> Given:
    """Read the picture that a word of the command line names.

    Args:
        word: a path, or - for standard input.

    Raises:
        BadPicture: when there is none, or it cannot be read.
    """
    if word != STANDARD_INPUT:
        return take(word)
    try:
        return take(sys.stdin.buffer)
    except AttributeError:  # standard input was closed before we began
        raise BadPicture("no standard input", "a picture, piped in") from None


def picture_or_text(word: str) -> Given | str:
    """Read the picture that a word of the command line names, or keep the word as a text.

    Args:
        word: a path, a text, or - for standard input.

    Raises:
        BadPicture: when a picture is named and cannot be read.
    """
    return picture_of(word) if word == STANDARD_INPUT else take_or_text(word)


def embedding_of(path: Path) -> "Embedded":
    """Read a file that `opendalle embed` wrote; torch enters here.

    Args:
        path: of the file.

    Raises:
        BadPicture: when there is no such file.
        BadRequest: when it holds no embedding.
    """
    from opendalle.clip.embedded import read_embedding

    return read_embedding(path)


def mask_of(text: Any, picture: Path) -> Any:
    """Read the mask that a recipe holds.

    Args:
        text: as the recipe has it.
        picture: its path, for messages.

    Raises:
        BadPicture: when it is no mask.
    """
    from opendalle.editing import mask_from_text

    if not isinstance(text, str):
        raise BadPicture(f"the recipe of {picture} with a mask that is no text", "a whole recipe")
    return mask_from_text(text)
