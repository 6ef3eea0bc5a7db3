"""What the judge learns from: every drawing of the emoji world, simple shapes, and everyday things in any paint.

The judge is an examiner, so nothing is held out from it: it must know the cells and concepts that generators never
saw.  Its order is its own, drawn from its own seed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from opendalle.base.errors import require
from opendalle.data.emoji.build import shrink
from opendalle.data.emoji.colours import COLOUR_NAMES
from opendalle.data.emoji.lexicon import everyday_nouns
from opendalle.data.emoji.painting import SHAPES, draw_shape, repaint
from opendalle.data.emoji.scenes import Box
from opendalle.data.emoji.world import World
from opendalle.data.order import SampleOrder
from opendalle.evaluation.detect import DetectConfig
from opendalle.evaluation.judge_objective import JudgeBatch

Reconstruct = Callable[[Float[Tensor, "b 4 h w"]], Float[Tensor, "b 4 h w"]]
SMALL_SIDES = (20, 24, 28, 32, 40)  # of a small thing on a picture of 64 pixels
MARGIN = DetectConfig.margin  # round a small thing when it is cut out, as a share of its side: as detectors will


def judge_concepts(world: World) -> tuple[str, ...]:
    """Return the classes of a judge of this world: every concept's key, then the simple shapes."""
    return (*(concept.hexcode for concept in world.concepts), *SHAPES)


def scene_vocabulary(world: World) -> tuple[str, ...]:
    """Return the concepts that scenes are composed of: the detectors' choices for a crop."""
    return (*(key for key in everyday_nouns() if key in world.concept_of), *SHAPES)


def premultiplied(pictures: UInt8[np.ndarray, "b h w 4"]) -> Float[Tensor, "b 4 h w"]:
    """Turn straight-alpha bytes into premultiplied numbers in [-1, 1]."""
    values = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return torch.cat([values[:, :3] * values[:, 3:], values[:, 3:]], dim=1) * 2 - 1


def cut_out(pictures: Float[Tensor, "b 4 h w"], boxes: Sequence[Box]) -> Float[Tensor, "b 4 h w"]:
    """Cut things out with a margin and bring them to the pictures' size; what fills its picture stays as it is.

    Args:
        pictures: premultiplied RGBA in [-1, 1], square.
        boxes: one a picture, in pixels.
    """
    size, rows = pictures.shape[-1], []
    for picture, (x, y, side) in zip(pictures, boxes, strict=True):
        if side == size:
            rows.append(picture)
            continue
        margin = round(MARGIN * side)
        around = F.pad(picture, (margin, margin, margin, margin), value=-1.0)  # beyond the frame all is transparent
        piece = around[None, :, y : y + side + 2 * margin, x : x + side + 2 * margin]
        rows.append(F.interpolate(piece, (size, size), mode="bicubic", align_corners=False)[0].clamp(-1, 1))
    return torch.stack(rows)


@dataclass(frozen=True, kw_only=True)
class JudgeBatchesConfig:
    """How the judge's batches are drawn.

    Raises:
        BadConfig: when a value lies outside its range.
    """

    batch: int = 64  # pictures a batch
    size: int = 64  # side in pixels, 64 or 256
    seed: int = 40_417  # of the order and the paint; no generator's recipe uses it
    num_painted: int = 8  # draws of each paintable everyday thing an epoch in other paint, beside the one in its own
    small: float = 0.3  # share of pictures that are a small part of a picture, cut out and enlarged, as in scenes
    num_shapes: int = 40  # draws of each simple shape an epoch; colours and styles are drawn afresh

    def __post_init__(self) -> None:
        require(self.batch >= 1, f"batch is {self.batch}", "at least 1")
        require(self.size in (64, 256), f"size is {self.size}", "64 or 256, the sizes of the world's drawings")
        require(0 <= self.small <= 1, f"small is {self.small}", "a share from 0 to 1")
        require(self.num_painted >= 0, f"num_painted is {self.num_painted}", "0 or more")
        require(self.num_shapes >= 0, f"num_shapes is {self.num_shapes}", "0 or more")


