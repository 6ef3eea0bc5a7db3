"""The emoji world as a picture set: lone drawings, drawings on plain colours, and scenes, each with a caption."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from opendalle.base.errors import BadData, require
from opendalle.data.buckets import Canvas
from opendalle.data.emoji.captions import CaptionConfig, write_caption
from opendalle.data.emoji.colours import COLOUR_NAMES
from opendalle.data.emoji.compose import Composer
from opendalle.data.emoji.draws import between, coin, pick, weighted
from opendalle.data.emoji.holdout import SPLITS
from opendalle.data.emoji.lexicon import Lexicon
from opendalle.data.emoji.scenes import SceneMaker
from opendalle.data.emoji.sources import STYLES
from opendalle.data.emoji.truth import GRID, KINDS, SCENE_KINDS, Thing, Truth, spread
from opendalle.data.emoji.world import Concept, World
from opendalle.data.sets import Example


def _singles_and_scenes() -> dict[str, float]:
    scenes = {"pair": 0.05, "relation": 0.10, "count": 0.07, "colour": 0.05, "colours": 0.07, "size": 0.03}
    words = {"sign": 0.015, "speech": 0.015}
    return {"single": 0.45, "plain": 0.15} | scenes | words


@dataclass(frozen=True, kw_only=True)
class EmojiSetConfig:
    """Which part of the world a set shows, and how."""

    split: str = "train"  # train: nothing held out; heldout-cells, heldout-concepts: only that; all
    size: int = 64  # side of the pictures in pixels: 64, 128 or 256
    styles: tuple[str, ...] = STYLES  # of drawings
    kinds: Mapping[str, float] = field(default_factory=_singles_and_scenes)  # kind of picture -> weight
    scene_background: float = 0.5  # share of scenes on a coloured background
    captions: CaptionConfig = field(default_factory=CaptionConfig)  # voices and languages

    def __post_init__(self) -> None:
        require(self.split in SPLITS, f"split {self.split!r}", "one of " + ", ".join(SPLITS))
        require(self.size in (64, 128, 256), f"size {self.size}", "64, 128 or 256")
        require(len(self.styles) > 0, "no styles", "at least one style")
        require(set(self.kinds) <= set(KINDS), f"kinds {sorted(self.kinds)}", "some of " + ", ".join(KINDS))
        require(
            sum(self.kinds.values()) > 0 and min(self.kinds.values()) >= 0,
            f"kinds {dict(self.kinds)}",
            "weights of at least 0, not all 0",
        )
        require(0.0 <= self.scene_background <= 1.0, f"scene_background={self.scene_background}", "a share from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One concept in one style."""

    concept: Concept
    style: str


