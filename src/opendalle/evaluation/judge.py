"""The judge: a small convolutional classifier that names what it sees, trained apart from every network it scores.

A score is only worth something if the examiner never taught the pupil.  The judge therefore shares no weights with
CLIP, codec, prior or decoder, has another architecture (ConvNeXt blocks instead of transformers and U-Nets), its own
seed and its own data order; it sees opaque RGB only, so that it cannot read the transparency the generator drew.

Source: blocks after Liu et al., "A ConvNet for the 2020s", arXiv:2201.03545, section 2.6 and figure 4, with 3x3
kernels, an expansion of 3 (matrix products, not memory, then keep a CPU thread busy) and a maximum over places at the
end; temperature
scaling after Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599, section 4.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from opendalle.base.errors import BadPicture, require
from opendalle.checkpoint.folder import Part

NONE = "none"  # the class of pictures that show no concept: noise, mixtures, smears


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Everything that fixes a judge's architecture and the names it gives.

    Raises:
        BadConfig: when a value lies outside its range.
    """

    concepts: tuple[str, ...]  # class names in class order, without `none`, which is always the last class
    styles: tuple[str, ...]  # style names in class order
    size: int = 64  # side in pixels that pictures are brought to
    stem: tuple[int, ...] = (4,)  # strides of the stem's convolutions; (4, 4) makes the 256 px judge
    stem_width: int = 32  # channels between two stem convolutions; unused by a stem of one
    widths: tuple[int, ...] = (64, 128, 256)  # channels of each stage; the grid halves between stages
    depths: tuple[int, ...] = (1, 2, 3)  # blocks of each stage; cheap coarse stages get more
    kernel: int = 3  # side of the depthwise kernels, odd
    expansion: int = 3  # hidden width of a block over its width

    def __post_init__(self) -> None:
        require(len(self.concepts) > 0, "a judge without concepts", "at least one concept name")
        require(len(set(self.concepts)) == len(self.concepts), "repeated concept names", "each name once")
        require(NONE not in self.concepts, f"a concept called {NONE!r}", "another name; the judge adds that one")
        require(len(self.styles) > 0, "a judge without styles", "at least one style name")
        require(len(self.stem) > 0 and min(self.stem) >= 1, f"stem is {self.stem}", "one stride or more, each >= 1")
        require(
            len(self.widths) == len(self.depths) > 0,
            f"{len(self.widths)} widths and {len(self.depths)} depths",
            "one of each a stage",
        )
        require(min(self.widths) >= 1 and min(self.depths) >= 0, "a negative width or depth", "positive numbers")
        require(self.kernel % 2 == 1, f"kernel is {self.kernel}", "an odd side")
        require(self.size % self.factor == 0, f"size is {self.size}", f"a multiple of {self.factor} with this stem")

    @property
    def factor(self) -> int:
        """Pixels a side of one cell of the coarsest grid."""
        stem = 1
        for stride in self.stem:
            stem *= stride
        return stem * 2 ** (len(self.widths) - 1)


def judge_emoji(concepts: Sequence[str], styles: Sequence[str]) -> JudgeConfig:
    """Preset of the bundled judge: 64 px, about 2 M parameters, about 50 M multiplications a picture."""
    return JudgeConfig(concepts=tuple(concepts), styles=tuple(styles))


def judge_emoji_256(concepts: Sequence[str], styles: Sequence[str]) -> JudgeConfig:
    """Preset of the judge at 256 px: the same body behind a stem of two convolutions that sees single pixels."""
    return JudgeConfig(concepts=tuple(concepts), styles=tuple(styles), size=256, stem=(4, 4))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each cell of a grid: keeps a stage's input in range where the grid changes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise each cell."""
        return rearrange(self.norm(rearrange(x, "b c h w -> b h w c")), "b h w c -> b c h w")


