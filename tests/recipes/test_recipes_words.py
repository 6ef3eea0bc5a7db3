"""What the text tower hears of beside captions."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from opendalle.recipes import words
from opendalle.recipes.words import chinese_words, meanings

NOUNS = """  1 This line is of the licence | no meaning here
00001740 03 n 01 cat 0 000 @ | a small furry animal (usually kept) that purrs; "the cat slept"
00001741 03 n 01 dog 0 000 @ | a small furry animal (usually kept) that barks
00001742 03 n 01 ox 0 000 @ | short
00001743 03 n 01 owl 0 000 @ | a small furry animal that purrs
"""


def wordnet(folder: Path) -> Path:
    (folder / "dict").mkdir(parents=True)
    (folder / "dict" / "data.noun").write_text(NOUNS, encoding="utf-8")
    (folder / "dict" / "data.adj").write_text(
        "00000001 00 a 01 big 0 000 | " + "very " * 20 + "large\n", encoding="utf-8"
    )
    (folder / "dict" / "data.verb").write_text('00000002 29 v 01 sleep 0 000 | be at rest "x"\n', encoding="utf-8")
    return folder


def test_meanings_are_short_and_come_once(tmp_path: Path) -> None:
    package = wordnet(tmp_path / "package")
    found = meanings(package, 10, seed=1)
    assert sorted(found) == [
        "a small furry animal that barks",
        "a small furry animal that purrs",
    ]  # the rest: too short
    assert meanings(package, 1, seed=1) == found[:1]
    assert meanings(tmp_path / "nowhere", 10, seed=1) == []


def test_chinese_words_are_common_and_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dict.txt").write_text(
        "苹果 50 n\n北京 900 ns\n的 5000 uj\n快乐 70 a\n奔跑 60 v\nT恤 80 n\n猫 90 n\n", encoding="utf-8"
    )
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(words, "find_spec", lambda name: spec if name == "jieba" else None)
    assert chinese_words(2) == ["快乐", "奔跑"]
    assert chinese_words(9) == ["快乐", "奔跑", "苹果"]
    monkeypatch.setattr(words, "find_spec", lambda name: None)
    assert chinese_words(9) == []


def test_the_installed_list_knows_everyday_words() -> None:
    pytest.importorskip("jieba")
    assert {"苹果", "火箭", "月亮"} <= set(chinese_words(14_000))
