"""Foreign JSON configs, read as closed sets: every field is known, and so is every value that may stand in it.

A class of another library has dozens of switches.  One that we pass over in silence would load without a word and
draw nonsense, so a field that is unknown, or set to something that our network does not do, is refused by name.
A field that is absent has the value that the foreign class itself takes then.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from opendalle.base.errors import BadModel

NEEDED = object()  # default of a field without a default


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a foreign config."""

    default: Any  # what the foreign class takes where the file is silent; NEEDED: it must be there
    accepted: str  # what may stand in it, in words
    fits: Callable[[Any], bool]  # whether a value may stand in it


@dataclass(frozen=True, kw_only=True)
class ForeignForm:
    """All fields of one foreign class."""

    class_name: str  # as `_class_name` says it
    fields: Mapping[str, Field]

    def read(self, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Check a config and fill in what it leaves out.

        Args:
            plain: as read from JSON; of the names that begin with an underscore only `_class_name` counts.

        Raises:
            BadModel: naming the first field that is unknown, missing, or has a value we do not do.
        """
        name = plain.get("_class_name", self.class_name)
        if name != self.class_name:
            raise BadModel(f"a config of {name!r}", f"one of {self.class_name}")
        given = {key: value for key, value in plain.items() if not key.startswith("_")}
        if unknown := sorted(set(given) - set(self.fields)):
            raise BadModel(f"{self.class_name} with the unknown field {unknown[0]!r}", ", ".join(sorted(self.fields)))
        values = {key: given.get(key, field.default) for key, field in self.fields.items()}
        for key, value in values.items():
            if value is NEEDED:
                raise BadModel(f"{self.class_name} without {key!r}", self.fields[key].accepted)
            if not self.fields[key].fits(value):
                raise BadModel(f"{self.class_name} with {key} = {value!r}", self.fields[key].accepted)
        return values


def only(*values: Any, default: Any = ...) -> Field:
    """A field with few accepted values.

    Args:
        values: all of them.
        default: of the foreign class; left out: the first of the values.
    """

    def fits(value: Any) -> bool:
        return any(isinstance(value, bool) == isinstance(one, bool) and value == one for one in values)

    return Field(
        default=values[0] if default is ... else default, accepted=" or ".join(repr(one) for one in values), fits=fits
    )


def whole(default: Any = NEEDED, *, optional: bool = False) -> Field:
    """A field with a positive whole number.

    Args:
        default: of the foreign class.
        optional: whether null may stand there too.
    """

    def fits(value: Any) -> bool:
        return (optional and value is None) or (isinstance(value, int) and not isinstance(value, bool) and value > 0)

    return Field(default=default, accepted="a positive whole number" + (" or null" if optional else ""), fits=fits)


def number(default: Any, low: float, high: float) -> Field:
    """A field with a number.

    Args:
        default: of the foreign class.
        low: the least accepted.
        high: accepted are those below.
    """

    def fits(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value < high

    return Field(default=default, accepted=f"a number from {low} to below {high}", fits=fits)


def several(accepted: str, fits: Callable[[Any], bool], default: Any = NEEDED) -> Field:
    """A field with a list.

    Args:
        accepted: what one of its entries may be, in words.
        fits: whether one entry may stand there.
        default: of the foreign class.
    """

    def all_fit(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) > 0 and all(fits(one) for one in value)

    return Field(default=default, accepted=f"a list, each entry {accepted}", fits=all_fit)
