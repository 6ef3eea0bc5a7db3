"""Captions by one who knows: what the best of captioners would write of the emoji world, as a ceiling for real ones."""

from collections.abc import Mapping

import numpy as np

from opendalle.data.emoji.captions import CaptionConfig, write_caption
from opendalle.data.emoji.lexicon import Lexicon
from opendalle.data.emoji.truth import truth_of_record
from opendalle.data.sets import Example


class Oracle:
    """A source of blended captions that are the world's own voices, made from the truth of each picture.

    Args:
        lexicon: the words of the world.
    """

    kinds = ("short", "descriptive")
    languages = ("en", "zh")

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._voices: Mapping[tuple[str, str], CaptionConfig] = {
            (kind, language): CaptionConfig(
                voices={kind: 1.0},
                languages={language: 1.0},
                style_named=1.0 if kind == "descriptive" else 0.5,
                transparent_named=0.2,
            )
            for kind in self.kinds
            for language in self.languages
        }

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
        return write_caption(truth_of_record(example.truth), self._lexicon, self._voices[kind, language], rng)
