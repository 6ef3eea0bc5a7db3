"""Counts, intervals and clouds against closed forms and slow plain versions."""

import numpy as np
import pytest
import torch

from opendalle.base.errors import BadConfig, BadPicture
from opendalle.evaluation import distribution, metrics, pixels


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_top_k_equals_sorting():
    scores = rng().normal(size=(50, 20))
    labels = rng().integers(0, 20, 50)
    for k in (1, 5, 20):
        plain = [label in np.argsort(-row)[:k] for row, label in zip(scores, labels, strict=True)]
        assert metrics.top_k_hits(scores, labels, k).tolist() == plain


def test_ties_count_against_the_label():
    assert not metrics.top_k_hits(np.zeros((1, 3)), np.array([0]), 1)[0]


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(5, 10, 0.2366, 0.7634), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0)],  # from Wilson's formula by hand
)
def test_wilson(hits: int, n: int, low: float, high: float):
    interval = metrics.wilson(hits, n)
    assert (interval.value, interval.n) == (hits / n, n)
    assert interval.low == pytest.approx(low, abs=1e-4)
    assert interval.high == pytest.approx(high, abs=1e-4)


def test_wilson_solves_its_equation():
    interval = metrics.wilson(37, 90)
    for end in (interval.low, interval.high):  # where the observed share lies z standard errors from the end
        assert abs(37 / 90 - end) / (end * (1 - end) / 90) ** 0.5 == pytest.approx(1.959964, abs=1e-5)


def test_wilson_of_nothing_says_nothing():
    interval = metrics.wilson(0, 0)
    assert (interval.low, interval.high, interval.n) == (0.0, 1.0, 0)
    with pytest.raises(BadConfig):
        metrics.wilson(3, 2)


def test_bootstrap_width_is_that_of_the_normal_theory():
    values = rng().normal(3.0, 2.0, size=400)
    interval = metrics.bootstrap_mean(values, rng())
    half = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.1)


def test_bootstrap_draws_prompts_not_pictures():
    by_prompt = rng().normal(size=40)
    values, prompts = np.repeat(by_prompt, 8), np.repeat(np.arange(40), 8)
    clustered = metrics.bootstrap_mean(values, rng(), prompts=prompts)
    alone = metrics.bootstrap_mean(by_prompt, rng())
    assert clustered.n == 40
    assert clustered.high - clustered.low == pytest.approx(alone.high - alone.low)


def test_pairing_removes_what_both_arms_share():
    difficulty = rng().normal(0, 5, size=200)
    first, second = difficulty + 0.3, difficulty + rng().normal(0, 0.1, size=200)
    interval = metrics.paired_difference(first, second, rng())
    assert 0.25 < interval.low < interval.value < interval.high < 0.35
    same = metrics.paired_difference(first, first, rng())
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(BadConfig):
        metrics.paired_difference(first, second[:5], rng())


def test_ratio_of_an_arm_to_itself_is_one():
    hits = (rng().random(100) < 0.8).astype(float)
    interval = metrics.paired_ratio(hits, hits, rng())
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)
    assert metrics.paired_ratio(hits * 0.5, hits, rng()).value == pytest.approx(0.5)


def test_corrected_rate_undoes_a_known_judge():
    true, sensitivity, specificity = 0.7, 0.9, 0.95
    seen = true * sensitivity + (1 - true) * (1 - specificity)
    assert metrics.corrected_rate(seen, sensitivity, specificity) == pytest.approx(true)
    with pytest.raises(BadConfig):
        metrics.corrected_rate(seen, 0.7, 0.7)


