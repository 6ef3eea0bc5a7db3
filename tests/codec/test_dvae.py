"""The discrete autoencoder against the paper's numbers, closed forms and slow plain versions."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadConfig
from opendalle.codec.codebook import CodebookUse, collapsed, perplexity_of, wrong_range
from opendalle.codec.dvae import DVAE_PRESETS, DiscreteVAE, DiscreteVAEConfig, squeeze, unsqueeze
from opendalle.codec.dvae_objective import (
    DiscreteVAELossConfig,
    DiscreteVAEObjective,
    cosine,
    kl_from_uniform,
    log_likelihood,
    relaxed,
)
from opendalle.codec.protocol import TokenCodec

TINY = DiscreteVAEConfig(picture_size=16, picture_channels=4, vocabulary=32, width=8, code_width=6, blocks=1)


@dataclass(frozen=True)
class Pictures:
    """The least that the objective asks of a batch."""

    pictures: Tensor


def smooth(count: int = 4, seed: int = 0) -> Tensor:
    """Smooth random pictures in [-1, 1]."""
    coarse = torch.rand(count, 4, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=16, mode="bilinear").clamp(-1, 1)


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        network = DiscreteVAE(DVAE_PRESETS["openai"])
    counts = [sum(weight.numel() for weight in half.parameters()) for half in (network.encoder, network.decoder)]
    assert counts == [53_786_240, 43_829_766]


def test_looking_words_up_is_drawing_from_a_one_hot_mixture() -> None:
    torch.manual_seed(0)
    network = DiscreteVAE(TINY)
    assert isinstance(network, TokenCodec)
    torch.nn.init.normal_(network.decoder.codebook.bias)  # so that a forgotten bias shows
    tokens = network.encode_tokens(smooth())
    one_hot = torch.nn.functional.one_hot(tokens, TINY.vocabulary).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(network.decoder(tokens), network.decoder.from_mixture(one_hot))
    assert network.decode_tokens(tokens).shape == (4, 4, 16, 16)


def test_no_picture_of_all_words_is_built_to_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    network = DiscreteVAE(TINY)

    def refuse(*_: object) -> None:
        raise AssertionError("a mixture was built")

    monkeypatch.setattr(network.decoder, "from_mixture", refuse)
    network.decode_tokens(torch.zeros(1, 2, 2, dtype=torch.long))


def test_squeezing_comes_undone() -> None:
    pictures = smooth()
    squeezed = squeeze(pictures, 0.1)
    assert 0.1 - 1e-6 <= squeezed.min() <= squeezed.max() <= 0.9 + 1e-6
    torch.testing.assert_close(unsqueeze(squeezed.logit(), 0.1), pictures, atol=1e-5, rtol=0)


def test_the_likelihood_is_a_density_on_the_unit_interval() -> None:
    x = torch.linspace(1e-4, 1 - 1e-4, 200_001, dtype=torch.float64)
    for mu, log_b in ((0.0, -0.5), (1.5, -1.0), (-2.0, -0.7)):
        ones = torch.ones(1, 1, 1, len(x), dtype=torch.float64)
        density = log_likelihood(x.view(1, 1, 1, -1), mu * ones, log_b * ones).exp().flatten()
        assert math.isclose(torch.trapezoid(density, x).item(), 1.0, abs_tol=2e-3)


def test_the_likelihood_has_its_closed_form() -> None:
    x, mu, b = 0.3, 0.2, 0.7
    plain = -math.log(2 * b * x * (1 - x)) - abs(math.log(x / (1 - x)) - mu) / b
    one = torch.ones(1, 1, 1, 1)
    assert math.isclose(log_likelihood(x * one, mu * one, math.log(b) * one).item(), plain, rel_tol=1e-5)


def test_kl_is_that_of_the_plain_logits_from_an_even_choice() -> None:
    logits = torch.randn(2, 5, 3, 3)
    kl = kl_from_uniform(logits)
    for b in range(2):
        for y in range(3):
            for x in range(3):
                share = [math.exp(v) for v in logits[b, :, y, x].tolist()]
                share = [v / sum(share) for v in share]
                plain = sum(v * math.log(v * 5) for v in share)
                assert math.isclose(kl[b, y, x].item(), plain, rel_tol=1e-4, abs_tol=1e-6)
    torch.testing.assert_close(kl_from_uniform(torch.zeros(1, 7, 2, 2)), torch.zeros(1, 2, 2), atol=1e-6, rtol=0)


def test_relaxed_words_are_mixtures_whose_winner_is_drawn_from_the_softmax() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 200, 200)
    words = relaxed(logits, 0.5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(words.sum(dim=1), torch.ones(1, 200, 200))
    won = torch.bincount(words.argmax(dim=1).flatten(), minlength=3) / 40_000
    torch.testing.assert_close(won, torch.tensor([1.0, 0.0, -1.0]).softmax(0), atol=0.01, rtol=0)
    cold = relaxed(logits, 1 / 16, torch.Generator().manual_seed(0))
    assert cold.amax(dim=1).mean() > words.amax(dim=1).mean()


def test_schedules_follow_half_a_cosine_and_stay() -> None:
    assert cosine(1.0, 1 / 16, 0.0, 0.5) == 1.0
    assert math.isclose(cosine(1.0, 1 / 16, 0.25, 0.5), (1 + 1 / 16) / 2)
    assert cosine(1.0, 1 / 16, 0.5, 0.5) == cosine(1.0, 1 / 16, 1.0, 0.5) == 1 / 16
    assert cosine(0.0, 6.6, 0.0, 0.0) == 6.6


def test_the_loss_divides_everything_by_the_numbers_of_a_picture() -> None:
    torch.manual_seed(0)
    objective = DiscreteVAEObjective(DiscreteVAE(TINY), DiscreteVAELossConfig(kl=6.6))
    objective.before_step(1, 1)
    losses = objective(Pictures(smooth()), torch.Generator().manual_seed(0))
    cells, numbers = 2 * 2, 4 * 16 * 16
    plain = losses.watch["reconstruction"] + 6.6 * losses.watch["kl"] * cells / numbers
    assert math.isclose(losses.total["codec"].item(), plain, rel_tol=1e-5)


def test_training_lowers_the_loss_and_shows_what_it_does() -> None:
    torch.manual_seed(0)
    network = DiscreteVAE(TINY)
    objective = DiscreteVAEObjective(network, DiscreteVAELossConfig(kl=0.1, temperature_share=0.5))
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    rng, seen = torch.Generator().manual_seed(0), []
    for step in range(40):
        objective.before_step(step, 40)
        losses = objective(Pictures(smooth(16)), rng)
        optimiser.zero_grad()
        losses.total["codec"].backward()
        optimiser.step()
        seen.append(losses)
    assert seen[-1].total["codec"] < seen[0].total["codec"] - 0.1
    watch = seen[-1].watch
    assert math.isclose(watch["gap"], watch["psnr_soft"] - watch["psnr_hard"])
    assert 1 <= watch["perplexity"] <= 32
    assert 0 < watch["words_used"] <= 1
    assert watch["temperature"] == 1 / 16


def test_a_run_resumes_with_its_count_of_words() -> None:
    torch.manual_seed(0)
    objective = DiscreteVAEObjective(DiscreteVAE(TINY), DiscreteVAELossConfig())
    objective(Pictures(smooth()), torch.Generator().manual_seed(0))
    other = DiscreteVAEObjective(objective.codec, DiscreteVAELossConfig())
    other.recall(objective.remember())
    assert other.use.perplexity == objective.use.perplexity > 1


def test_perplexity_is_the_number_of_words_evenly_used() -> None:
    assert math.isclose(perplexity_of(torch.tensor([3.0, 3.0, 3.0, 0.0])), 3.0)
    assert perplexity_of(torch.zeros(4)) == 1.0
    use = CodebookUse(4, memory=8)
    use.see(torch.tensor([[[0, 0, 0, 1]]]))
    assert use.share_used == 0.5
    assert not use.is_full
    for _ in range(20):
        use.see(torch.tensor([[[2, 2, 2, 2]]]))
    assert use.share_used == 0.25
    assert use.perplexity < 1.1


def test_collapse_and_wrong_ranges_are_told_once() -> None:
    told: list[str] = []
    torch.manual_seed(0)
    objective = DiscreteVAEObjective(DiscreteVAE(TINY), DiscreteVAELossConfig(), told.append)
    with torch.no_grad():
        weight, bias = list(objective.codec.encoder.parameters())[-2:]
        weight.zero_()  # every cell says the same
        bias.copy_(torch.arange(32.0))
    objective.before_step(1, 2)
    for k in range(80):
        objective(Pictures(smooth(16, k).abs()), torch.Generator().manual_seed(k))
    assert len(told) == 2
    assert "0 to 1" in told[0]
    assert "collapsed" in told[1]
    assert "KL" in told[1]


@pytest.mark.parametrize(("least", "most", "said"), [(0.0, 255.0, "127.5"), (0.0, 1.0, "0 to 1"), (-1.0, 1.0, None)])
def test_ranges(least: float, most: float, said: str | None) -> None:
    warning = wrong_range(least, most)
    assert warning is None if said is None else said in (warning or "")


def test_a_codebook_in_use_is_not_called_collapsed() -> None:
    assert collapsed(200, 2048, "x") is None
    assert "3.0 of 2048" in (collapsed(3, 2048, "x") or "")


@pytest.mark.parametrize(
    "wrong", [{"width": 10}, {"squeeze": 0.5}, {"picture_size": 60}, {"vocabulary": 0}, {"picture_channels": 2}]
)
def test_refused_shapes(wrong: dict[str, float]) -> None:
    with pytest.raises(BadConfig):
        DiscreteVAEConfig(**wrong)


def test_a_picture_alone_has_the_words_it_has_in_a_batch() -> None:
    torch.manual_seed(1)
    network, pictures = DiscreteVAE(TINY), smooth(5)
    together = network.encode_tokens(pictures)
    for k in range(5):
        np.testing.assert_array_equal(network.encode_tokens(pictures[k : k + 1])[0].numpy(), together[k].numpy())
