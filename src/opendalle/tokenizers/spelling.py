"""What a `tokenizer.json` says of a text before its model sees it: which characters become which, where it is cut.

Only rules that mean here exactly what they mean there are read; a rule passed over would give other tokens without a
word, so every other one is refused by name.  No torch.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from opendalle.base.errors import BadModel
from opendalle.tokenizers.charsmap import CharacterMap

Normaliser = Callable[[str], str]
Splitter = Callable[[str], list[str]]

# White space as Unicode lists it; Python's own idea of it also holds four separators that are none.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_MANY_SPACES = " {2,}"  # the one regular expression that published files have, and that all engines read alike
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def read_normaliser(plain: Any) -> Normaliser:
    """Read the `normalizer` of a tokenizer.json.

    Args:
        plain: an object with a type, or None: the text stays as it is.

    Raises:
        BadModel: when there is a rule that we do not do.
    """
    if plain is None:
        return lambda text: text
    kind = _type(plain)
    if kind == "Sequence":
        steps = [read_normaliser(one) for one in _list(plain, "normalizers")]
        return lambda text: _through(steps, text)
    if kind == "Precompiled":
        return CharacterMap(plain.get("precompiled_charsmap")).apply
    if kind in _FORMS:
        return lambda text: unicodedata.normalize(kind, text)
    if kind == "Lowercase":
        return lambda text: "".join(character.lower() for character in text)  # a sigma at a word's end, too
    if kind == "Strip":
        ends = "".join(side for side, name in (("l", "strip_left"), ("r", "strip_right")) if plain.get(name))
        pattern = {"": "(?!)", "l": f"^[{_SPACE}]+", "r": f"[{_SPACE}]+\\Z", "lr": f"^[{_SPACE}]+|[{_SPACE}]+\\Z"}[ends]
        return lambda text: re.sub(pattern, "", text)
    if kind == "Replace":
        pattern, content = plain.get("pattern"), plain.get("content")
        if isinstance(content, str) and pattern == {"Regex": _MANY_SPACES}:
            return lambda text: re.sub(_MANY_SPACES, lambda found: content, text)
        if isinstance(content, str) and isinstance(pattern, Mapping) and isinstance(old := pattern.get("String"), str):
            return lambda text: text.replace(old, content) if old else text
        raise BadModel(f"a normalizer that replaces {pattern!r}", f"a String, or the Regex {_MANY_SPACES!r}")
    known = f"Sequence, Precompiled, {', '.join(_FORMS)}, Lowercase, Strip, Replace"
    raise BadModel(f"a tokenizer with the normalizer {kind!r}", known)


def read_splitter(plain: Any) -> Splitter:
    """Read the `pre_tokenizer` of a tokenizer.json.

    Args:
        plain: an object with a type.

    Returns:
        Text to pieces that no token crosses.

    Raises:
        BadModel: when there is a rule that we do not do.
    """
    kind = _type(plain)
    if kind == "WhitespaceSplit":
        return lambda text: [piece for piece in re.split(f"[{_SPACE}]+", text) if piece]
    if kind == "Metaspace":
        return _metaspace(plain)
    if kind == "Sequence":
        steps = [read_splitter(one) for one in _list(plain, "pretokenizers")]
        return lambda text: _all_pieces(steps, [text])
    raise BadModel(f"a tokenizer with the pre_tokenizer {kind!r}", "Sequence, WhitespaceSplit, Metaspace")


def _metaspace(plain: Mapping[str, Any]) -> Splitter:
    """Write spaces as a visible mark, with one before the first word, and cut before each mark."""
    mark, is_cut = plain.get("replacement"), plain.get("split", True)
    # Older files have `add_prefix_space` instead of a scheme.
    scheme = plain.get("prepend_scheme", "never" if plain.get("add_prefix_space") is False else "always")
    if scheme not in ("always", "never"):
        raise BadModel(f"a Metaspace with prepend_scheme {scheme!r}", "always or never")
    if not (isinstance(mark, str) and len(mark) == 1 and isinstance(is_cut, bool)):
        raise BadModel(f"a Metaspace with replacement {mark!r}, split {is_cut!r}", "one character; true or false")
    words = re.compile(f"{re.escape(mark)}[^{re.escape(mark)}]*|[^{re.escape(mark)}]+")

    def split(text: str) -> list[str]:
        text = text.replace(" ", mark)
        if scheme == "always" and not text.startswith(mark):
            text = mark + text
        return words.findall(text) if is_cut else [text]

    return split


def _all_pieces(steps: list[Splitter], pieces: list[str]) -> list[str]:
    for step in steps:
        pieces = [smaller for piece in pieces if piece for smaller in step(piece)]
    return pieces


def _through(steps: list[Normaliser], text: str) -> str:
    for step in steps:
        text = step(text)
    return text


def _type(plain: Any) -> str:
    kind = plain.get("type") if isinstance(plain, Mapping) else None
    if not isinstance(kind, str):
        raise BadModel(f"a rule {plain!r:.60}", "an object with its type")
    return kind


def _list(plain: Mapping[str, Any], name: str) -> list[Any]:
    steps = plain.get(name)
    if not isinstance(steps, list):
        raise BadModel(f"a Sequence without {name}", f"a list of {name}")
    return steps
