"""Which concepts there are and what they are called: the word half of the emoji world, read from `emojibase-data`.

A concept is one thing that can be named: "red apple", "grinning face".  Skin tones and flags are left out; so are
drawings that are another concept's mirror image.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendalle.base.errors import BadData

LANGUAGES = (
    "en",
    "zh",
    "de",
    "es",
    "fr",
    "it",
    "ja",
    "ko",
    "pt",
    "ru",
)  # English and Chinese with keywords, then names
_FULL = ("en", "zh")
_SKIN_TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
_GENDER_SIGNS = {"2640", "2642"}
_PEOPLE = {"1F468", "1F469", "1F9D1"}  # man, woman, person: what a profession is joined to
_MIRROR = "27A1"  # "facing right"
_SKIPPED_GROUPS = {"component", "flags"}
_RELATIVES = ("family:", "kiss:", "couple with heart:")  # dozens of near-identical groups of heads


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of one concept before anything is drawn."""

    hexcode: str  # Unicode code points joined by '-', without the variation selector, upper case
    family: str  # shared by the gender variants of one thing
    is_variant: bool  # a man or woman form of a thing that also has a plain form
    names: dict[str, str]  # language -> name
    keywords: dict[str, tuple[str, ...]]  # language (en, zh) -> words people search by
    group: str
    subgroup: str


def plain_hexcode(hexcode: str) -> str:
    """Return the hexcode without variation selectors, upper case, so that every package's spelling meets."""
    return "-".join(part for part in hexcode.upper().split("-") if part != "FE0F")


def read_words(package: Path) -> list[Words]:
    """Read every concept of an unpacked `emojibase-data` package, in Unicode order.

    Args:
        package: folder that holds `en/data.json`, `zh/data.json`, ..., `meta/groups.json`.

    Raises:
        BadData: when a file is missing or not what emojibase publishes.
    """
    by_language = {language: _read_table(package / language / "data.json") for language in LANGUAGES}
    meta = _read_json(package / "meta" / "groups.json")
    groups, subgroups = meta["groups"], meta["subgroups"]
    entries = [entry for entry in by_language["en"].values() if "group" in entry]
    present = {plain_hexcode(entry["hexcode"]) for entry in entries}
    words = []
    for entry in sorted(entries, key=lambda one: one["order"]):
        hexcode, parts = plain_hexcode(entry["hexcode"]), plain_hexcode(entry["hexcode"]).split("-")
        group = groups[str(entry["group"])]
        if group in _SKIPPED_GROUPS or _SKIN_TONES & set(parts) or _MIRROR in parts[1:]:
            continue
        if entry["label"].startswith(_RELATIVES):
            continue
        family = _family(parts)
        words.append(
            Words(
                hexcode=hexcode,
                family=family,
                is_variant=hexcode != family and family in present,
                names={lang: table[hexcode]["label"] for lang, table in by_language.items() if hexcode in table},
                keywords={lang: _keywords(by_language[lang].get(hexcode, entry)) for lang in _FULL},
                group=group,
                subgroup=subgroups[str(entry["subgroup"])],
            )
        )
    return words


def _family(parts: list[str]) -> str:
    """Name the plain form of a gendered concept: `woman running` and `man running` -> `person running`."""
    kept = list(parts)
    if len(kept) > 2 and kept[-1] in _GENDER_SIGNS and kept[-2] == "200D":
        kept = kept[:-2]
    if len(kept) > 1 and kept[0] in _PEOPLE:
        kept[0] = "1F9D1"
    return "-".join(kept)


def _keywords(entry: dict[str, Any]) -> tuple[str, ...]:
    return tuple(entry.get("tags", ()))


def _read_table(path: Path) -> dict[str, dict[str, Any]]:
    return {plain_hexcode(entry["hexcode"]): entry for entry in _read_json(path)}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadData(f"no file {path}", "an unpacked emojibase-data package", "Run: opendalle data emoji") from None
    except ValueError as error:
        raise BadData(f"{path} is not JSON ({error})", "the file that emojibase-data publishes") from None