def slow_mmd(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    total = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    total += sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return total - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_mmd_equals_the_plain_sum():
    x, y = rng().normal(size=(12, 5)), rng().normal(1, 1, size=(9, 5))
    assert distribution.polynomial_mmd(x, y) == pytest.approx(slow_mmd(x, y))


def gaussian_kernel_mean(first: np.ndarray, second: np.ndarray) -> float:
    """Mean of (x.y/d + 1)^3 over x ~ N(first, I), y ~ N(second, I), by the moments of x.y."""
    d, both = len(first), float(first @ second)
    squares = float(first @ first + second @ second)
    one, two, three = both, d + squares + both**2, both**3 + 3 * both * (squares + d + 2)
    return 1 + 3 * one / d + 3 * two / d**2 + three / d**3


def test_mmd_of_gaussians_is_unbiased_for_the_closed_form():
    here, there, draw = np.zeros(4), np.full(4, 0.5), rng()
    exact = gaussian_kernel_mean(here, here) + gaussian_kernel_mean(there, there)
    exact -= 2 * gaussian_kernel_mean(here, there)
    seen = [
        distribution.polynomial_mmd(draw.normal(size=(30, 4)), draw.normal(0.5, 1, size=(30, 4))) for _ in range(400)
    ]
    assert abs(np.mean(seen) - exact) < 3 * np.std(seen) / 20


def test_kid_interval_holds_zero_for_one_distribution_and_leaves_it_with_distance():
    draw = rng()
    real = draw.normal(size=(160, 8))
    same, far = (distribution.kid(draw.normal(m, 1, size=(160, 8)), real, rng(), num_halves=20) for m in (0.0, 0.8))
    assert same.low < 0 < same.high
    assert far.low > same.high


def test_density_and_coverage_of_identical_sets():
    real = rng().normal(size=(200, 6))
    spread = distribution.density_coverage(real, real, k=5)
    # Every ball holds its centre and its k neighbours: density is (k + 1) / k exactly, coverage 1.
    assert spread.density == pytest.approx(6 / 5)
    assert spread.coverage == 1.0


def test_density_is_about_one_for_one_distribution():
    draw = rng()
    spread = distribution.density_coverage(draw.normal(size=(800, 4)), draw.normal(size=(800, 4)))
    assert spread.density == pytest.approx(1, abs=0.08)
    assert spread.coverage == pytest.approx(1 - 0.5**5, abs=0.03)  # Naeem et al., section 3.2


def test_dropping_a_mode_costs_coverage_and_far_pictures_cost_density():
    draw = rng()
    real = np.concatenate([draw.normal(-5, 1, size=(200, 4)), draw.normal(5, 1, size=(200, 4))])
    one_mode = draw.normal(5, 1, size=(400, 4))
    spread = distribution.density_coverage(one_mode, real)
    assert spread.coverage == pytest.approx(0.5, abs=0.05)
    assert distribution.density_coverage(one_mode + 100, real).density == 0
    with pytest.raises(BadConfig):
        distribution.density_coverage(one_mode[:10], real)


def test_copies_are_told_from_drawings():
    draw = rng()
    train, held_out, fresh = (draw.normal(size=(150, 6)) for _ in range(3))
    drawing = distribution.copying(fresh, train, held_out, rng())
    assert drawing.ratio.low < 1 < drawing.ratio.high
    assert drawing.copies < 0.05
    copied = distribution.copying(train + 1e-6, train, held_out, rng())
    assert copied.ratio.value < 0.01
    assert copied.copies == 1.0


def test_random_features_repeat_and_differ_by_seed():
    pictures = torch.rand(4, 3, 32, 32) * 2 - 1
    first, again = distribution.random_features(pictures), distribution.random_features(pictures)
    assert np.array_equal(first, again)
    assert not np.allclose(first, distribution.random_features(pictures, seed=1))
    assert first.shape == (4, 64)


def test_psnr_of_a_known_error():
    first = torch.zeros(2, 3, 8, 8)
    second = first.clone()
    second[1] += 0.02  # one hundredth of the range: 40 dB
    assert pixels.psnr(first, second)[0] == float("inf")
    assert pixels.psnr(first, second)[1].item() == pytest.approx(40.0, abs=1e-4)
    with pytest.raises(BadPicture):
        pixels.psnr(first, second[:1])


def slow_ssim(x: np.ndarray, y: np.ndarray, window: int, sigma: float) -> float:
    place = np.arange(window) - (window - 1) / 2
    weight = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * sigma**2))
    weight /= weight.sum()
    values = []
    for channel in range(x.shape[0]):
        for top in range(x.shape[1] - window + 1):
            for left in range(x.shape[2] - window + 1):
                a = x[channel, top : top + window, left : left + window]
                b = y[channel, top : top + window, left : left + window]
                mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
                var_a, var_b = (weight * (a - mean_a) ** 2).sum(), (weight * (b - mean_b) ** 2).sum()
                both = (weight * (a - mean_a) * (b - mean_b)).sum()
                c1, c2 = 0.02**2, 0.06**2
                top_line = (2 * mean_a * mean_b + c1) * (2 * both + c2)
                values.append(top_line / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(values))


def test_ssim_equals_the_plain_loop():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 14, 13, generator=draw) * 2 - 1
    y = (x + 0.3 * torch.randn(x.shape, generator=draw)).clamp(-1, 1)
    assert pixels.ssim(x, x).item() == pytest.approx(1.0)
    assert pixels.ssim(x, y).item() == pytest.approx(slow_ssim(x[0].numpy(), y[0].numpy(), 11, 1.5), abs=1e-5)
    with pytest.raises(BadPicture):
        pixels.ssim(x[..., :8], y[..., :8])


def test_gradient_energy_of_stripes_and_of_a_blur():
    flat = torch.full((1, 3, 16, 16), 0.5)
    stripes = torch.ones(1, 3, 16, 16)
    stripes[..., ::2] = -1
    assert pixels.gradient_energy(flat).item() == 0
    assert pixels.gradient_energy(stripes).item() == pytest.approx(4.0, rel=1e-5)  # steps of 2 across, none down
    blurred = torch.nn.functional.avg_pool2d(stripes, 3, 1, 1)
    assert pixels.gradient_energy(blurred).item() < 4.0
