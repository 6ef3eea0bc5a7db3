"""Whether a drawn picture is like the true one: pixels, edges, features, and (late) what a critic says.

Source: features, Zhang et al., arXiv:1801.03924, eq. 1; hinge critic on patches and the balance of its strength, Esser
et al., "Taming Transformers", arXiv:2012.09841, section 3.1, eq. 7.  The critic is a second parameter group: the loop
gives it an optimiser of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.axes import Pictures
from opendalle.base.errors import require

Features = Callable[[Float[Tensor, "b c h w"]], Sequence[Tensor]]  # pictures -> feature maps; never the judge's


@runtime_checkable
class PictureBatch(Protocol):
    """What the objective needs of a batch."""

    @property
    def pictures(self) -> Float[Tensor, "b c h w"]:
        """Pictures in [-1, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class LikenessConfig:
    """Weight of each term."""

    pixel: float = 1.0  # mean absolute error of values in [-1, 1]
    gradient: float = 1.0  # the same of differences between neighbouring pixels
    perceptual: float = 0.0  # needs `features`
    adversarial: float = 0.0  # needs a critic
    adversarial_from: float = 0.5  # part of the run before which the critic has no say: pictures must look right first
    is_balanced: bool = True  # whether the critic pulls at the last layer as hard as all else, times its weight

    def __post_init__(self) -> None:
        for name in ("pixel", "gradient", "perceptual", "adversarial"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}", "at least 0")
        require(0 <= self.adversarial_from <= 1, f"adversarial_from is {self.adversarial_from}", "a share from 0 to 1")


class PatchCritic(nn.Sequential):
    """Judges overlapping patches, not whole pictures: sharpness is local.

    Args:
        channels: channels of the pictures.
        width: channels of the first layer.
    """

    def __init__(self, channels: int, width: int = 48) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            nn.GroupNorm(8, 4 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )


@dataclass(frozen=True)
class Likened:
    """How like a batch of pictures was."""

    drawer: Float[Tensor, ""]  # loss of whoever drew
    critic: Float[Tensor, ""] | None  # loss of the critic; None: there is none
    watch: Mapping[str, float]


class Likeness:
    """The terms that every autoencoder of pictures shares.

    Args:
        config: weight of each.
        features: frozen feature maps for the perceptual term.
        critic: the patch critic for the adversarial term.

    Raises:
        BadConfig: when a term has weight but not the network that it needs.
    """

    def __init__(
        self, config: LikenessConfig, *, features: Features | None = None, critic: PatchCritic | None = None
    ) -> None:
        require(config.perceptual == 0 or features is not None, "a perceptual weight without features", "features")
        require(config.adversarial == 0 or critic is not None, "an adversarial weight without a critic", "a critic")
        self.config, self.features, self.critic = config, features, critic
        self.share_done = 0.0  # of the run

    def __call__(self, drawn: Pictures, pictures: Pictures, last_layer: nn.Parameter) -> Likened:
        """Compare.

        Args:
            drawn: by the network, with its graph.
            pictures: the true ones.
            last_layer: weights of whoever drew, at which the critic's pull is measured.
        """
        config = self.config
        pixel, gradient = F.l1_loss(drawn, pictures), gradient_loss(drawn, pictures)
        loss = config.pixel * pixel + config.gradient * gradient
        watch = {"pixel": pixel.item(), "gradient": gradient.item(), "psnr": psnr(drawn, pictures)}
        if self.features is not None and config.perceptual:
            perceptual = perceptual_loss(self.features, drawn, pictures)
            loss = loss + config.perceptual * perceptual
            watch["perceptual"] = perceptual.item()
        if self.critic is None:
            return Likened(loss, None, watch)
        with frozen(self.critic):
            pull = -self.critic(drawn).mean()
        weight = config.adversarial * float(self.share_done >= config.adversarial_from)
        if weight and config.is_balanced:
            weight = weight * balance(loss, pull, last_layer)
        real, fake = self.critic(pictures), self.critic(drawn.detach())
        watch["critic_gap"] = (real.mean() - fake.mean()).item()
        return Likened(loss + weight * pull, F.relu(1 - real).mean() + F.relu(1 + fake).mean(), watch)


def balance(loss: Float[Tensor, ""], pull: Float[Tensor, ""], last_layer: nn.Parameter) -> float:
    """Return how much stronger one loss pulls at a layer than another, at most ten thousand times.

    Args:
        loss: that sets the measure.
        pull: that is to be as strong.
        last_layer: weights that both reach.

    Source: arXiv:2012.09841, eq. 7.
    """
    if not last_layer.requires_grad:
        return 1.0
    norms = [torch.autograd.grad(one, last_layer, retain_graph=True)[0].norm() for one in (loss, pull)]
    return float((norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4))


class frozen:  # noqa: N801 - reads as a statement: `with frozen(critic): ...`
    """Let gradients pass through a network without reaching its weights."""

    def __init__(self, network: nn.Module) -> None:
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]

    def __enter__(self) -> None:
        for weight in self.weights:
            weight.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for weight in self.weights:
            weight.requires_grad_(True)


def gradient_loss(a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Mean absolute difference of the pictures' differences between neighbours: what keeps edges where they are.

    Args:
        a: pictures.
        b: pictures of the same shape.
    """
    across = F.l1_loss(a[..., :, 1:] - a[..., :, :-1], b[..., :, 1:] - b[..., :, :-1])
    down = F.l1_loss(a[..., 1:, :] - a[..., :-1, :], b[..., 1:, :] - b[..., :-1, :])
    return across + down


def perceptual_loss(features: Features, a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Mean squared distance of channel-normalised feature maps.

    Args:
        features: frozen network, pictures to a list of feature maps.
        a: drawn pictures.
        b: true pictures; no gradient flows into them.

    Source: Zhang et al., arXiv:1801.03924, eq. 1, with unit channel weights.
    """
    with torch.no_grad():
        wanted = [F.normalize(layer, dim=1) for layer in features(b)]
    distances = [
        (F.normalize(layer, dim=1) - want).square().sum(1).mean()
        for layer, want in zip(features(a), wanted, strict=True)
    ]
    return torch.stack(distances).mean()


def psnr(a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"]) -> float:
    """Peak signal-to-noise ratio in decibels, of pictures in [-1, 1], over the whole batch."""
    error = F.mse_loss(a.detach().clamp(-1, 1), b).clamp_min(1e-10)
    return float(10 * torch.log10(4 / error))
