"""What every prior is asked: single things that training never showed in this style, single things that it did, scenes.

Scenes are of combinations that training never showed, wherever a skill has such.  Each list is the beginning of any
longer one, and the skills of scenes take turns, so the first few are a fair part of the whole.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest

from PIL import Image

from opendalle.data.emoji import prompts
from opendalle.data.emoji.prompts import Prompt
from opendalle.data.emoji.world import World
from opendalle.evaluation import names, scenes

SINGLE = ("cells", "seen")  # groups of single things
SCENES = "scenes"
GROUPS = (*SINGLE, SCENES)
WORDS: Mapping[str, str] = {
    "cells": "single things in a style that training never showed them in",
    "seen": "single things in a style that training showed",
    "scenes": "scenes of two things",
}
SKILLS = ("objects", "relation", "binding")  # of scenes
SIZE = 64  # side of the pictures in pixels, drawn and true


def questions_of(world: World, num: int) -> dict[str, Sequence[Prompt]]:
    """Return the questions of every group.

    Args:
        world: an open world folder.
        num: of each group of single things, and of each skill of the scenes; fewer where the world has fewer.
    """
    by_skill = [prompts.scene_prompts(world, skill, num, held_out=skill in prompts.COMBINED_SKILLS) for skill in SKILLS]
    return {
        "cells": prompts.held_out_cells(world, num),
        "seen": prompts.seen_names(world, num),
        SCENES: in_turns(*by_skill),
    }


def in_turns(*lists: Sequence[Prompt]) -> list[Prompt]:
    """Take one of each list, then the next of each, until all are taken."""
    return [one for one in chain.from_iterable(zip_longest(*lists)) if one is not None]


def true_pictures(questions: Sequence[Prompt], world: World) -> list[Image.Image]:
    """Return the picture of each question: artwork of a single thing, a scene composed of artwork.

    Args:
        questions: of one group.
        world: the artwork.
    """
    if questions and questions[0].truth is not None:
        return scenes.truth_renders(scenes.truths_of(questions), world, SIZE)
    return names.real_pictures(questions, world, SIZE)
