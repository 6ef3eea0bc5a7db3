"""What is asked in an examination: prompts with what would be a right answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from opendalle.base.errors import require
from opendalle.data.emoji.truth import Truth


@dataclass(frozen=True, kw_only=True)
class Question:
    """One prompt and what a right picture shows."""

    prompt: str
    keys: tuple[str, ...] = ()  # concepts that count as right, the asked one first
    style: str | None = None  # asked style; None: any
    truth: Truth | None = None  # of a scene, or of a thing on a background
    twin: str | None = None  # the same question in English, for a prompt in Chinese


@dataclass(frozen=True, kw_only=True)
class Paper:
    """All questions of an examination, by protocol.  An empty protocol is left out of the report."""

    seen: Sequence[Question] = ()  # names and styles that training has shown
    cells: Sequence[Question] = ()  # (concept, style) cells that it has not
    chinese: Sequence[Question] = ()  # Chinese sentences, each with its English twin
    paraphrases: Sequence[Question] = ()  # words that no caption contains
    scenes: Sequence[Question] = ()  # combinations that training may have shown
    new_scenes: Sequence[Question] = ()  # combinations held out from it

    def __post_init__(self) -> None:
        for question in (*self.seen, *self.cells, *self.chinese, *self.paraphrases):
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
        )