class EmojiSet:
    """A picture set over a world folder.

    One epoch visits every (concept, style) cell of the split once.  A visit shows the cell itself, alone or on a plain
    colour, or invents a scene instead, by the weights of `kinds`.  In the held-out splits scenes are made of held-out
    combinations; in `all`, of any.

    Args:
        world: an open world folder, or where it lies.
        config: which part of it, and how.

    Raises:
        BadData: when the split has no cells in these styles.
    """

    def __init__(self, world: World | str, config: EmojiSetConfig | None = None) -> None:
        self.world = world if isinstance(world, World) else World(world)
        self.config = config or EmojiSetConfig()
        missing = set(self.config.styles) - set(self.world.styles)
        if missing:
            raise BadData(f"styles {sorted(missing)}", "some of " + ", ".join(self.world.styles))
        self.lexicon = Lexicon(self.world)
        self.cells = cells_of_split(self.world, self.config.split, self.config.styles)
        if not self.cells:
            raise BadData(f"no pictures of split {self.config.split!r}", "a split with pictures", "Choose more styles.")
        combinations = {"train": "seen", "all": "any"}.get(self.config.split, "heldout")
        self._scenes = SceneMaker(
            self.world,
            self.lexicon,
            styles=self.config.styles,
            combinations=combinations,
            with_background=self.config.scene_background,
        )
        self._composer = Composer(self.world, self.config.size)

    def __len__(self) -> int:
        """Return the number of (concept, style) cells of the split."""
        return len(self.cells)

    @property
    def stamp(self) -> str:
        """Hash of all that its pictures can show; how large they are drawn and what is said of them does not count."""
        shown = replace(self.config, size=64, captions=CaptionConfig())
        return hashlib.sha256(f"{self.world.stamp} {shown}".encode()).hexdigest()

    def read(self, index: int, rng: np.random.Generator) -> Example:
        """Return a picture with a caption and its truth.

        Args:
            index: of the cell, which scenes do not look at.
            rng: all chance comes from it.
        """
        return self._shown(self.truth(index, rng), rng)

    def members(self, canvases: Sequence[Canvas]) -> Sequence[Sequence[int]]:
        """Return for each canvas the cells that are shown in it: all, since pictures are made as they are wanted."""
        return [range(len(self.cells)) for _ in canvases]

    def read_on(self, canvas: Canvas, index: int, rng: np.random.Generator) -> Example:
        """Return a picture in another shape, its things spread over it; else as `read`.

        Args:
            canvas: its short side is the set's size.
            index: of the cell, which scenes do not look at.
            rng: all chance comes from it.

        Raises:
            BadConfig: when the canvas is of another size, or its long side none that things can be spread over.
        """
        size = self.config.size
        require(
            min(canvas.width, canvas.height) == size and canvas.width * GRID % size == canvas.height * GRID % size == 0,
            f"a canvas of {canvas.width}x{canvas.height}",
            f"a short side of {size} pixels and a long one of whole steps",
        )
        shape = (canvas.width * GRID // size, canvas.height * GRID // size)
        return self._shown(spread(self.truth(index, rng), *shape), rng)

    def _shown(self, truth: Truth, rng: np.random.Generator) -> Example:
        picture = self._composer.draw(truth, _tint(truth, rng))
        caption = write_caption(truth, self.lexicon, self.config.captions, rng)
        return Example(picture=picture, caption=caption, truth=truth.record())

    def truth(self, index: int, rng: np.random.Generator) -> Truth:
        """Decide what example `index` shows; the first draws of `read`."""
        kind = weighted(rng, self.config.kinds)
        if kind in SCENE_KINDS:
            return self._scenes.make(kind, rng)
        cell = self.cells[index]
        thing = Thing(key=cell.concept.hexcode, box=(0, 0, GRID))
        background = None
        if kind == "plain":
            background = "white" if coin(rng, 0.2) else pick(rng, COLOUR_NAMES)
        return Truth(kind=kind, style=cell.style, things=(thing,), background=background)

    def draw(self, truth: Truth) -> Example:
        """Draw a given truth, its background in the middle of its colour, without a caption."""
        return Example(picture=self._composer.draw(truth), caption="", truth=truth.record())

    def iter_captions(self, count: int, rng: np.random.Generator) -> Iterator[str]:
        """Yield captions alone, as an epoch in random order would have them: text for a tokenizer or a text tower.

        Args:
            count: how many.
            rng: all chance comes from it.
        """
        for _ in range(count):
            truth = self.truth(between(rng, 0, len(self.cells) - 1), rng)
            yield write_caption(truth, self.lexicon, self.config.captions, rng)


def cells_of_split(world: World, split: str, styles: tuple[str, ...]) -> tuple[Cell, ...]:
    """Return the (concept, style) cells of a split, in the world's order.

    Args:
        world: an open world folder.
        split: one of SPLITS.
        styles: the styles wanted.
    """

    def belongs(concept: Concept, style: str) -> bool:
        if split == "all":
            return True
        if split == "heldout-concepts":
            return concept.held_out
        return not concept.held_out and (style in concept.held_out_styles) == (split == "heldout-cells")

    return tuple(
        Cell(concept=concept, style=style)
        for concept in world.concepts
        for style in concept.rows
        if style in styles and belongs(concept, style)
    )


def _tint(truth: Truth, rng: np.random.Generator) -> tuple[int, int, int]:
    """Vary a background a little; white stays white, since people mean exactly that."""
    if truth.background is None or truth.background == "white":
        return 0, 0, 0
    return between(rng, -9, 9), between(rng, -9, 9), between(rng, -9, 9)
