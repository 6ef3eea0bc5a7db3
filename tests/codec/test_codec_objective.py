"""The codec's losses: against slow plain versions, and each network trained by its own loss alone."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadConfig
from opendalle.codec.kl import KLAutoencoder, KLAutoencoderConfig
from opendalle.codec.likeness import PatchCritic, gradient_loss, perceptual_loss, psnr
from opendalle.codec.objective import CodecLossConfig, CodecObjective

TINY = KLAutoencoderConfig(picture_size=16, widths=(32, 64), grid_channels=3, decoder_depth=1)


@dataclass(frozen=True)
class Pictures:
    """The least that the objective asks of a batch."""

    pictures: Tensor


def batch(seed: int = 0) -> Pictures:
    """Smooth random pictures."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(4, 4, 4, 4, generator=rng) * 2 - 1
    return Pictures(torch.nn.functional.interpolate(coarse, size=16, mode="bilinear"))


def test_gradient_loss_is_the_mean_of_differences_of_differences() -> None:
    a, b = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)
    across, down = [], []
    for n in range(2):
        for y in range(3):
            for x in range(4):
                if x + 1 < 4:
                    across.append(abs((a[n, 0, y, x + 1] - a[n, 0, y, x]) - (b[n, 0, y, x + 1] - b[n, 0, y, x])))
                if y + 1 < 3:
                    down.append(abs((a[n, 0, y + 1, x] - a[n, 0, y, x]) - (b[n, 0, y + 1, x] - b[n, 0, y, x])))
    expected = torch.stack(across).mean() + torch.stack(down).mean()
    torch.testing.assert_close(gradient_loss(a, b), expected)


def test_psnr_has_its_closed_form() -> None:
    truth = torch.zeros(1, 1, 4, 4)
    assert math.isclose(psnr(truth + 0.2, truth), 20 * math.log10(2 / 0.2), rel_tol=1e-5)


def test_perceptual_loss_ignores_the_length_of_features() -> None:
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    plain = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square().sum(1).mean()
    torch.testing.assert_close(perceptual_loss(lambda x: [x], a, b), plain)
    torch.testing.assert_close(perceptual_loss(lambda x: [3 * x], a, b), plain)


def test_the_total_is_the_weighted_sum_of_what_is_watched() -> None:
    torch.manual_seed(0)
    config = CodecLossConfig(pixel=2.0, gradient=0.5, kl=0.1)
    losses = CodecObjective(KLAutoencoder(TINY), config)(batch(), torch.Generator().manual_seed(0))
    watch = losses.watch
    expected = 2.0 * watch["pixel"] + 0.5 * watch["gradient"] + 0.1 * watch["kl"]
    assert math.isclose(losses.total["codec"].item(), expected, rel_tol=1e-5)


def test_codec_and_critic_are_each_trained_by_their_own_loss_alone() -> None:
    torch.manual_seed(0)
    codec, critic = KLAutoencoder(TINY), PatchCritic(4, width=8)
    objective = CodecObjective(codec, CodecLossConfig(adversarial=0.1), critic=critic)
    losses = objective(batch(), torch.Generator().manual_seed(0))
    losses.total["codec"].backward()
    assert all(weight.grad is None for weight in critic.parameters())
    reached = {name: weight.grad.clone() for name, weight in codec.named_parameters() if weight.grad is not None}
    losses.total["critic"].backward()
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in critic.parameters())
    for name, weight in codec.named_parameters():
        if name in reached:
            assert weight.grad is not None
            assert torch.equal(weight.grad, reached[name])
    assert set(objective.groups) == {"codec", "critic"}


def test_a_few_steps_make_a_codec_better() -> None:
    torch.manual_seed(0)
    codec = KLAutoencoder(TINY)
    objective, rng = CodecObjective(codec, CodecLossConfig()), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=3e-3)
    history = []
    for _ in range(120):
        losses = objective(batch(), rng)
        losses.total["codec"].backward()
        optimiser.step()
        optimiser.zero_grad()
        history.append(losses.watch["psnr"])
    assert history[-1] > history[0] + 3


@pytest.mark.parametrize("wrong", [{"perceptual": 1.0}, {"adversarial": 1.0}])
def test_a_weight_without_its_network_is_refused(wrong: dict) -> None:
    with pytest.raises(BadConfig):
        CodecObjective(KLAutoencoder(TINY), CodecLossConfig(**wrong))


def test_negative_weights_are_refused() -> None:
    with pytest.raises(BadConfig, match="pixel"):
        CodecLossConfig(pixel=-1.0)
