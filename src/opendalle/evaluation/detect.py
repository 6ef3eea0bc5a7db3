"""Rule detectors for scenes: what stands where, in which colour, how often.

A joint embedding is nearly blind to who is left of whom and which of two things is red, so scenes are marked by
rules: background off the border, things by connected parts, names by the judge on each crop, colours by nearness in
CIELAB, relations by box centres.

Source: the scheme and the relation rule follow Ghosh et al., "GenEval", arXiv:2310.11513, section 3.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from opendalle.base.errors import BadData, require
from opendalle.evaluation import regions
from opendalle.evaluation.colours import colour_name, colour_shares
from opendalle.evaluation.judge import Judge

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of the picture's sides
RELATIONS = ("left", "right", "above", "below")
TRANSPARENT = "transparent"
_NEUTRAL = ("black", "white", "grey")


@dataclass(frozen=True, kw_only=True)
class DetectConfig:
    """The rules' numbers; shares are of the picture's side or area.

    Raises:
        BadConfig: when a value lies outside its range.
    """

    side: int = 128  # pixels a side on which things are told apart; crops are cut from the picture itself
    border: float = 0.04  # width of the frame that shows the background
    tolerance: float = 12.0  # CIELAB distance within which a pixel is background
    bridge: float = 0.008  # how far parts reach out before they are joined into one thing
    smallest: float = 0.006  # area of the smallest thing
    near: float = 0.05  # gap across which a fragment may still belong to a larger thing
    fragment: float = 0.35  # area of a fragment, as a share of the larger thing's
    margin: float = 0.12  # room around a thing in its crop, as a share of the thing's longer side
    surer: float = 0.1  # lead in probability that cutting a thing in two must bring
    confidence: float = 0.3  # least probability of a name
    abstain: float = 1.0  # least lead of a colour word over the next, in CIELAB units

    def __post_init__(self) -> None:
        require(self.side >= 16, f"side is {self.side}", "at least 16 pixels")
        for name in ("border", "bridge", "smallest", "near", "fragment", "margin", "surer", "confidence"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is {value}", "a share from 0 to 1")
        require(self.tolerance > 0 and self.abstain >= 0, f"tolerance {self.tolerance}", "above 0")


@dataclass(frozen=True)
class Found:
    """One thing on the picture."""

    box: Box
    area: float  # share of the picture that it covers
    probabilities: Mapping[str, float]  # concept -> probability among the vocabulary and `none`, likeliest first
    colours: Mapping[str, float]  # colour word -> share of its pixels, largest first

    @property
    def name(self) -> str:
        """The likeliest concept."""
        return next(iter(self.probabilities))

    @property
    def confidence(self) -> float:
        """Probability of the likeliest concept."""
        return next(iter(self.probabilities.values()))

    def has_colour(self, colour: str) -> bool:
        """Whether people would call the thing this colour: its commonest colour, outlines and glints aside.

        Args:
            colour: one of the eleven basic words.
        """
        hued = {name: share for name, share in self.colours.items() if name not in _NEUTRAL}
        if colour in _NEUTRAL:
            return next(iter(self.colours), None) == colour
        return next(iter(hued), None) == colour and hued[colour] >= 0.15


@dataclass(frozen=True)
class Detection:
    """Everything found on one picture."""

    background: str | None  # colour word, "transparent", or None when the border has no name
    plain: float  # share of the border that is background
    things: tuple[Found, ...]  # the surest first

    def count(self, concept: str) -> int:
        """How many things bear this name."""
        return sum(thing.name == concept for thing in self.things)


def detect(
    picture: Image.Image, judge: Judge, vocabulary: Sequence[str] | None = None, config: DetectConfig | None = None
) -> Detection:
    """Find the things on a picture.

    Args:
        picture: RGB or RGBA, of any size.
        judge: names the crops.
        vocabulary: concepts that may occur; probabilities are over these and `none`.  None: everything the judge knows.
        config: the rules' numbers.

    Raises:
        BadData: when the judge does not know a concept of the vocabulary.
    """
    config = config or DetectConfig()
    full = np.asarray(picture.convert("RGBA"))
    small = np.asarray(picture.convert("RGBA").resize((config.side, config.side), Image.Resampling.BOX))
    behind = regions.backdrop(small, max(1, round(config.border * config.side)), config.tolerance)
    background = TRANSPARENT if behind.rgb is None else colour_name(behind.rgb, 0.0)
    eye = _Eye(full, behind, judge, _columns(judge, vocabulary), config)
    front = regions.foreground(small, behind, config.tolerance)
    smallest = max(2, round(config.smallest * config.side**2))
    things = _settle(regions.parts(front, round(config.bridge * config.side), smallest), eye, smallest)
    found = [_found(thing, chance, small, eye) for thing, chance in zip(things, eye.name(things), strict=True)]
    found.sort(key=lambda one: -one.confidence)
    return Detection(background, behind.share, tuple(found))


def _columns(judge: Judge, vocabulary: Sequence[str] | None) -> list[int]:
    index_of = {concept: index for index, concept in enumerate(judge.config.concepts)}
    wanted = judge.config.concepts if vocabulary is None else tuple(vocabulary)
    unknown = [concept for concept in wanted if concept not in index_of]
    if unknown:
        raise BadData(f"a vocabulary with {unknown[0]!r}", "concepts that the judge knows")
    return [index_of[concept] for concept in wanted]


@dataclass(frozen=True)
class _Eye:
    """The judge looking at parts of one picture."""

    full: UInt8[np.ndarray, "h w 4"]  # the picture itself; masks are of `config.side`
    behind: regions.Backdrop
    judge: Judge
    columns: list[int]  # of the vocabulary
    config: DetectConfig

    def name(self, things: Sequence[regions.BinaryMask]) -> Float[np.ndarray, "n v"]:
        """Return probabilities over the vocabulary for a crop of each thing, alone on the picture's background.

        A crop of half a thing, or of two, may look like `none`; that class takes its share of the probability.
        """
        if not things:
            return np.zeros((0, len(self.columns)))
        crops = torch.stack([self.crop(thing) for thing in things])
        with_none = [*self.columns, len(self.judge.config.concepts)]
        return self.judge.look(crops).concept[:, with_none].softmax(dim=1)[:, :-1].numpy()

    def sure(self, things: Sequence[regions.BinaryMask]) -> Float[np.ndarray, " n"]:
        """Return the probability of each thing's likeliest name."""
        return self.name(things).max(axis=1, initial=0.0)

    def crop(self, thing: regions.BinaryMask) -> Float[Tensor, "3 s s"]:
        """Cut one thing out of the full picture, square, with a margin; other things are painted over."""
        height, width = self.full.shape[:2]
        reach = regions.grow(thing, 2)  # keep the soft rim
        own = np.asarray(Image.fromarray(reach).resize((width, height), Image.Resampling.NEAREST))
        alpha = np.where(own, self.full[..., 3], 0).astype(np.uint8)
        alone = Image.fromarray(np.dstack([self.full[..., :3], alpha]))
        left, top, right, bottom = regions.box_of(thing)
        across, down = width / self.config.side, height / self.config.side
        side = max((right - left) * across, (bottom - top) * down) * (1 + 2 * self.config.margin)
        x, y = round((left + right) / 2 * across - side / 2), round((top + bottom) / 2 * down - side / 2)
        piece = alone.crop((x, y, x + max(2, round(side)), y + max(2, round(side))))  # beyond the frame: transparent
        canvas = Image.new("RGB", piece.size, self.behind.rgb or (255, 255, 255))
        canvas.paste(piece.convert("RGB"), mask=piece.getchannel("A"))
        size = self.judge.config.size
        resized = canvas.resize((size, size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 127.5 - 1


def _settle(things: Sequence[regions.BinaryMask], eye: _Eye, smallest: int) -> list[regions.BinaryMask]:
    """Cut things that are two and join fragments, where the judge is surer of the outcome."""
    settled: list[regions.BinaryMask] = []
    for thing, whole in zip(things, eye.sure(things), strict=True):
        pieces = regions.split_at_waist(thing, smallest)
        better = len(pieces) > 1 and eye.sure(pieces).mean() > whole + eye.config.surer
        settled += pieces if better else [thing]
    settled.sort(key=lambda mask: -int(mask.sum()))
    kept: list[regions.BinaryMask] = []
    for thing in settled:
        host = _host(thing, kept, eye.config)
        if host is not None:
            alone, together = eye.sure([kept[host], kept[host] | thing])
            if together >= alone:
                kept[host] = kept[host] | thing
                continue
        kept.append(thing)
    return kept


def _host(thing: regions.BinaryMask, larger: Sequence[regions.BinaryMask], config: DetectConfig) -> int | None:
    """Return the nearest larger thing that this one could be a fragment of."""
    box = regions.box_of(thing)
    gaps = [
        (regions.gap(box, regions.box_of(other)), index)
        for index, other in enumerate(larger)
        if thing.sum() <= config.fragment * other.sum()
    ]
    nearest = min(gaps, default=(np.inf, -1))
    return nearest[1] if nearest[0] <= config.near * config.side else None


def _found(
    thing: regions.BinaryMask, chance: Float[np.ndarray, " v"], small: UInt8[np.ndarray, "h w 4"], eye: _Eye
) -> Found:
    side = eye.config.side
    left, top, right, bottom = regions.box_of(thing)
    core = regions.depth(thing) > 1  # the rim is mixed with the background
    pixels = small[..., :3][core if core.sum() >= 8 else thing]
    order = np.argsort(-chance, kind="stable")[:10]
    return Found(
        box=(left / side, top / side, right / side, bottom / side),
        area=float(thing.mean()),
        probabilities={eye.judge.config.concepts[eye.columns[index]]: float(chance[index]) for index in order},
        colours=colour_shares(pixels, eye.config.abstain),
    )


def relations(first: Found, second: Found, slack: float = 0.1) -> frozenset[str]:
    """Say how the first thing lies to the second: none, one or two of RELATIONS.

    The offset of the box centres is shortened by a share of both sizes, so that overlapping things have no relation;
    a direction holds when what is left makes more than half of the offset.

    Args:
        first: the thing that lies somewhere.
        second: the thing it is compared with.
        slack: share of the summed widths (heights) taken off the offset.

    Source: GenEval, arXiv:2310.11513, section 3.2 (position).
    """
    boxes = np.array([first.box, second.box])  # (2, 4)
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    offset = centres[0] - centres[1]
    left_over = np.maximum(np.abs(offset) - slack * sizes.sum(axis=0), 0) * np.sign(offset)
    if np.all(np.abs(left_over) < 1e-3):
        return frozenset()
    across, down = left_over / np.linalg.norm(offset)
    holds = {"left": across < -0.5, "right": across > 0.5, "above": down < -0.5, "below": down > 0.5}
    return frozenset(name for name in RELATIONS if holds[name])


def match(detection: Detection, concepts: Sequence[str], confidence: float = 0.3) -> tuple[Found | None, ...]:
    """Give each wanted concept a thing of its own that bears its name, the surest first; None where there is none.

    Args:
        detection: what was found.
        concepts: what was asked for, repetitions included.
        confidence: least probability of the name.
    """
    free = [thing for thing in detection.things if thing.confidence >= confidence]
    matched: list[Found | None] = []
    for concept in concepts:
        own = next((thing for thing in free if thing.name == concept), None)
        if own is not None:
            free.remove(own)
        matched.append(own)
    return tuple(matched)
