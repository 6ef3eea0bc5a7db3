"""Sets whose captions are written anew: opened for a captioner to write, and for recipes to learn from.

pictures = open_blended(data, size, captions=data / "captions")  # a PictureSet like any other
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from opendalle.base.errors import BadData, require
from opendalle.base.protocols import WritesCaptions
from opendalle.checkpoint.configs import to_plain
from opendalle.dalle3.recaption import RecaptionStep, WritingConfig, recaption
from opendalle.data.blending import BlendedSet, BlendingConfig
from opendalle.data.caption_shelf import CaptionShelf, Shard, ShelfConfig, ShelfWriter, about_shelf
from opendalle.data.emoji.dataset import EmojiSet
from opendalle.data.emoji.oracle import Oracle
from opendalle.data.fixed import FixedSet
from opendalle.data.folder import FolderSet, FolderSetConfig
from opendalle.data.sets import NamedSet, PictureSet
from opendalle.recipes.data import is_world, open_set

ORACLE = "oracle"  # instead of a shelf: the world's own voices, from the truth of each picture


def open_named(
    data: Path,
    size: int,
    *,
    count: int | None = None,
    seed: int = 0,
    scenes: float | None = None,
    styles: str | None = None,
    crop: str = "whole",
) -> NamedSet:
    """Open a set that stands still, so that captions can be written about it.

    Args:
        data: a folder of pictures, which may lack captions, or an emoji world, of which draws are taken.
        size: side of the pictures, in pixels.
        count: draws of a world; None: as many as it has drawings.
        seed: of the draws.
        scenes: as `open_set`.
        styles: as `open_set`.
        crop: of a folder's pictures.

    Raises:
        BadConfig: when draws are asked of a folder, which has none.
        BadData: when it is neither.
    """
    if is_world(data):
        pictures = open_set(data, size, scenes, styles)
        assert isinstance(pictures, EmojiSet)
        return FixedSet(pictures, count=len(pictures) if count is None else count, seed=seed, stamp=pictures.stamp)
    require(count is None, f"{count} draws of {data}, a folder of pictures", "no number: all are taken, each once")
    return FolderSet(data, FolderSetConfig(size=size, crop=crop, bare=True))


def open_blended(
    data: Path,
    size: int,
    *,
    captions: Path | str,
    blending: BlendingConfig | None = None,
    scenes: float | None = None,
    styles: str | None = None,
) -> PictureSet:
    """Open a set with other captions in the place of most of its own.

    Args:
        data: a folder of pictures, or an emoji world.
        size: side of the pictures, in pixels.
        captions: the shelf that `opendalle data caption` wrote of it, which also says which draws of a world they are
            of; or `oracle`.
        blending: how often they are taken, and which; None: as the paper.
        scenes: as `open_set`; asked of the oracle only, for a shelf has its own.
        styles: as `scenes`.

    Raises:
        BadConfig: when the shelf has no captions of the kinds that are asked for.
        BadData: when the shelf is of another set, not finished or damaged, or nobody knows the truth of a set.
    """
    if captions == ORACLE:
        pictures = open_set(data, size, scenes, styles)
        if not isinstance(pictures, EmojiSet):
            raise BadData(f"the oracle's captions of {data}", "an emoji world, whose truth is known")
        return BlendedSet(pictures, Oracle(pictures.lexicon), blending)
    draws = draws_of(about_shelf(Path(captions)))
    named = open_named(data, size, crop="random", **draws)
    return BlendedSet(named, CaptionShelf(Path(captions), named), blending)


def draws_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return which draws of a world a shelf tells of: arguments of `open_named`; none of a folder.

    Args:
        about: what a shelf says of itself.

    Raises:
        BadData: when it says something else there.
    """
    draws = about["writer"].get("draws", {})
    if not isinstance(draws, dict) or set(draws) - {"count", "seed", "scenes", "styles"}:
        raise BadData(f"a shelf of draws {draws!r}", "count, seed, scenes and styles")
    return draws


class Recaptioning:
    """The captions of a set in the making: the set, its shelf, and who writes.

    Args:
        data: a folder of pictures, or an emoji world.
        folder: of the shelf; new, or one that the same captioner and settings began.
        captioner: who writes.
        who: its name and sha256.
        voices: what is written of every picture.
        writing: how.
        draws: of a world, as `open_named` takes them: count, seed, scenes, styles.

    Raises:
        BadConfig: when draws are asked of a folder.
        BadData: when there is no such set, or another shelf lies there.
    """

    def __init__(
        self,
        data: Path,
        folder: Path,
        captioner: WritesCaptions,
        who: Mapping[str, str],
        *,
        voices: ShelfConfig,
        writing: WritingConfig,
        draws: Mapping[str, Any],
    ) -> None:
        asked = {
            name: value for name, value in draws.items() if value is not None and (name != "seed" or is_world(data))
        }
        if not is_world(data):
            require(not asked, f"{', '.join(asked)} asked of {data}, a folder of pictures", "an emoji world")
        self.pictures = open_named(data, captioner.picture_size, **asked)
        decoding = writing.decoding if writing.decoding is None else to_plain(writing.decoding)
        writer = {"captioner": dict(who), "seed": writing.seed, "decoding": decoding}
        if is_world(data):
            writer["draws"] = asked | {"count": len(self.pictures)}
        self.captioner, self.writing, self.folder = captioner, writing, folder
        self.shelf = ShelfWriter(folder, self.pictures, voices, writer)

    def steps(self, shard: Shard | None = None) -> Iterator[RecaptionStep]:
        """Write what is missing, of all or of one process's share; yields after every batch."""
        yield from recaption(self.pictures, self.captioner, self.shelf, config=self.writing, shard=shard)

    def report(self, report: Any) -> None:
        """Hand all captions to a report, a kind and a language at a time.

        Args:
            report: whose `add(prefix, texts, pictures)` is called; pictures come only where it `looks`.

        Raises:
            BadData: when the shelf is not finished.
        """
        shelf = CaptionShelf(self.folder, self.pictures)
        size = self.writing.batch
        for start in range(0, len(self.pictures), size):
            told: dict[str, list[tuple[int, str]]] = {}
            for index in range(start, min(start + size, len(self.pictures))):
                for line in shelf.lines(index):
                    told.setdefault(f"{line.language}/{line.kind}", []).append((index, line.text))
            seen = dict[int, Image.Image]()
            for index in {index for rows in told.values() for index, _ in rows} if report.looks else ():
                seen[index] = Image.fromarray(self.pictures.read(index, np.random.default_rng(index)).picture)
            for prefix, rows in told.items():
                report.add(prefix, [text for _, text in rows], [seen[index] for index, _ in rows if index in seen])
