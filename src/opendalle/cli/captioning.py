"""What the verbs that caption share: the captioner, and the report on what was written."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from opendalle.evaluation.score import Score

CAPTIONER = "captioner"  # the bundled one
AT_ONCE = 64  # pictures that CLIP compares with their captions together


def open_captioner(model: str) -> tuple[Any, dict[str, str]]:
    """Load a captioner; torch enters here.

    Args:
        model: a bundled name, or a folder.

    Returns:
        The captioner, and which one it is: name and sha256.
    """
    from opendalle import pretrained
    from opendalle.checkpoint.folder import read_model

    captioner = pretrained.load_captioner(model)
    return captioner, read_model(pretrained.find_model(model)).reference


class Report:
    """Statistics of captions, with CLIP's opinion where one is asked for.

    Args:
        clip: a bundled CLIP, or a model folder; None: no opinion.
    """

    def __init__(self, clip: str | None) -> None:
        self._texts: dict[str, list[str]] = {}
        self._similar: dict[str, list[float]] = {}
        self._clip: tuple[Any, Any] | None = None
        if clip is not None:
            self._clip = _open_clip(clip)

    @property
    def looks(self) -> bool:
        """Whether it wants to see the pictures."""
        return self._clip is not None

    def add(self, prefix: str, texts: Sequence[str], pictures: "Sequence[Image]" = ()) -> None:
        """Take captions in.

        Args:
            prefix: which of several reports they belong to.
            texts: the captions.
            pictures: one a caption, where it `looks`.
        """
        from opendalle.evaluation.caption_statistics import clip_similarities

        self._texts.setdefault(prefix, []).extend(texts)
        if self._clip is not None:
            for start in range(0, len(texts), AT_ONCE):
                some = slice(start, start + AT_ONCE)
                similar = clip_similarities(pictures[some], texts[some], *self._clip)
                self._similar.setdefault(prefix, []).extend(similar.tolist())

    def scores(self) -> "Iterator[Score]":
        """Yield what is to be told of all captions."""
        import numpy as np

        from opendalle.evaluation.caption_statistics import clip_score, statistics

        for prefix, texts in self._texts.items():
            yield from statistics(texts, prefix)
            if prefix in self._similar:
                yield clip_score(np.array(self._similar[prefix]), prefix)


def plain(score: "Score") -> Mapping[str, Any]:
    """Return a score as plain data; numbers that are not numbers are null."""
    return {
        name: None if isinstance(value, float) and value != value else value
        for name, value in vars(score).items()
        if name in ("name", "value", "low", "high", "n", "note")
    }


def _open_clip(name: str) -> tuple[Any, Any]:
    from opendalle import pretrained
    from opendalle.base.errors import BadModel
    from opendalle.checkpoint.folder import read_model
    from opendalle.clip.model import CLIP
    from opendalle.pretrained.kinds import load_tokenizer

    clip = pretrained.load(name)
    if not isinstance(clip, CLIP):
        raise BadModel(f"--clip {name}, a {type(clip).__name__}", "a CLIP")
    return clip, load_tokenizer(read_model(pretrained.find_model(name)))
