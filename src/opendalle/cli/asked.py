"""The flags of a picture, derived from `base.request.Request`: no flag is written down twice.

`Asked` and its kin are dataclasses made from the Request's fields, each verb's from those that it reads, with their
help lines and choices; texts have doors of their own, and width and height are asked as `--size N` or `--size WxH`.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token

from opendalle.base.errors import BadRequest
from opendalle.base.request import VERBS, Request, fields_of

ELSEWHERE = ("prompt", "width", "height", "from_text", "to_text")  # fields of the Request that have doors of their own

COMMON = Group("The picture", sort_key=2)
RARE = Group("Rarely needed", sort_key=4)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags of a verb: what is made below, one class a verb."""


def _flags_of(verb: str) -> type:
    hints = get_type_hints(Request)
    flags: list[tuple[str, Any, Any]] = []
    for one in fields_of(verb):
        if one.name in ELSEWHERE:
            continue
        hint, choices = hints[one.name], one.metadata["choices"]
        default: Any = one.default
        if choices:
            word = Literal[choices]
            hint = word if default is not None else Optional[word]  # noqa: UP045 - made while running
        if get_origin(hint) is tuple:  # typed with commas between: a flag that takes many words would eat the next ones
            hint, default = str, ",".join(str(one) for one in default or ())
        looks = Parameter(
            converter=whole_number if hint in (int, int | None) else None,
            help=one.metadata["help"],
            group=RARE if one.metadata["rare"] else COMMON,
            negative="",
            show_default=(lambda _: "the model's best") if default is None else None,
        )
        flags.append((one.name, Annotated[hint, looks], field(default=default)))
    made = make_dataclass(f"Asked{verb.title()}", flags, bases=(Flags,), frozen=True, kw_only=True)
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
    # a type checker cannot know the fields
    Asked = AskedVary = AskedBlend = AskedMorph = AskedLadder = AskedEdit = AskedUpscale = Flags
else:
    Asked, AskedVary, AskedBlend, AskedMorph, AskedLadder, AskedEdit, AskedUpscale = (_flags_of(verb) for verb in VERBS)


def request_of(verb: str, size: str, asked: Flags, *, may_be_silent: bool = False, **texts: str) -> Request:
    """Build the Request that a command line asks for.

    Args:
        verb: whose command line it is.
        size: `256` or `320x256` (width first), in pixels.
        asked: the flags.
        may_be_silent: whether something else than the prompt says what to draw.
        **texts: the fields that are no flags: prompt, from_text, to_text.

    Raises:
        BadRequest: when a value lies outside its range, or there is nothing to draw.
    """
    width, height = parse_size(size)
    kinds = get_type_hints(Request)
    given: dict[str, Any] = {
        name: _numbers(name, value, get_args(kinds[name])[0]) if get_origin(kinds[name]) is tuple else value
        for name, value in asdict(asked).items()
    }
    request = Request(width=width, height=height, **texts, **given)
    if (
        verb == "generate"
        and not may_be_silent
        and not any(one.isprintable() and not one.isspace() for one in request.prompt)
    ):
        raise BadRequest("an empty prompt", "a few words that say what to draw")
    return request


def _numbers(name: str, text: str, kind: type) -> tuple[Any, ...]:
    """Read numbers with commas between."""
    try:
        return tuple(kind(one) for one in text.split(",") if text)
    except ValueError:
        raise BadRequest(f"{name} is {text!r}", "numbers with commas between, as 1,2") from None


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
