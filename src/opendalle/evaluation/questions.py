"""The examination paper: which questions every protocol asks."""

from collections.abc import Sequence
from dataclasses import dataclass

from opendalle.base.errors import require
from opendalle.data.emoji import prompts
from opendalle.data.emoji.prompts import Prompt
from opendalle.data.emoji.world import World


@dataclass(frozen=True, kw_only=True)
class Paper:
    """All questions of an examination, by protocol.  An empty protocol is left out of the report."""

    seen: Sequence[Prompt] = ()  # names and styles that training has shown
    cells: Sequence[Prompt] = ()  # (concept, style) cells that it has not
    chinese: Sequence[Prompt] = ()  # Chinese sentences, each with its English twin
    paraphrases: Sequence[Prompt] = ()  # words that no caption contains
    scenes: Sequence[Prompt] = ()  # combinations that training may have shown
    new_scenes: Sequence[Prompt] = ()  # combinations held out from it
    choices: Sequence[Prompt] = ()  # cells whose true pictures a model of likelihoods is shown

    def __post_init__(self) -> None:
        for question in (*self.seen, *self.cells, *self.chinese, *self.paraphrases, *self.choices):
            require(len(question.keys) > 0, f"the question {question.prompt!r} without concepts", "at least one")
        for question in self.cells:
            require(question.style is not None, f"the cell {question.prompt!r} without a style", "a style")
        for question in self.chinese:
            require(question.twin is not None, f"the sentence {question.prompt!r} without a twin", "an English twin")
        for question in (*self.scenes, *self.new_scenes):
            require(question.truth is not None, f"the scene {question.prompt!r} without a truth", "a truth")

    def first(self, num: int) -> "Paper":
        """Return the paper with the first `num` questions of every protocol: a quick look, still unchosen."""
        return Paper(
            seen=self.seen[:num],
            cells=self.cells[:num],
            chinese=self.chinese[:num],
            paraphrases=self.paraphrases[:num],
            scenes=self.scenes[:num],
            new_scenes=self.new_scenes[:num],
            choices=self.choices[:num],
        )


CHOICES = 100  # true pictures, at most: each is read once under every caption of its square


def emoji_paper(world: World, num: int = 300, num_scenes: int = 100) -> Paper:
    """Return the paper of the emoji world: its lists are fixed, and shorter ones are the beginnings of longer ones.

    Args:
        world: an open world folder.
        num: seen names and held-out cells, at most.
        num_scenes: scenes of each skill, and held-out ones of each skill that has any.
    """
    return Paper(
        seen=prompts.seen_names(world, num),
        cells=prompts.held_out_cells(world, num),
        chinese=prompts.chinese_twins(world),
        paraphrases=prompts.paraphrases(world),
        scenes=[one for skill in prompts.SKILLS for one in prompts.scene_prompts(world, skill, num_scenes)],
        new_scenes=[
            one
            for skill in prompts.COMBINED_SKILLS
            for one in prompts.scene_prompts(world, skill, num_scenes, held_out=True)
        ],
        choices=prompts.held_out_cells(world, min(num, CHOICES)),
    )
