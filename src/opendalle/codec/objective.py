"""What an autoencoder is trained on: look right, keep edges, stay near a Gaussian, and (late) fool a critic.

Source: reconstruction and KL terms, Rombach et al., arXiv:2112.10752, appendix G; hinge critic on patches, Esser et
al., "Taming Transformers", arXiv:2012.09841, section 3.1.  The critic is a second parameter group: the loop gives it
an optimiser of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.codec.kl import KLAutoencoder

Features = Callable[[Float[Tensor, "b c h w"]], Sequence[Tensor]]  # pictures -> feature maps; never the judge's


@runtime_checkable
class PictureBatch(Protocol):
    """What the objective needs of a batch."""

    @property
    def pictures(self) -> Float[Tensor, "b c h w"]:
        """Pictures in [-1, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class CodecLossConfig:
    """Weight of each term."""

    pixel: float = 1.0  # mean absolute error of values in [-1, 1]
    gradient: float = 1.0  # the same of differences between neighbouring pixels
    kl: float = 5e-4  # nats a grid number; small, since the grid is only to be smooth, not to be sampled from
    perceptual: float = 0.0  # needs `features`
    adversarial: float = 0.0  # needs a critic; switch on late, when pictures already look right

    def __post_init__(self) -> None:
        for name in ("pixel", "gradient", "kl", "perceptual", "adversarial"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}", "at least 0")


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


class CodecObjective:
    """Train a KL autoencoder.

    Args:
        codec: the autoencoder.
        config: weight of each term.
        features: frozen feature maps for the perceptual term.
        critic: the patch critic for the adversarial term.

    Raises:
        BadConfig: when a term has weight but not the network that it needs.
    """

    def __init__(
        self,
        codec: KLAutoencoder,
        config: CodecLossConfig,
        *,
        features: Features | None = None,
        critic: PatchCritic | None = None,
    ) -> None:
        require(config.perceptual == 0 or features is not None, "a perceptual weight without features", "features")
        require(config.adversarial == 0 or critic is not None, "an adversarial weight without a critic", "a critic")
        self.codec, self.config, self.features, self.critic = codec, config, features, critic

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The codec and, when there is one, its critic."""
        return {"codec": self.codec} if self.critic is None else {"codec": self.codec, "critic": self.critic}

    def __call__(self, batch: PictureBatch, rng: Generator) -> Losses:
        """Return the loss of the codec, and of the critic when there is one."""
        config, pictures = self.config, batch.pictures
        posterior = self.codec.posterior(pictures)
        drawn = self.codec.draw(posterior.sample(rng))
        pixel, gradient, kl = F.l1_loss(drawn, pictures), gradient_loss(drawn, pictures), posterior.kl()
        loss = config.pixel * pixel + config.gradient * gradient + config.kl * kl
        watch = {"pixel": pixel.item(), "gradient": gradient.item(), "kl": kl.item(), "psnr": psnr(drawn, pictures)}
        if self.features is not None and config.perceptual:
            perceptual = perceptual_loss(self.features, drawn, pictures)
            loss = loss + config.perceptual * perceptual
            watch["perceptual"] = perceptual.item()
        total = {"codec": loss}
        if self.critic is not None:
            with frozen(self.critic):
                total["codec"] = loss - config.adversarial * self.critic(drawn).mean()
            real, fake = self.critic(pictures), self.critic(drawn.detach())
            total["critic"] = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
            watch["critic_gap"] = (real.mean() - fake.mean()).item()
        return Losses(total=total, watch=watch)


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
