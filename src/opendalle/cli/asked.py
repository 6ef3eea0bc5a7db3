"""The flags of a picture, derived from `base.request.Request`: no flag is written down twice.

`Asked` is a dataclass made from the Request's fields with their help lines and choices; the prompt stays a positional
word, and width and height are asked as `--size N` or `--size WxH`.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, get_type_hints

from cyclopts import Group, Parameter, Token

from opendalle.base.errors import BadRequest
from opendalle.base.request import Request

ELSEWHERE = ("prompt", "width", "height")  # fields of the Request that have doors of their own

COMMON = Group("The picture", sort_key=2)
RARE = Group("Rarely needed", sort_key=4)


def _flags_of_request() -> type:
    hints = get_type_hints(Request)
    flags: list[tuple[str, Any, Any]] = []
    for one in fields(Request):
        if one.name in ELSEWHERE:
            continue
        hint, choices = hints[one.name], one.metadata["choices"]
        if choices:
            word = Literal[choices]
            hint = word if one.default is not None else Optional[word]  # noqa: UP045 - made while running
        looks = Parameter(
            converter=whole_number if hint in (int, int | None) else None,
            help=one.metadata["help"],
            group=RARE if one.metadata["rare"] else COMMON,
            negative="",
            show_default=(lambda _: "the model's best") if one.default is None else None,
        )
        flags.append((one.name, Annotated[hint, looks], field(default=one.default)))
    made = make_dataclass("Asked", flags, frozen=True, kw_only=True)
    made.__module__ = __name__  # else it counts as one of Python's own types, and cyclopts looks no further
    return made


def whole_number(_: type, tokens: Sequence[Token]) -> int:
    """Read a whole number as typed: left to itself, cyclopts rounds 1.5 to 2.

    Args:
        tokens: what was typed after the flag; the first counts.

    Raises:
        ValueError: when it is no whole number; cyclopts makes a line of it.
    """
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is no whole number") from None


if TYPE_CHECKING:

    @dataclass(frozen=True, kw_only=True)
    class Asked:
        """Every field of a Request that has a flag, as a type checker sees it: it cannot know the fields."""
else:
    Asked = _flags_of_request()


def request_of(prompt: str, size: str, asked: Asked) -> Request:
    """Build the Request that a command line asks for.

    Args:
        prompt: what to draw; must hold something visible.
        size: `256` or `320x256` (width first), in pixels.
        asked: the flags.

    Raises:
        BadRequest: when a value lies outside its range.
    """
    width, height = parse_size(size)
    request = Request(prompt=prompt, width=width, height=height, **asdict(asked))
    if not any(one.isprintable() and not one.isspace() for one in prompt):
        raise BadRequest("an empty prompt", "a few words that say what to draw")
    return request


def parse_size(size: str) -> tuple[int, int]:
    """Return width and height of `256` or `320x256`.

    Args:
        size: the words of `--size`.

    Raises:
        BadRequest: when they are neither.
    """
    match = re.fullmatch(r"([0-9]{1,6})(?:[xX×]([0-9]{1,6}))?", size)
    if not match:
        raise BadRequest(f"size {size!r}", "pixels as 256, or WIDTHxHEIGHT as 320x256")
    return int(match[1]), int(match[2] or match[1])
