"""What the KL autoencoder is trained on: look right, keep edges, stay near a Gaussian, and (late) fool a critic.

Source: reconstruction and KL terms, Rombach et al., arXiv:2112.10752, appendix G.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Generator, nn

from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.codec.kl import KLAutoencoder
from opendalle.codec.likeness import Features, Likeness, LikenessConfig, PatchCritic, PictureBatch


@dataclass(frozen=True, kw_only=True)
class CodecLossConfig(LikenessConfig):
    """Weight of each term."""

    kl: float = 5e-4  # nats a grid number; small, since the grid is only to be smooth, not to be sampled from

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kl >= 0, f"kl is {self.kl}", "at least 0")


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
        self.codec, self.config = codec, config
        self.likeness = Likeness(config, features=features, critic=critic)

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The codec and, when there is one, its critic."""
        return with_critic(self.codec, self.likeness.critic)

    def before_step(self, pictures: int, total: int) -> None:
        """Follow the run: the critic joins late."""
        self.likeness.share_done = pictures / total

    def __call__(self, batch: PictureBatch, rng: Generator) -> Losses:
        """Return the loss of the codec, and of the critic when there is one."""
        posterior = self.codec.posterior(batch.pictures)
        drawn, kl = self.codec.draw(posterior.sample(rng)), posterior.kl()
        like = self.likeness(drawn, batch.pictures, self.codec.decoder.last_layer)
        total = {"codec": like.drawer + self.config.kl * kl}
        if like.critic is not None:
            total["critic"] = like.critic
        return Losses(total=total, watch={**like.watch, "kl": kl.item()})


def with_critic(codec: nn.Module, critic: PatchCritic | None) -> Mapping[str, nn.Module]:
    """Return the parameter groups of an autoencoder: itself and, when there is one, its critic."""
    return {"codec": codec} if critic is None else {"codec": codec, "critic": critic}