class JudgeBatches:
    """An endless, repeatable stream of judge batches.

    Args:
        world: an open world folder.
        config: sizes and shares.
        reconstruct: a codec's encode-then-decode on premultiplied pictures in [-1, 1], run without a graph on every
            batch.  None: artwork only.
        styles: the judge's styles, in class order; None: the world's.
    """

    def __init__(
        self,
        world: World,
        config: JudgeBatchesConfig | None = None,
        reconstruct: Reconstruct | None = None,
        styles: Sequence[str] | None = None,
    ) -> None:
        self.world, self.config, self.reconstruct = world, config or JudgeBatchesConfig(), reconstruct
        self.styles = tuple(styles or world.styles)
        self.concepts = judge_concepts(world)
        paintable = {key for key, noun in everyday_nouns().items() if noun.paintable}
        cells = [(index, style) for index, concept in enumerate(world.concepts) for style in concept.rows]
        first_shape = len(world.concepts)
        shapes = [
            (first_shape + index, "", True) for index in range(len(SHAPES)) for _ in range(self.config.num_shapes)
        ]
        drawn = [(index, style, False) for index, style in cells if style in self.styles]
        painted = [(index, style, True) for index, style, _ in drawn if self.concepts[index] in paintable]
        self._cells = drawn + painted * self.config.num_painted + shapes  # class, style (any: ""), in other paint
        self._order = SampleOrder(len(self._cells), self.config.seed)

    def __len__(self) -> int:
        """Return the batches of one epoch, the last one whole."""
        return -(-len(self._cells) // self.config.batch)

    def __call__(self, position: int) -> Iterator[JudgeBatch]:
        """Yield batches without end, as the training loop asks for them.

        Args:
            position: batches before the first one wanted, counted from the run's beginning.
        """
        while True:
            yield self.read(position)
            position += 1

    def read(self, position: int) -> JudgeBatch:
        """Return the batch at `position`, counted from the run's beginning."""
        first = position * self.config.batch
        drawn, boxes, concepts, styles = zip(
            *(self._example(first + row) for row in range(self.config.batch)), strict=True
        )
        pictures = premultiplied(np.stack(drawn))
        reconstructions = None
        if self.reconstruct is not None:
            with torch.no_grad():
                reconstructions = cut_out(self.reconstruct(pictures).clamp(-1, 1), boxes)
        return JudgeBatch(
            pictures=cut_out(pictures, boxes),
            concept=torch.tensor(concepts),
            style=torch.tensor([self.styles.index(name) for name in styles]),
            reconstructions=reconstructions,
        )

    def _example(self, position: int) -> tuple[UInt8[np.ndarray, "s s 4"], Box, int, str]:
        rng = self._order.generator(position)
        picture, index, style = self._picture(position, rng)
        return *self._placed(picture, rng), index, style

    def _placed(
        self, picture: UInt8[np.ndarray, "s s 4"], rng: np.random.Generator
    ) -> tuple[UInt8[np.ndarray, "s s 4"], Box]:
        """Put a share of the drawings, shrunk, somewhere on an empty picture; tell where."""
        size = self.config.size
        if rng.random() >= self.config.small:
            return picture, (0, 0, size)
        side = SMALL_SIDES[int(rng.integers(len(SMALL_SIDES)))] * size // 64
        x, y = (int(start) for start in rng.integers(0, size - side + 1, 2))
        whole = np.zeros_like(picture)
        whole[y : y + side, x : x + side] = shrink(picture, side)
        return whole, (x, y, side)

    def _picture(self, position: int, rng: np.random.Generator) -> tuple[UInt8[np.ndarray, "s s 4"], int, str]:
        index, style, is_painted = self._cells[self._order.place(position).index]
        key = self.concepts[index]
        if not style:
            style = self.styles[int(rng.integers(len(self.styles)))]
            colour = COLOUR_NAMES[int(rng.integers(len(COLOUR_NAMES)))]
            return draw_shape(key, colour, style, self.config.size), index, style
        picture = self.world.sprite(key, style, self.config.size)
        if is_painted:
            picture = repaint(picture, COLOUR_NAMES[int(rng.integers(len(COLOUR_NAMES)))])
        return picture, index, style
