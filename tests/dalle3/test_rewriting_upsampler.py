"""The upsampler round any rewriter: what it hands on, how often it asks, and what it leaves alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.request import Request
from opendalle.dalle3.rewriting.http import NoAnswer
from opendalle.dalle3.rewriting.language import num_words
from opendalle.dalle3.rewriting.protocol import Rewriter
from opendalle.dalle3.rewriting.revising import revise, revise_by_own
from opendalle.dalle3.rewriting.upsampler import PromptUpsampler, PromptUpsamplerConfig

TAIL = " on a mossy branch in a pine forest, under a pale morning sky, painted in soft colours with a wide brush"


@dataclass
class Writer:
    """Writes the same of the same prompt and seed; before `good_from` it forgets what was asked."""

    good_from: int = 0  # the first seed that is any good
    asked: list[tuple[str, int]] = field(default_factory=list)
    name: str = "writer"

    def rewrite(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
        self.asked += zip(prompts, seeds, strict=True)
        return [
            f'"{one} sit still{TAIL}"' if seed >= self.good_from else "five horses"
            for one, seed in zip(prompts, seeds, strict=True)
        ]


@dataclass
class Silent(Writer):
    def rewrite(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
        raise NoAnswer("nothing from http://10.0.0.1", "a server")


def test_a_writer_is_a_rewriter() -> None:
    assert isinstance(Writer(), Rewriter)


def test_a_short_prompt_is_rewritten_and_tidied() -> None:
    (one,) = PromptUpsampler(Writer()).rewrite(["three owls"])
    assert (one.text, one.attempts, one.why_kept) == ("three owls sit still" + TAIL, 1, "")
    assert one.record == {"by": "writer", "attempts": 1}


def test_other_seeds_are_tried_a_bounded_number_of_times() -> None:
    writer = Writer(good_from=2)
    (one,) = PromptUpsampler(writer).rewrite(["three owls"])
    assert (one.attempts, writer.asked) == (3, [("three owls", 0), ("three owls", 1), ("three owls", 2)])
    writer = Writer(good_from=9)
    (one,) = PromptUpsampler(writer).rewrite(["three owls"])
    assert (one.text, len(writer.asked)) == ("three owls", 3)
    assert [failed.check for failed in one.failed] == ["length", "counts", "words"]
    assert one.record["kept"] == one.why_kept
    assert "3 owls" in one.why_kept


def test_only_what_failed_is_asked_for_again_and_like_prompts_once() -> None:
    writer = Writer()
    texts = [one.text for one in PromptUpsampler(writer).rewrite(["an owl", "two owls", "an owl"])]
    assert texts == ["an owl sit still" + TAIL, "two owls sit still" + TAIL, "an owl sit still" + TAIL]
    assert writer.asked == [("an owl", 0), ("two owls", 0)]


def test_a_refusal_may_be_preferred() -> None:
    with pytest.raises(BadRequest, match=r"3 attempts.*counts"):
        PromptUpsampler(Writer(good_from=9), PromptUpsamplerConfig(on_failure="refuse")).rewrite(["three owls"])


def test_a_rewriter_that_is_silent() -> None:
    with pytest.raises(NoAnswer):
        PromptUpsampler(Silent()).rewrite(["three owls"])
    (one,) = PromptUpsampler(Silent(), PromptUpsamplerConfig(on_silence="original")).rewrite(["three owls"])
    assert (one.text, one.record) == ("three owls", {"by": "writer", "attempts": 0, "kept": one.why_kept})
    assert "10.0.0.1" in one.error
    assert "10.0.0.1" not in one.why_kept  # a recipe tells no address


@pytest.mark.parametrize(
    ("prompt", "begins"),
    [("three owls", "three owls. "), ("three owls.", "three owls. "), ("three  owls!", "three owls! ")],
)
def test_the_text_may_be_appended_as_in_the_papers_long_prompts(prompt: str, begins: str) -> None:
    class Other(Writer):
        def rewrite(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
            return ["quietly three owls sit still" + TAIL] * len(prompts)

    (one,) = PromptUpsampler(Other(), PromptUpsamplerConfig(form="append")).rewrite([prompt])
    assert one.text == begins + "quietly three owls sit still" + TAIL
    (same,) = PromptUpsampler(Writer(), PromptUpsamplerConfig(form="append")).rewrite(["three owls"])
    assert same.text == "three owls sit still" + TAIL  # it begins with the prompt already


def test_a_chinese_prompt_is_appended_to_without_a_space() -> None:
    class Chinese(Writer):
        def rewrite(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
            return ["画面里有三只猫坐在窗台上，阳光照进来，窗外是一片开满花的院子，远处有淡淡的山"] * len(prompts)

    (one,) = PromptUpsampler(Chinese(), PromptUpsamplerConfig(form="append")).rewrite(["三只猫"])
    assert one.text.startswith("三只猫。画面里有三只猫坐在")


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=400))
def test_what_is_left_alone_stays_equal(prompt: str) -> None:
    """Whatever the rewriter does: the text is the prompt itself, or it passed every check."""
    writer = Writer(good_from=9)
    (one,) = PromptUpsampler(writer).rewrite([prompt])
    assert one.text == prompt
    if num_words(prompt) == 0 or num_words(prompt) >= 15:
        assert writer.asked == []


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["owl", "red", "猫", "tree", "three", "Paris"]), min_size=15, max_size=40))
def test_a_long_prompt_is_never_shown_to_the_rewriter(words: list[str]) -> None:
    writer, prompt = Writer(), " ".join(words)
    (one,) = PromptUpsampler(writer).rewrite([prompt])
    is_long = num_words(prompt) >= 15
    assert bool(writer.asked) != is_long
    assert one.text == prompt if is_long else True


def test_requests_keep_both_texts_and_are_rewritten_once() -> None:
    writer = Writer()
    requests = [
        Request(prompt="three owls", seed=4, count=3),
        Request(prompt="three owls", rewrite="off"),
        Request(prompt="three owls", rewrite="http", revised_prompt="three brown owls"),
        Request(prompt=""),
    ]
    first, *rest = revise(requests, PromptUpsampler(writer))
    assert (first.request.prompt, first.request.revised_prompt) == ("three owls", "three owls sit still" + TAIL)
    assert (first.request.seed, first.request.count, first.told["rewriting"]["by"]) == (4, 3, "writer")
    assert [one.request for one in rest] == requests[1:]
    assert all(one.told == {} for one in rest)
    assert [one.request.caption for one in rest] == ["three owls", "three brown owls", ""]
    writer.asked.clear()
    assert revise([first.request], PromptUpsampler(writer))[0].request == first.request
    assert writer.asked == []


def test_kept_words_are_the_revised_prompt_too() -> None:
    (one,) = revise([Request(prompt="three owls")], PromptUpsampler(Writer(good_from=9)))
    assert one.request.revised_prompt == one.request.caption == "three owls"


def test_the_seed_of_a_picture_does_not_change_its_words() -> None:
    asked = [Request(prompt="three owls", seed=seed) for seed in (0, 7)]
    one, other = revise(asked, PromptUpsampler(Writer(good_from=1)))
    assert one.request.caption == other.request.caption


def test_a_pipeline_rewrites_by_its_own_rewriter_only() -> None:
    own = PromptUpsampler(Writer())
    for mode in (None, "own"):
        (one,) = revise_by_own([Request(prompt="three owls", rewrite=mode)], own, "DALL·E 3")
        assert one.request.revised_prompt.startswith("three owls sit")
    for mode in ("http", "local"):
        with pytest.raises(BadRequest, match="rewritten before: DALL·E 3"):
            revise_by_own([Request(prompt="three owls", rewrite=mode)], own, "DALL·E 3")
        done = Request(prompt="three owls", rewrite=mode, revised_prompt="three brown owls")
        assert revise_by_own([done], own, "DALL·E 3")[0].request == done
    plain = Request(prompt="three owls")
    assert revise_by_own([plain], None, "DALL·E 3")[0].request == plain
    with pytest.raises(BadRequest, match="no rewriter of its own"):
        revise_by_own([Request(prompt="three owls", rewrite="own")], None, "DALL·E 3")


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"attempts": 0}, {"attempts": 17}, {"long_enough": 0}):
        with pytest.raises(BadConfig):
            PromptUpsamplerConfig(**wrong)
