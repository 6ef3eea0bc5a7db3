"""Normalisation and splitting: what vanishes, what stays, and that nothing is lost between the pieces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opendalle.base.errors import BadRequest
from opendalle.tokenizers.text import LONGEST_PIECE, normalise, split


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("  A Red\tAPPLE\n", "a red apple"),
        ("Ｆｕｌｌ　Ｗｉｄｔｈ，红苹果", "full width,红苹果"),
        ("ﬁne ①", "fine 1"),
        ("e\u0301", "é"),
        ("e\u200b\u0301", "é"),  # the mark composes once the invisible space is gone
        ("nul\x00l\x07 \x1b[31m", "null [31m"),
        ("line\x85end\u2028x", "line end x"),
        ("soft\u00adhyphen \ufeffbom \u202eevil\u202c", "softhyphen bom evil"),
        ("❤️", "❤"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),  # one picture of a family, not three people
        ("❤️\u200d🔥", "❤\u200d🔥"),
        ("👩🏽\u200d🚀", "👩🏽\u200d🚀"),
        ("c\u200dat d\u200cog\u200d", "cat dog"),  # invisible, so it must not make another caption
        ("می\u200cخواهم", "می\u200cخواهم"),  # spelling
        ("क्\u200dष", "क्\u200dष"),
        ("🏴\U000e0067\U000e0062\U000e007f", "🏴"),
        ("\u3164 \u2800x", "\u2800x"),
        ("", ""),
        (" \t\r\n", ""),
        ("İstanbul", "i̇stanbul"),
    ],
)
def test_normalise(typed: str, kept: str) -> None:
    assert normalise(typed) == kept


def test_half_a_surrogate_pair_is_refused() -> None:
    for text in ("\ud83d", "ok \udc00", "\udfff\ud800"):
        with pytest.raises(BadRequest, match="surrogate"):
            normalise(text)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=40))
def test_normalise_twice_is_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="aZ é\u0301\u200d\u200c\u0915\u094d👨🏽❤\ufe0fσΣ\u1100\u1161红ｶﾞ\u3099", max_size=12))
def test_normalise_twice_is_once_among_awkward_neighbours(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_pieces_join_to_the_text(text: str) -> None:
    text = normalise(text)
    pieces = list(split(text))
    assert "".join(pieces).removeprefix(" ") == text
    assert all(0 < len(piece) <= LONGEST_PIECE for piece in pieces)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a red apple", [" a", " red", " apple"]),
        ("apples, pears (2 of 10)", [" apples", ",", " pears", " (", "2", " of", " 10", ")"]),
        ("红苹果", ["红苹果"]),
        ("两个 emoji 苹果,白色", ["两个", " emoji", " ", "苹果", ",", "白色"]),
        ("赤いりんご", ["赤", "いりんご"]),
        ("ваза café", [" ваза", " café"]),
        ("हिन्दी", [" हिन्दी"]),
        ("it's 3d", [" it", "'", "s", " 3", "d"]),
        ("🦄x", [" 🦄", "x"]),
        ("", []),
    ],
)
def test_split(text: str, pieces: list[str]) -> None:
    assert list(split(text)) == pieces


def test_a_long_word_is_cut() -> None:
    assert [len(piece) for piece in split("x" * 100)] == [32, 32, 32, 5]  # with the space before it
