"""A network's config as JSON and back: frozen dataclasses, nested as deep as they like, to plain data and again.

Which dataclass a part is, the caller says; no class is ever chosen by a name found in a file.
"""

import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from reprlib import repr as repr_short
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from opendalle.base.errors import BadModel, OpenDalleError

Config = TypeVar("Config")

_words_from_type: Mapping[Any, str] = types.MappingProxyType(
    {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
)


def to_plain(config: Any) -> dict[str, Any]:
    """Return a config dataclass as plain data for JSON.

    Args:
        config: a dataclass whose fields are numbers, words, tuples, mappings or such dataclasses again.
    """
    return asdict(config)


def from_plain(kind: type[Config], plain: Any) -> Config:
    """Build a config dataclass from what `to_plain` wrote, also after a journey through JSON.

    Args:
        kind: the dataclass.
        plain: an object with its fields, as a file holds it; one that is missing takes its default.

    Raises:
        BadModel: when a field is unknown, missing without a default, of another type, or refused by the dataclass.
    """
    if not isinstance(plain, Mapping):
        raise BadModel(f"{kind.__name__} = {repr_short(plain)}", "an object with its fields")
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind) if field.init}  # type: ignore[arg-type]
    if unknown := sorted(set(map(str, plain)) - known):
        raise BadModel(f"{kind.__name__} with {', '.join(unknown)}", ", ".join(sorted(known)), "Update opendalle.")
    values = {name: _value(f"{kind.__name__}.{name}", hints[name], value) for name, value in plain.items()}
    try:
        return kind(**values)
    except OpenDalleError as error:
        raise BadModel(f"{kind.__name__}: {error.came}", error.wanted, error.todo) from None
    except TypeError as error:
        raise BadModel(f"an incomplete {kind.__name__} ({error})", "every field without a default") from None
    except (ArithmeticError, LookupError, ValueError) as error:  # a check that stumbled, as over a division by 0
        raise BadModel(f"a {kind.__name__} that cannot be ({error})", "a config as opendalle writes it") from None


def _value(place: str, hint: Any, value: Any) -> Any:
    """Give JSON's lists and objects the types that the field wants, and refuse all else."""
    origin, inner = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return value if isinstance(value, hint) else from_plain(hint, value)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        choices = [one for one in inner if one is not type(None)]
        return _value(place, choices[0], value) if len(choices) == 1 else value
    if origin in (tuple, Sequence):
        if not isinstance(value, list | tuple):
            raise BadModel(f"{place} = {repr_short(value)}", "a list")
        return tuple(_value(place, inner[0] if inner else Any, one) for one in value)
    if origin is Literal and value not in inner:
        raise BadModel(f"{place} = {repr_short(value)}", "one of " + ", ".join(map(str, inner)))
    if hint in _words_from_type and not _is_a(hint, value):
        raise BadModel(f"{place} = {repr_short(value)}", _words_from_type[hint])
    return value


def _is_a(kind: type, value: Any) -> bool:
    if isinstance(value, bool):  # which Python counts among the whole numbers
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)
