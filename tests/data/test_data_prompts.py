import numpy as np
import pytest

from opendalle.base.errors import BadConfig
from opendalle.data.emoji.dataset import EmojiSet
from opendalle.data.emoji.holdout import HoldoutConfig, concept_held_out
from opendalle.data.emoji.prompts import (
    COMBINED_SKILLS,
    KIND_OF_SKILL,
    SKILLS,
    _written,
    chinese_scene,
    chinese_twins,
    held_out_cells,
    paraphrases,
    scene_prompts,
    seen_names,
    spoken_words,
)
from opendalle.data.emoji.scenes import held_out_combination


def test_names_come_from_their_split(world):
    seen, held = seen_names(world), held_out_cells(world)
    assert len({prompt.keys[0] for prompt in seen}) == len(seen)
    for prompt in seen:
        assert prompt.style not in world.concept_of[prompt.keys[0]].held_out_styles
    for prompt in held:
        assert prompt.style in world.concept_of[prompt.keys[0]].held_out_styles
    assert seen_names(world, 5) == seen[:5]


@pytest.mark.parametrize("skill", SKILLS)
def test_scenes_ask_for_their_skill(world, skill):
    config = HoldoutConfig(**world.manifest["holdout"])
    prompts = scene_prompts(world, skill, 12)
    assert scene_prompts(world, skill, 4) == prompts[:4]
    for prompt in prompts:
        assert prompt.truth.kind == KIND_OF_SKILL[skill]
        assert (prompt.truth.background is None) == ("background" not in prompt.prompt)
        assert chinese_scene(prompt.truth, world)
    if skill in COMBINED_SKILLS:
        for prompt in scene_prompts(world, skill, 12, held_out=True):
            assert held_out_combination(prompt.truth, config)
    else:
        with pytest.raises(BadConfig):
            scene_prompts(world, skill, 1, held_out=True)


def test_written_lists_are_whole():
    paraphrased, chinese = _written("paraphrases.json"), _written("chinese.json")
    assert len(paraphrased) == 60
    assert len(chinese) == 100
    assert len({row[0] for row in paraphrased}) == 60
    assert len({row[0] for row in chinese}) == 100
    for hexcode in [row[1] for row in paraphrased]:  # training has seen what they mean, if not how they say it
        family = hexcode
        assert hexcode in PROTECTED or not concept_held_out(family, HoldoutConfig())
    for sentence, twin, *_ in chinese:
        assert any("一" <= letter <= "鿿" for letter in sentence)
        assert twin.isascii()


def test_no_caption_says_a_paraphrase(world):
    said = "\n".join(EmojiSet(world).iter_captions(500, np.random.default_rng(0))).lower()
    words = spoken_words(world)
    for prompt in paraphrases(world):
        assert prompt.prompt.lower() not in said
        assert prompt.prompt.lower() not in words
    for prompt, _, name in _written("paraphrases.json"):
        assert name.lower() not in prompt.lower()
    assert len(chinese_twins(world)) > 15


def _protected():
    from opendalle.data.emoji.build import protected_hexcodes

    return protected_hexcodes()


PROTECTED = _protected()
