"""How the consistency decoder is trained: what must be zero is zero, steps are the sampler's, and it learns."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opendalle.base.errors import BadConfig
from opendalle.base.protocols import Denoised, Objective
from opendalle.codec.consistency import ConsistencyDecoder, ConsistencyDecoderConfig
from opendalle.codec.consistency_objective import (
    DecoderDenoising,
    DecoderDistillation,
    DistillationConfig,
    teacher_step,
)
from opendalle.codec.identity import IdentityCodec, IdentityCodecConfig
from opendalle.diffusion.predictions import to_denoised
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.samplers import sample

CONFIG = ConsistencyDecoderConfig(
    unet=UNetConfig(
        in_channels=6,
        out_channels=3,
        levels=(UNetLevel(width=8, num_blocks=1),),
        time_width=8,
        middle="none",
        norm_groups=4,
    ),
    picture_size=8,
    grid_mean=(0.0,) * 3,
    grid_std=(1.0,) * 3,
    factor=1,
)
CODEC = IdentityCodec(IdentityCodecConfig(picture_size=8))


@dataclass
class Batch:
    pictures: Tensor


class Oracle(ConsistencyDecoder):
    """Knows the picture, since this codec's grid is the picture."""

    def answer(self, x_t: Any, t: Any, features: Any, strips: Any = None) -> Any:
        return features


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def pictures(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def matters(seed: int = 0) -> Any:
    decoder = ConsistencyDecoder(CONFIG)
    generator = torch.Generator().manual_seed(seed)
    for weight in decoder.parameters():
        nn.init.normal_(weight, std=0.2, generator=generator)
    return decoder.eval()


def test_who_knows_the_picture_has_nothing_to_learn() -> None:
    oracle = Oracle(CONFIG)
    for objective in (
        DecoderDenoising(CODEC, oracle),
        DecoderDistillation(CODEC, oracle, Oracle(CONFIG), DistillationConfig()),
    ):
        assert isinstance(objective, Objective)
        assert objective(Batch(pictures()), rng()).total["decoder"] < 1e-10


def test_a_student_of_an_oracle_learns_the_pictures_from_the_bottom_up() -> None:
    """Where the step ends in the clean picture the loss is the error of the answer; above, what the average says."""
    student, oracle = matters(), Oracle(CONFIG)
    objective = DecoderDistillation(CODEC, student, oracle, DistillationConfig())
    x0, features = pictures(), pictures()
    x_t = torch.randn(x0.shape, generator=rng())
    t, s = torch.tensor([16, 32, 48, 1008]), torch.tensor([-1, 16, 32, 992])
    with torch.no_grad():
        wanted = objective._wanted(x_t, t, s, features)
        x_s = teacher_step(oracle, x_t, t, s, features)
        torch.testing.assert_close(wanted[:1], x0[:1])
        torch.testing.assert_close(wanted[1:], student.answer(x_s[1:], s[1:], features[1:]), atol=1e-6, rtol=1e-5)


def test_the_teachers_step_is_a_samplers_step() -> None:
    teacher, x0, features = matters(), pictures(2), pictures(2)
    x_t = torch.randn(x0.shape, generator=rng())

    def denoise(x: Tensor, t: Tensor) -> Denoised:
        return to_denoised("x0", teacher.answer(x, t, features), x, t, teacher.schedule)

    with torch.no_grad():
        for t, s in ((1008, 992), (16, -1)):
            stepped = teacher_step(teacher, x_t, torch.tensor([t, t]), torch.tensor([s, s]), features)
            grid = [t] if s < 0 else [t, s]
            first = next(iter(sample(denoise, x_t, grid, schedule=teacher.schedule, sampler="euler")))
            torch.testing.assert_close(stepped, first.x_t, atol=1e-5, rtol=1e-5)


def test_the_average_follows_and_is_remembered() -> None:
    student = matters()
    objective = DecoderDistillation(CODEC, student, matters(), DistillationConfig(decay=0.75))
    before = {name: one.clone() for name, one in objective.average.network.named_parameters()}
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(1.0)
    objective.after_step()
    for name, one in objective.average.network.named_parameters():
        torch.testing.assert_close(one, before[name] + 0.25)
        assert not one.requires_grad
    again = DecoderDistillation(CODEC, matters(5), matters(), DistillationConfig())
    again.recall(objective.remember())
    assert all(
        torch.equal(one, other)
        for one, other in zip(again.average.network.parameters(), objective.average.network.parameters(), strict=True)
    )


def test_gradients_reach_the_student_alone() -> None:
    student, teacher = matters(), matters(1)
    objective = DecoderDistillation(CODEC, student, teacher, DistillationConfig())
    objective(Batch(pictures()), rng()).total["decoder"].backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in student.unet.conv_out.parameters())
    assert all(one.grad is None for one in [*teacher.parameters(), *objective.average.network.parameters()])


def test_a_decoder_learns_to_denoise() -> None:
    torch.manual_seed(0)
    decoder = ConsistencyDecoder(CONFIG)
    objective, optimiser = DecoderDenoising(CODEC, decoder), torch.optim.Adam(decoder.parameters(), lr=1e-2)
    batch, generator, losses = Batch(pictures(16)), rng(), list[float]()
    for _ in range(40):
        loss = objective(batch, generator).total["decoder"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BadConfig, match="decay"):
        DistillationConfig(decay=1.0)
    other = ConsistencyDecoder(
        ConsistencyDecoderConfig(**{**{k: getattr(CONFIG, k) for k in CONFIG.__dataclass_fields__}, "num_steps": 512})
    )
    with pytest.raises(BadConfig, match="512"):
        DecoderDistillation(CODEC, other, matters(), DistillationConfig())
