"""What a new text must keep: true and false cases of every check, in both languages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opendalle.base.errors import BadConfig
from opendalle.dalle3.rewriting.counts import counts_of, lost_count
from opendalle.dalle3.rewriting.instructions import (
    EXAMPLES,
    EXAMPLES_CHINESE,
    RULES_CHINESE,
    as_text,
    conversation,
    without_system,
)
from opendalle.dalle3.rewriting.kept import KeptConfig, failed_checks, tidied
from opendalle.dalle3.rewriting.language import num_words, script_of, stem
from opendalle.dalle3.rewriting.names import lost_name, lost_quote, names_of, quoted

TAIL = " on a mossy branch in a pine forest, under a pale morning sky, painted in soft colours with a wide brush"
CHINESE_TAIL = "，背后是一片安静的松林，清晨的阳光斜斜地照进来，远处有薄薄的雾气，画面柔和而温暖"


def failed(original: str, rewritten: str) -> list[str]:
    return [one.check for one in failed_checks(original, rewritten)]


@pytest.mark.parametrize(("wish", "caption"), [*EXAMPLES, *EXAMPLES_CHINESE])
def test_our_own_examples_pass(wish: str, caption: str) -> None:
    assert failed(wish, caption) == []


COUNTS_KEPT = [
    ("three cats", "three fluffy cats"),
    ("three cats", "3 tabby cats"),
    ("3 cats", "three cats"),
    ("twenty-one candles", "21 white candles"),
    ("a dozen eggs", "twelve brown eggs"),
    ("half a dozen eggs", "6 eggs"),
    ("a pair of shoes", "two red shoes"),
    ("two hundred birds", "200 birds in the sky"),
    ("two cats and two dogs", "two sleepy cats beside two brown dogs"),
    ("three cats", "three cats, one of them black and two grey"),
    ("three cats", "three cats, one cat black and two cats grey"),
    ("a red car", "a red car before two red houses"),
    ("three red apples", "three red apples and five red leaves"),
    ("four dogs", "four different breeds of dogs"),
    ("a photo of cats", "five cats"),
    ("one boat", "a single wooden boat"),
    ("two children", "two small children, each child with a kite"),
    ("a street in 1920", "a narrow street in the year 1920"),
    ("some cats", "five cats"),
    ("三只猫", "三只橘色的小猫"),
    ("3只猫", "三只可爱的猫"),
    ("三只猫", "草地上有3只小花猫"),
    ("十二朵玫瑰", "12朵红色的玫瑰"),
    ("一双鞋", "两只红色的鞋"),
    ("两个孩子和三只狗", "两个孩子牵着三只白色的狗"),
    ("一只猫", "一只胖胖的猫，旁边有两只狗"),
    ("二十一根蜡烛", "21根白色的蜡烛"),
    ("ein Hund", "zwei Hunde"),  # read in English and Chinese only: nothing is claimed of other languages
]
COUNTS_LOST = [
    ("three cats", "four cats"),
    ("three cats", "some cats"),
    ("three cats", "three dogs and some cats"),
    ("three cats", "three cats watched by five cats"),
    ("three cats and two dogs", "two cats and three dogs"),
    ("a cat", "two cats"),
    ("a sheep", "two sheep"),
    ("a cat", "a cat. two cats sit on a wall"),
    ("twenty-one candles", "twenty candles and one cake"),
    ("a dozen eggs", "ten eggs"),
    ("a pair of shoes", "some shoes"),
    ("a street in 1920", "a narrow street in 1930"),
    ("三只猫", "四只猫"),
    ("三只猫", "几只猫"),
    ("三只猫", "三只狗，还有一些猫"),
    ("一只猫", "两只猫坐在墙上"),
    ("两个孩子和三只狗", "三个孩子牵着两只狗"),
    ("十二朵玫瑰", "十朵玫瑰"),
]


@pytest.mark.parametrize(("original", "rewritten"), COUNTS_KEPT)
def test_counts_that_are_kept(original: str, rewritten: str) -> None:
    assert lost_count(original, rewritten) is None


@pytest.mark.parametrize(("original", "rewritten"), COUNTS_LOST)
def test_counts_that_are_lost(original: str, rewritten: str) -> None:
    assert lost_count(original, rewritten) is not None


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 999), st.sampled_from(["cat", "red apple", "tower"]))
def test_a_number_is_the_same_in_digits_and_in_chinese(number: int, thing: str) -> None:
    assert [one.value for one in counts_of(f"{number} {thing}s")] == [number]
    assert [one.value for one in counts_of(f"{in_chinese(number)}只猫")] == [number]
    assert lost_count(f"{number}只猫", f"{in_chinese(number)}只小猫") is None
    assert lost_count(f"{number} {thing}s", f"{number + 1} {thing}s") is not None


def in_chinese(number: int) -> str:
    """Write 2 to 999, the plain way."""
    digits, said = "零一二三四五六七八九", ""
    hundreds, tens, ones = number // 100, number // 10 % 10, number % 10
    said += f"{digits[hundreds]}百" if hundreds else ""
    said += f"{digits[tens]}十" if tens else ("零" if hundreds and ones else "")
    return said + (digits[ones] if ones else "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('a sign that says "OPEN"', ["OPEN"]),
        ("a sign that says “Open late,” at night", ["Open late"]),
        ("a sign that says 'Joe's bar' and it's red", ["Joe's bar"]),
        ("a dog's bowl and a cat's bowl", []),
        ("the cooks' knives and the dogs' bowls", []),
        ("«Bonjour» and „Tag“ and `code`", ["Bonjour", "Tag", "code"]),
        ("写着「营业」和『休息』的牌子，旁边是《红楼梦》", ["营业", "休息", "红楼梦"]),
        ("写着“你好”的牌子", ["你好"]),
        ('an empty "" sign', []),
    ],
)
def test_quoted_words_are_found(text: str, found: list[str]) -> None:
    assert sorted(quoted(text)) == sorted(found)


@pytest.mark.parametrize(
    ("original", "rewritten", "is_kept"),
    [
        ('a sign "OPEN"', "a wooden sign reads “OPEN” in red", True),
        ('a sign "OPEN"', 'a wooden sign reads "OPEN," and glows', True),
        ('a sign "OPEN"', 'a wooden sign reads "Open"', False),
        ('a sign "OPEN"', "a wooden sign reads OPEN", False),
        ('a sign "OPEN"', 'a wooden sign reads "OPEN NOW"', False),
        ("写着“你好”的牌子", "木牌上写着「你好」两个字", True),
        ("写着“你好”的牌子", "木牌上写着「您好」", False),
        ("写着「营业」的牌子", "木牌上写着营业", False),
    ],
)
def test_quoted_words_are_kept_letter_by_letter(original: str, rewritten: str, is_kept: bool) -> None:
    assert (lost_quote(original, rewritten) is None) == is_kept


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a photo of Barack Obama in Paris", ["Barack", "Obama", "Paris"]),
        ("Paris at night", ["Paris"]),
        ("A cat. The dog sleeps", []),
        ("Two cats in Rome", ["Rome"]),
        ("Illustration of a mouse", []),
        ("Draw me a cat", []),
        ("I think I'm a cat", []),
        ("R2D2 in 4K", ["R2D2", "4K"]),
        ("A CAT WITH A RED HAT SMILING", []),
        ("Albert Einstein", ["Albert", "Einstein"]),
        ("кот в Москве", ["Москве"]),
        ("穿着NASA宇航服的3只猫，1969年", ["NASA", "1969"]),
        ("一只猫", []),
    ],
)
def test_names_are_found(text: str, found: list[str]) -> None:
    assert names_of(text) == found


@pytest.mark.parametrize(
    ("original", "rewritten", "is_kept"),
    [
        ("the Eiffel Tower in snow", "snow lies on the Eiffel Tower", True),
        ("the Eiffel Tower in snow", "snow lies on Eiffel's tower", True),
        ("a Paris-style cafe", "a cafe in Paris-style with tables", True),
        ("a cafe in Paris", "a Paris-style cafe", True),
        ("the Eiffel Tower in snow", "snow lies on a tall iron tower", False),
        ("a robot like R2D2", "a small round robot", False),
        ("穿着NASA宇航服的猫", "一只猫穿着NASA的白色宇航服", True),
        ("穿着NASA宇航服的猫", "一只猫穿着白色宇航服", False),
    ],
)
def test_names_are_kept(original: str, rewritten: str, is_kept: bool) -> None:
    assert (lost_name(original, rewritten) is None) == is_kept


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("a cat", "LATIN"),
        ("一只猫", "CJK"),
        ("穿着NASA宇航服的猫", "CJK"),
        ("りんごを食べる猫", "JAPANESE"),
        ("고양이", "HANGUL"),
        ("кот", "CYRILLIC"),
        ("🐱 123", ""),
    ],
)
def test_the_script_of_a_text(text: str, script: str) -> None:
    assert script_of(text) == script


def test_the_language_is_kept() -> None:
    assert failed("an owl", "an owl sits" + TAIL) == []
    assert failed("一只猫头鹰", "一只棕色的猫头鹰站在树枝上" + CHINESE_TAIL) == []
    assert "language" in failed("一只猫头鹰", "an owl sits" + TAIL)
    assert "language" in failed("an owl", "一只棕色的猫头鹰站在树枝上" + CHINESE_TAIL)
    assert "words" in failed("ein roter Apfel", "a shining red apple lies" + TAIL)  # the script is the same


def test_the_length_is_15_to_80_words_and_chinese_by_characters() -> None:
    words = lambda number: " ".join(["owl"] * number)  # noqa: E731
    assert [failed("owl", words(number)) for number in (14, 15, 80, 81)] == [["length"], [], [], ["length"]]
    owls = lambda number: "猫" * number  # noqa: E731
    assert [failed("猫", owls(number)) for number in (22, 23, 120, 121)] == [["length"], [], [], ["length"]]
    assert num_words("a cat's half-open eye, 3 mice") == 6
    assert num_words("穿着NASA的三只猫") == 1 + 6 / 1.5
    config = KeptConfig(min_words=2, max_words=3)
    assert [bool(failed_checks("owl", words(number), config)) for number in (1, 2, 3, 4)] == [True, False, False, True]


TALK = [
    "Here is a caption: an owl sits",
    "Here's an owl that sits",
    "Sure! An owl sits",
    "Certainly, an owl sits",
    "I'm sorry, but I can't draw an owl",
    "I cannot describe an owl",
    "As an AI I see an owl",
    "Caption: an owl sits",
    "The rewritten prompt is: an owl sits",
    "**Prompt:** an owl sits",
    "好的，an owl sits",
    "以下是 an owl that sits",
    "抱歉，我无法画 owl",
    "描述：an owl sits",
]


@pytest.mark.parametrize("text", TALK)
def test_talk_about_the_text_is_no_text(text: str) -> None:
    assert {"talk", "text"} & set(failed("an owl", text + TAIL))


@pytest.mark.parametrize(
    "text",
    ["Great white owls stand", "Surely the largest owl sits", "An owl, sorry and wet, sits", "Owl prompt cards lie"],
)
def test_a_caption_may_begin_with_nearly_anything(text: str) -> None:
    assert "talk" not in failed("an owl", text + TAIL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "an owl\nsits" + TAIL,
        "an owl\x1b[2J sits" + TAIL,
        "an owl ```sits```" + TAIL,
        "an owl <|end|>" + TAIL,
        "an owl from https://a.b" + TAIL,
        "an owl \ud800" + TAIL,
        "an owl sits" + TAIL + " Let me know!",
    ],
)
def test_what_is_no_plain_paragraph_fails(text: str) -> None:
    assert {"text", "talk"} & set(failed("an owl", text))


def test_another_subject_fails() -> None:
    assert failed("a red owl on a bicycle", "a red owl rides a bicycle" + TAIL) == []
    assert failed("a red owl on a bicycle", "a grey horse stands" + TAIL) == ["words"]
    assert failed("戴帽子的猫头鹰", "一匹白马站在河边" + CHINESE_TAIL) == ["words"]


def test_a_failed_check_says_what_it_missed() -> None:
    (one,) = failed_checks("three owls", "four owls sit" + TAIL)
    assert str(one) == "counts (3 owls)"


@pytest.mark.parametrize(
    ("came", "left"),
    [
        ('  "an owl"\n', "an owl"),
        ("“an owl”", "an owl"),
        ("「猫」", "猫"),
        ('"OPEN" and "SHUT"', '"OPEN" and "SHUT"'),
        ("<think>an owl?\nyes</think>\n\nan owl", "an owl"),
        ("an   owl", "an owl"),
        ("", ""),
        ('"', '"'),
    ],
)
def test_wrapping_is_taken_off(came: str, left: str) -> None:
    assert tidied(came) == left


def test_plurals_meet_their_singulars() -> None:
    pairs = "cats cat|boxes box|cities city|shoes shoe|mice mouse|children child|glass glass|bus bus|horses horse"
    pairs += "|Obama's obama|dishes dish|tomatoes tomato"
    for pair in pairs.split("|"):
        one, other = pair.split()
        assert stem(one) == other


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_can_be_checked(original: str, rewritten: str) -> None:
    assert failed_checks(original, rewritten) == failed_checks(original, rewritten)
    assert tidied(tidied(rewritten)) is not None


def test_the_conversation_ends_with_the_prompt_in_its_language() -> None:
    turns = conversation("two owls")
    assert (turns[0]["role"], turns[-1]) == ("system", {"role": "user", "content": "two owls"})
    assert conversation("两只猫头鹰")[0]["content"] == RULES_CHINESE
    merged = without_system(turns)
    assert [one["role"] for one in merged] == ["user", "assistant"] * 3 + ["user"]
    assert merged[0]["content"].startswith(turns[0]["content"])
    assert as_text(conversation("two\nowls")).endswith("Wish: two owls\nCaption:")


def test_limits_that_make_no_sense_are_refused() -> None:
    for wrong in ({"min_words": 0}, {"min_words": 20, "max_words": 10}, {"min_share": 1.5}):
        with pytest.raises(BadConfig):
            KeptConfig(**wrong)
