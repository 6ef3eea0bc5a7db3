import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from opendalle.diffusion.guidance import combine, dynamic_threshold, rescale


@pytest.fixture
def pair() -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0))


def test_scale_one_is_off_and_zero_is_unconditional(pair) -> None:
    torch.testing.assert_close(combine(pair[0], pair[1], 1.0), pair[0])
    torch.testing.assert_close(combine(pair[0], pair[1], 0.0), pair[1])


def test_each_sample_may_have_its_own_scale(pair) -> None:
    together = combine(pair[0], pair[1], torch.tensor([1.0, 2.5, 4.0]))
    for i, scale in enumerate((1.0, 2.5, 4.0)):
        torch.testing.assert_close(together[i], combine(pair[0], pair[1], scale)[i])


def test_rescale_equals_a_plain_loop(pair) -> None:
    guided = combine(pair[0], pair[1], 5.0)
    for ours, raw, conditional in zip(rescale(guided, pair[0], 0.7), guided, pair[0], strict=True):
        spread = conditional.flatten().std() / raw.flatten().std()
        torch.testing.assert_close(ours, 0.7 * raw * spread + 0.3 * raw)
    full = rescale(guided, pair[0], 1.0)
    torch.testing.assert_close(full.flatten(1).std(1), pair[0].flatten(1).std(1))


def test_thresholding_equals_diffusers(pair) -> None:
    scheduler = DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=100.0)
    torch.testing.assert_close(dynamic_threshold(2 * pair[0], 0.9), scheduler._threshold_sample(2 * pair[0]))


def test_thresholding_leaves_samples_within_the_limit_alone(pair) -> None:
    calm = pair[0].clamp(-1, 1)
    torch.testing.assert_close(dynamic_threshold(calm, 0.9), calm)
    assert torch.equal(dynamic_threshold(pair[0], 1.0), pair[0])
    assert dynamic_threshold(9 * pair[0], 0.9, limit=3.0).abs().max() == pytest.approx(3.0)
