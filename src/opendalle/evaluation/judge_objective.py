"""How the judge is taught: name the concept and the style of pictures that have been through the wash.

A judge that has only seen clean artwork marks a generator's softness as error.  So it learns from artwork on any
background, moved, scaled, softened, grained, compressed, and - when the batch carries them - from what a codec makes
of the artwork, since everything a latent generator draws has been through that codec.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from opendalle.base.errors import BadData, require
from opendalle.base.protocols import Losses
from opendalle.evaluation import spoiling
from opendalle.evaluation.judge import Judge

Spoiler = Callable[[Tensor, Generator, float], Tensor]  # pictures, chance, strength


@dataclass(frozen=True, kw_only=True)
class JudgeBatch:
    """What one step of training the judge needs."""

    pictures: Float[Tensor, "b 4 h w"]  # premultiplied RGBA in [-1, 1], at the judge's size
    concept: Int[Tensor, " b"]  # class of each picture, an index into JudgeConfig.concepts
    style: Int[Tensor, " b"]  # an index into JudgeConfig.styles
    reconstructions: Float[Tensor, "b 4 h w"] | None = None  # the same pictures after a codec, if there is one


@dataclass(frozen=True, kw_only=True)
class JudgeObjectiveConfig:
    """How hard the wash is.

    Raises:
        BadConfig: when a value lies outside its range.
    """

    label_smoothing: float = 0.1  # share of the target spread over all classes, 0 to 1
    style_weight: float = 0.5  # of the style's cross-entropy beside the concept's
    none_share: float = 0.05  # of each batch turned into pictures of nothing
    codec_share: float = 0.35  # of pictures replaced by their reconstruction, when the batch carries them
    scale: tuple[float, float] = (0.7, 1.15)  # size of the drawing, 1 as it came
    shift: float = 0.08  # largest move, as a share of the side
    soften_share: float = 0.35  # of pictures that lose detail; 0 for a judge of sharpness
    softest: float = 0.3  # smallest share of the side a picture is shrunk to: a 20 px object in a 64 px scene
    noise_share: float = 0.2  # of pictures that get grain
    noise: float = 0.15  # largest standard deviation of the grain, in units of [-1, 1]
    jpeg_share: float = 0.2  # of pictures that are compressed
    jpeg: float = 2.0  # worst multiple of JPEG's table; 2 is quality 25

    def __post_init__(self) -> None:
        for name in ("label_smoothing", "none_share", "codec_share", "soften_share", "noise_share", "jpeg_share"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is {value}", "0 to 1")
        require(self.style_weight >= 0, f"style_weight is {self.style_weight}", "0 or more")
        require(0 < self.scale[0] <= self.scale[1], f"scale is {self.scale}", "smallest, largest, above 0")
        require(0 <= self.shift <= 0.5, f"shift is {self.shift}", "0 to 0.5")
        require(0 < self.softest <= 1, f"softest is {self.softest}", "above 0, at most 1")
        require(self.noise >= 0 and self.jpeg > 0.1, f"noise {self.noise}, jpeg {self.jpeg}", ">= 0 and > 0.1")


def sharpness_wash() -> JudgeObjectiveConfig:
    """Preset for a judge at 256 px that has to tell a sharp picture from an enlarged one: it never sees soft ones."""
    return JudgeObjectiveConfig(soften_share=0.0, noise=0.04, jpeg=0.5, codec_share=0.0, scale=(0.85, 1.1))


class JudgeObjective:
    """Meeting point 2 for the judge: a JudgeBatch in, cross-entropies out.

    Args:
        judge: the network that learns.
        config: the wash.
    """

    def __init__(self, judge: Judge, config: JudgeObjectiveConfig | None = None) -> None:
        self.judge = judge
        self.config = config or JudgeObjectiveConfig()

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The judge is one parameter group."""
        return {"judge": self.judge}

    def __call__(self, batch: JudgeBatch, rng: Generator) -> Losses:
        """Wash the pictures, look at them, compare.

        Args:
            batch: pictures and their classes.
            rng: CPU generator, source of the whole wash.

        Returns:
            One scalar for the group `judge`; concept and style top-1 are watched.

        Raises:
            BadData: when the pictures have another size than the judge, or a class does not exist.
        """
        self._check(batch)
        pictures = self.wash(batch, rng)
        num_none = round(self.config.none_share * len(pictures))
        concept = batch.concept.clone()
        if num_none:
            pictures = torch.cat([spoiling.nothing_pictures(pictures[:num_none], rng), pictures[num_none:]])
            concept[:num_none] = len(self.judge.config.concepts)
        verdict = self.judge(pictures)
        smoothing = self.config.label_smoothing
        concept_loss = F.cross_entropy(verdict.concept, concept, label_smoothing=smoothing)
        shown = slice(num_none, None)  # a picture of nothing has no style
        if num_none < len(pictures):
            style_loss = F.cross_entropy(verdict.style[shown], batch.style[shown], label_smoothing=smoothing)
        else:
            style_loss = verdict.style.sum() * 0
        with torch.no_grad():
            watch = {
                "concept": concept_loss.item(),
                "style": style_loss.item(),
                "top1": (verdict.concept.argmax(1) == concept).float().mean().item(),
                "style_top1": (verdict.style[shown].argmax(1) == batch.style[shown]).float().mean().item(),
            }
        return Losses(total={"judge": concept_loss + self.config.style_weight * style_loss}, watch=watch)

    def wash(self, batch: JudgeBatch, rng: Generator) -> Float[Tensor, "b 3 h w"]:
        """Return the batch as the judge sees it: placed, on backgrounds, spoiled.  Rows keep their order.

        Args:
            batch: pictures and, optionally, their reconstructions.
            rng: CPU generator, source of all chance.
        """
        config, pictures = self.config, batch.pictures
        if batch.reconstructions is not None:
            swapped = self._pick(len(pictures), config.codec_share, rng, pictures)
            pictures = torch.where(swapped[:, None, None, None], batch.reconstructions, pictures)
        # In full precision: a picture's 8 bits are more than bfloat16 keeps.
        with torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
            placed = spoiling.place(pictures, rng, config.scale, config.shift)
            backgrounds = spoiling.random_backgrounds(len(placed), rng).to(placed.device)
            rgb = spoiling.composite(placed, backgrounds)
            # Detail is lost in two groups, so that one batch holds two degrees of softness.
            for _ in range(2):
                rgb = self._spoil(rgb, config.soften_share / 2, rng, spoiling.soften, config.softest)
            rgb = self._spoil(rgb, config.noise_share, rng, spoiling.add_noise, config.noise)
            return self._spoil(rgb, config.jpeg_share, rng, spoiling.jpeg_like, config.jpeg)

    @staticmethod
    def _pick(num: int, share: float, rng: Generator, like: Tensor) -> Tensor:
        return (torch.rand(num, generator=rng) < share).to(like.device)

    def _spoil(self, pictures: Tensor, share: float, rng: Generator, spoiler: Spoiler, strength: float) -> Tensor:
        """Spoil a random share of the rows; the others are not computed at all."""
        rows = self._pick(len(pictures), share, rng, pictures).nonzero().flatten()
        if len(rows):
            pictures[rows] = spoiler(pictures[rows], rng, strength)
        return pictures

    def _check(self, batch: JudgeBatch) -> None:
        size, config = batch.pictures.shape[-1], self.judge.config
        if size != config.size:
            raise BadData(f"training pictures of {size} px", f"{config.size} px, the judge's size")
        for kind, labels, names in (("concept", batch.concept, config.concepts), ("style", batch.style, config.styles)):
            if ((labels < 0) | (labels >= len(names))).any():
                raise BadData(f"{kind} class {int(labels.max())}", f"0 to {len(names) - 1}")
