"""How a consistency decoder is trained on the grids of a frozen codec: first to denoise, then to answer at once.

First the network learns as a diffusion model does: from a noised picture and its grid, the picture.  Then a copy of it
is distilled.  The teacher walks one short step down the noise, along the path that its own answers draw, and what the
student says before the step must be what it says after it; at the bottom of the path stands the teacher's picture, so
every step above learns to say it at once.  The answers after the step come from a slow average of the student.

Source: Betker et al., "Improving Image Generation with Better Captions", appendix B; denoising: Karras et al.,
    arXiv:2206.00364, eq. 2 and table 1; distillation: Song et al., "Consistency Models", arXiv:2303.01469, algorithm 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from opendalle.base.axes import Pictures, Steps
from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.codec.consistency import ConsistencyDecoder, boundary_scales
from opendalle.codec.likeness import PictureBatch
from opendalle.codec.protocol import Codec
from opendalle.diffusion.predictions import to_denoised
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import CLEAN
from opendalle.training.follower import Follower


class DecoderDenoising:
    """Meeting point 2: train a decoder as a diffusion model.

    Args:
        codec: whose grids it is shown; not trained.
        decoder: the network, trained in place.
    """

    def __init__(self, codec: Codec, decoder: ConsistencyDecoder) -> None:
        self.codec, self.decoder = codec, decoder

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The decoder."""
        return {"decoder": self.decoder}

    def __call__(self, batch: PictureBatch, rng: Generator) -> Losses:
        """Error of the answer at random steps, each step's counted as the error of the network's own output."""
        pictures, decoder = batch.pictures, self.decoder
        features = features_of(self.codec, decoder, pictures)
        t = torch.randint(decoder.config.num_steps, (len(pictures),), generator=rng).to(pictures.device)
        answer = decoder.answer(noised(decoder, pictures, t, rng), t, features)
        scale = boundary_scales(decoder.schedule, t, decoder.config.sigma_data).out
        error = (answer - pictures).square().flatten(1).mean(1)
        return Losses(
            total={"decoder": (error / scale.to(error) ** 2).mean()}, watch={"squared error": error.mean().item()}
        )


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """How a decoder is distilled."""

    decay: float = 0.95  # share of the slow average that a step keeps; 0: it is the student itself

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, f"decay is {self.decay}", "0 <= share < 1")


class DecoderDistillation:
    """Meeting point 2: distil a denoising decoder into one that answers at once.

    Args:
        codec: whose grids it is shown; not trained.
        decoder: the student, trained in place; begin with the teacher's weights.
        teacher: trained by `DecoderDenoising`; not trained.
        config: how.

    Raises:
        BadConfig: when teacher and student stand on other steps.
    """

    def __init__(
        self, codec: Codec, decoder: ConsistencyDecoder, teacher: ConsistencyDecoder, config: DistillationConfig
    ) -> None:
        came, wanted = (one.config.num_steps for one in (decoder, teacher))
        require(came == wanted, f"a student of {came} steps", f"the teacher's {wanted}")
        self.codec, self.decoder, self.teacher, self.config = codec, decoder, teacher, config
        self.average = Follower(decoder, config.decay)

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The student."""
        return {"decoder": self.decoder}

    def __call__(self, batch: PictureBatch, rng: Generator) -> Losses:
        """Difference of the answers at both ends of a step.

        Source: Consistency Models, eq. 7, with the squared distance and weight 1.
        """
        pictures, config = batch.pictures, self.decoder.config
        apart = config.num_steps // config.num_distilled
        level = torch.randint(1, config.num_distilled, (len(pictures),), generator=rng).to(pictures.device)
        t = apart * level
        s = torch.where(level > 1, t - apart, CLEAN)
        features = features_of(self.codec, self.decoder, pictures)
        x_t = noised(self.decoder, pictures, t, rng)
        wanted = self._wanted(x_t, t, s, features)
        error = (self.decoder.answer(x_t, t, features) - wanted).square().flatten(1).mean(1)
        return Losses(total={"decoder": error.mean()})

    @torch.no_grad()
    def _wanted(self, x_t: Pictures, t: Steps, s: Steps, features: Float[Tensor, "b g h w"]) -> Pictures:
        """Return the average's answers after the teacher's step; where the step ends in a picture, the picture."""
        x_s = teacher_step(self.teacher, x_t, t, s, features)
        average = cast(ConsistencyDecoder, self.average.network)
        answers = average.answer(x_s, s.clamp(min=0), features)
        return torch.where((s == CLEAN)[:, None, None, None], x_s, answers)

    def after_step(self) -> None:
        """Let the average follow the student."""
        self.average.follow()

    def remember(self) -> Mapping[str, Tensor]:
        """Return the average, which a resumed run needs; the teacher is loaded anew."""
        return self.average.remember()

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the average back.

        Args:
            tensors: from `remember`.
        """
        self.average.recall(tensors)


def teacher_step(
    teacher: ConsistencyDecoder, x_t: Pictures, t: Steps, s: Steps, features: Float[Tensor, "b g h w"]
) -> Pictures:
    """Walk from step t down to step s along the path that the teacher's answer draws.

    Args:
        teacher: a denoising decoder.
        x_t: noised pictures.
        t: their steps.
        s: where to; -1 is the clean end.
        features: of their grids.

    Source: Consistency Models, eq. 6 with Euler's step, which for preserved variance is that of DDIM.
    """
    believed = to_denoised("x0", teacher.answer(x_t, t, features), x_t, t, teacher.schedule)
    return q_sample(believed.x0, s, believed.eps, teacher.schedule)


@torch.no_grad()
def features_of(codec: Codec, decoder: ConsistencyDecoder, pictures: Pictures) -> Float[Tensor, "b g h w"]:
    """Return what a decoder sees of the grids of pictures.

    Args:
        codec: frozen.
        decoder: that is trained on its grids.
        pictures: in [-1, 1].
    """
    return decoder.features(codec.encode(pictures))


def noised(decoder: ConsistencyDecoder, pictures: Pictures, t: Steps, rng: Generator) -> Pictures:
    """Noise pictures.

    Args:
        decoder: whose schedule counts.
        pictures: in [-1, 1].
        t: a step each.
        rng: of the noise.
    """
    noise = torch.randn(pictures.shape, generator=rng).to(pictures)
    return q_sample(pictures, t, noise, decoder.schedule)
