"""A network's config as JSON and back: frozen dataclasses, nested as deep as they like, to plain data and again.

Which dataclass a part is, the caller says; no class is ever chosen by a name found in a file.
"""

import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from opendalle.base.errors import BadModel, OpenDalleError

Config = TypeVar("Config")


def to_plain(config: Any) -> dict[str, Any]:
    """Return a config dataclass as plain data for JSON.

    Args:
        config: a dataclass whose fields are numbers, words, tuples, mappings or such dataclasses again.
    """
    return asdict(config)


def from_plain(kind: type[Config], plain: Mapping[str, Any]) -> Config:
    """Build a config dataclass from what `to_plain` wrote, also after a journey through JSON.

    Args:
        kind: the dataclass.
        plain: its fields; one that is missing takes its default.

    Raises:
        BadModel: when a field is unknown, missing without a default, or refused by the dataclass itself.
    """
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind) if field.init}  # type: ignore[arg-type]
    if unknown := sorted(set(plain) - known):
        raise BadModel(f"{kind.__name__} with {', '.join(unknown)}", ", ".join(sorted(known)), "Update opendalle.")
    try:
        return kind(**{name: _value(hints[name], value) for name, value in plain.items()})
    except OpenDalleError as error:
        raise BadModel(f"{kind.__name__}: {error.came}", error.wanted, error.todo) from None
    except TypeError as error:
        raise BadModel(f"an incomplete {kind.__name__} ({error})", "every field without a default") from None


def _value(hint: Any, value: Any) -> Any:
    """Give JSON's lists and objects the types that the field wants."""
    if is_dataclass(hint) and isinstance(value, Mapping):
        return from_plain(hint, value)  # type: ignore[arg-type]
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) and value is not None:
        choices = [one for one in inner if one is not type(None)]
        return _value(choices[0], value) if len(choices) == 1 else value
    if origin is tuple and isinstance(value, list | tuple):
        each = inner[0] if inner else Any
        return tuple(_value(each, one) for one in value)
    return value
