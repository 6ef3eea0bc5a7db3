"""Captions by one who knows: what the best of captioners would write of the emoji world, as a ceiling for real ones."""

import numpy as np

from opendalle.data.emoji.descriptions import description, subject
from opendalle.data.emoji.lexicon import Lexicon
from opendalle.data.emoji.truth import truth_of_record
from opendalle.data.sets import Example


class Oracle:
    """A source of blended captions, made from the truth of each picture: what captioners are taught to write.

    Args:
        lexicon: the words of the world.
    """

    kinds = ("short", "descriptive")
    languages = ("en", "zh")

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def caption(self, index: int, example: Example, kind: str, language: str, rng: np.random.Generator) -> str | None:
        """Return what is true of an example, in words; None where nobody knows what is.

        Args:
            index: not looked at.
            example: with its truth.
            kind: one of `kinds`.
            language: one of `languages`.
            rng: all chance comes from it.
        """
        if example.truth is None:
            return None
        write = subject if kind == "short" else description
        return write(truth_of_record(example.truth), self._lexicon, language, rng)