class Block(nn.Module):
    """Depthwise convolution, norm, two linear layers: look around, then think, then add."""

    def __init__(self, width: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.reduce = nn.Linear(expansion * width, width)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add what the block has seen to its input."""
        y = rearrange(self.around(x), "b c h w -> b h w c")
        y = self.reduce(F.gelu(self.expand(self.norm(y))))
        return x + rearrange(y, "b h w c -> b c h w")


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a batch of pictures, as calibrated logits."""

    concept: Float[Tensor, "b v"]  # one column a concept, `none` last
    style: Float[Tensor, "b s"]
    features: Float[Tensor, "b d"]  # what both heads read; the space of KID, density and nearest neighbours


class Judge(nn.Module):
    """The classifier itself.

    Args:
        config: architecture and class names.
        seed: seed of the initial weights; the judge's own, so that no other network starts from the same numbers.
    """

    temperatures: Tensor  # of concept and style logits; ones until fitted on held-out pictures

    def __init__(self, config: JudgeConfig, seed: int = 20_240_229) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = _body(config)
            self.norm = nn.LayerNorm(config.widths[-1])
            self.concept = nn.Linear(config.widths[-1], len(config.concepts) + 1)
            self.style = nn.Linear(config.widths[-1], len(config.styles))
        self.register_buffer("temperatures", torch.ones(2))
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Verdict:
        """Look at opaque pictures.

        Args:
            pictures: RGB in [-1, 1], already composited on a background, of the judge's own size.

        Raises:
            BadPicture: when the pictures have another size; `look` resizes.
        """
        size = self.config.size
        if tuple(pictures.shape[-2:]) != (size, size):
            came = "x".join(str(side) for side in pictures.shape[-2:])
            raise BadPicture(f"pictures of {came}", f"{size}x{size}", "Use Judge.look, which resizes.")
        grid = self.body(pictures.contiguous(memory_format=torch.channels_last))
        # The strongest answer of each channel, wherever it stands: a mean would drown a small thing in background,
        # and learns far more slowly.
        features = self.norm(grid.amax(dim=(2, 3)))  # (b, d)
        by_concept, by_style = self.temperatures.unbind()
        return Verdict(self.concept(features) / by_concept, self.style(features) / by_style, features)

    @torch.inference_mode()
    def look(self, pictures: Float[Tensor, "b 3 h w"], batch: int = 64) -> Verdict:
        """Judge any number of pictures of any size, without a graph.

        Args:
            pictures: RGB in [-1, 1]; resized with an antialiased bicubic filter when they have another size.
            batch: pictures looked at together; changes memory only.
        """
        was_training = self.training
        self.eval()
        parts = [self(self._resized(part)) for part in pictures.split(batch)]
        self.train(was_training)
        return Verdict(
            torch.cat([part.concept for part in parts]),
            torch.cat([part.style for part in parts]),
            torch.cat([part.features for part in parts]),
        )

    def name(self, verdict: Verdict, count: int = 5) -> list[list[str]]:
        """Return the `count` likeliest concept names of each picture, best first; `none` may be among them."""
        names = (*self.config.concepts, NONE)
        best = verdict.concept.topk(min(count, len(names)), dim=1).indices.tolist()
        return [[names[index] for index in row] for row in best]

    def calibrate(
        self, verdict: Verdict, concept: Int[Tensor, " b"], style: Int[Tensor, " b"]
    ) -> Float[Tensor, " two"]:
        """Store the temperatures under which held-out truth is likeliest; return them.

        Args:
            verdict: of pictures the judge was not trained on, under the temperatures stored now.
            concept: true class of each picture.
            style: true style of each picture.
        """
        factors = torch.tensor([fit_temperature(verdict.concept, concept), fit_temperature(verdict.style, style)])
        self.temperatures.mul_(factors)
        return self.temperatures.clone()

    def _resized(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        size = self.config.size
        if tuple(pictures.shape[-2:]) == (size, size):
            return pictures
        resized = F.interpolate(pictures, (size, size), mode="bicubic", antialias=True, align_corners=False)
        return resized.clamp(-1, 1)

    def part(self, storage: str = "bfloat16") -> Part:
        """Return config and weights as a model folder stores them.

        Args:
            storage: how the weights lie on disk: float32, bfloat16 or int8-row.
        """
        return Part(asdict(self.config), self.state_dict(), storage)

    @classmethod
    def from_part(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> "Judge":
        """Rebuild a judge from what `part` gave; names and shapes must match exactly."""
        listed: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in config.items()}
        judge = cls(JudgeConfig(**listed))
        judge.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True)
        return judge.eval()


def _body(config: JudgeConfig) -> nn.Sequential:
    """Stem (overlapping windows, so that no edge hides on a seam), then stages with halving between them."""
    layers: list[nn.Module] = []
    channels = 3
    for index, stride in enumerate(config.stem):
        width = config.widths[0] if index == len(config.stem) - 1 else config.stem_width
        layers.append(nn.Conv2d(channels, width, 2 * stride - 1, stride=stride, padding=stride - 1))
        layers.append(nn.GELU())  # edges, not sums of pixels, enter the first norm: learning starts at once
        channels = width
    layers.append(ChannelNorm(channels))
    for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
        if stage:
            layers += [ChannelNorm(channels), nn.Conv2d(channels, width, 2, stride=2)]
        layers += [Block(width, config.kernel, config.expansion) for _ in range(depth)]
        channels = width
    return nn.Sequential(*layers)


def fit_temperature(logits: Float[Tensor, "b v"], labels: Int[Tensor, " b"]) -> float:
    """Return the temperature that makes the labels likeliest, between 0.05 and 20.

    The negative log-likelihood is convex in 1/T, so a golden-section search over log T finds its one minimum.

    Args:
        logits: of held-out pictures.
        labels: their true classes.
    """

    def surprise(log_temperature: float) -> float:
        return F.cross_entropy(logits.double() * 2.718281828459045**-log_temperature, labels).item()

    golden = (5**0.5 - 1) / 2
    low, high = -3.0, 3.0
    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if surprise(left) < surprise(right):
            high = right
        else:
            low = left
    return 2.718281828459045 ** ((low + high) / 2)
