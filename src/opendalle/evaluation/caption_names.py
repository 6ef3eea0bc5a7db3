"""Names in captions: is a lone thing called what it is, something vaguer, or something else?

The third weakness that the paper tells of its captioner is here: a plant or a bird is called a kind that it is not,
where the words that came with the picture knew better.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, section 5.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from opendalle.data.emoji.lexicon import Lexicon
from opendalle.evaluation.caption_reading import ClaimReader, spelled
from opendalle.evaluation.metrics import wilson
from opendalle.evaluation.score import Score, score_of

FLOOR = 0.60  # of captions of held-out pictures that hold the name or a listed synonym
ANSWERS = ("right", "vaguer", "wrong", "none")


class NameMarker:
    """Says how captions call lone things of one world.

    Args:
        lexicon: its words.  Listed synonyms are search words that no other family of concepts has.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        synonyms = {key: lexicon.synonyms(key) for key in lexicon.keys}
        self._plain, self._reader = ClaimReader(lexicon), ClaimReader(lexicon, synonyms)

    def is_named(self, caption: str, keys: Sequence[str]) -> bool:
        """Whether a caption holds one of the names themselves.

        Args:
            caption: of a lone thing.
            keys: that count as right.
        """
        return any(one.of(keys) for one in self._plain.read(caption).mentions)

    def answer(self, caption: str, keys: Sequence[str]) -> str:
        """Return what a caption calls a thing: one of ANSWERS.

        Args:
            caption: of a lone thing.
            keys: that count as right, the first before all.

        Returns:
            `right`: a name or a listed synonym; `vaguer`: only its kind, a part of its name, or a search word that it
            shares with others; `wrong`: another thing, and nothing that is true of it; `none`: no thing at all.
        """
        said = self._reader.read(caption)
        if any(one.of(keys) for one in said.mentions):
            return "right"
        if any(one.phrase in self._vaguer(keys[0]) for one in said.mentions):
            return "vaguer"
        if any(f" {word} " in said.text for word in self._shared(keys[0])):
            return "vaguer"
        return "wrong" if said.mentions else "none"

    def _vaguer(self, key: str) -> set[str]:
        """Return phrases that are less than a name of a concept: its kind, and what its names are made of."""
        category = self._lexicon.category(key)
        parts = {spelled(word) for word in category} if category else set[str]()
        for name in (*self._lexicon.names(key, "en"), *self._lexicon.names(key, "zh")):
            words = spelled(name).split()
            parts |= {
                " ".join(words[start:stop])
                for start in range(len(words))
                for stop in range(start + 1, len(words) + 1)
                if stop - start < len(words)
            }
        return parts

    def _shared(self, key: str) -> list[str]:
        words = (*self._lexicon.keywords(key, "en"), *self._lexicon.keywords(key, "zh"))
        return [spelled(word) for word in words if spelled(word)]


def name_scores(
    prefix: str, captions: Sequence[str], keys: Sequence[Sequence[str]], marker: NameMarker, *, floor: float | None
) -> Iterator[Score]:
    """Score captions of lone things.

    Args:
        prefix: of the scores' names.
        captions: one a picture.
        keys: of each picture, the concepts that count as right.
        marker: of their world.
        floor: for the share that holds a name or a listed synonym.
    """
    answers = [marker.answer(text, right) for text, right in zip(captions, keys, strict=True)]
    count: Mapping[str, int] = Counter(answers)
    yield score_of(
        f"{prefix}/named", wilson(count["right"], len(answers)), floor=floor, note="the name or a listed synonym"
    )
    plain = sum(marker.is_named(text, right) for text, right in zip(captions, keys, strict=True))
    yield score_of(f"{prefix}/named-plainly", wilson(plain, len(answers)), note="the name alone")
    elsewhere = [*captions[1:], *captions[:1]]
    chance = sum(marker.answer(text, right) == "right" for text, right in zip(elsewhere, keys, strict=True))
    yield score_of(f"{prefix}/named-of-others", wilson(chance, len(answers)), note="captions of other pictures")
    notes = ("its kind, or part of its name", "another thing's name, and nothing true", "no thing's name")
    for answer, note in zip(ANSWERS[1:], notes, strict=True):
        yield score_of(f"{prefix}/{answer}", wilson(count[answer], len(answers)), note=note)
