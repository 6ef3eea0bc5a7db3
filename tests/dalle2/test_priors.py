"""All priors behind one interface: what each computes, against plain versions of it."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.dalle2.means import Guess, GuessConfig
from opendalle.dalle2.objectives import PairBatch
from opendalle.dalle2.priors.diffusion import DiffusionDraws, DiffusionPrior, DiffusionPriorConfig
from opendalle.dalle2.priors.linear import LinearPrior, LinearPriorConfig, ridge
from opendalle.dalle2.priors.objectives import ProjectionLossConfig, ProjectionObjective, caption_contrast
from opendalle.dalle2.priors.projection import PROJECTION_PRESETS, ProjectionPrior, ProjectionPriorConfig
from opendalle.dalle2.priors.protocol import Prior, Said, draw_nearest, refuse_unheeded
from opendalle.dalle2.priors.scores import score_prior
from opendalle.dalle2.priors.untrained import CaptionOnly, ShiftedText, ShiftedTextConfig, TextAsPicture
from opendalle.nn.transformer import TransformerConfig
from opendalle.samplers import GuidedDenoise, last_state, sample
from opendalle.samplers.settings import StageSettings

E, D, N = 16, 12, 6
SETTINGS = StageSettings(prediction="x0", steps=3, sampler="ddpm", guidance=2.0, clip=5.0)


def unit(rows: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(rows, E, generator=picture_generator(seed)), dim=-1)


def said(rows: int, seed: int = 0) -> Said:
    states = torch.randn(rows, N, D, generator=picture_generator(seed + 100))
    length = torch.randint(2, N + 1, (rows,), generator=picture_generator(seed + 200))
    return Said(unit(rows, seed), states, torch.arange(N) < length[:, None], torch.zeros(rows, dtype=torch.bool))


def generators(*seeds: int) -> list[Generator]:
    return [picture_generator(seed) for seed in seeds]


def alive(network: torch.nn.Module) -> None:
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.eval().requires_grad_(False)


def diffusion() -> DiffusionDraws:
    torch.manual_seed(0)
    network = DiffusionPrior(
        DiffusionPriorConfig(
            embedding_width=E,
            text_width=D,
            num_text_tokens=N,
            transformer=TransformerConfig(width=16, depth=1, heads=2, is_causal=True),
            has_guess=True,
            is_whitened=True,
        )
    )
    guess = Guess(GuessConfig(embedding_width=E, width=16, depth=1))
    network.measure(unit(50, seed=9))
    for one in (network, guess):
        alive(one)
    return DiffusionDraws(network, SETTINGS, guess)


def projection() -> ProjectionPrior:
    torch.manual_seed(0)
    network = ProjectionPrior(
        ProjectionPriorConfig(
            embedding_width=E,
            text_width=D,
            num_text_tokens=N,
            transformer=TransformerConfig(width=16, depth=1, heads=2),
        )
    )
    network.measure(unit(50, seed=9))
    alive(network)
    return network


def linear() -> LinearPrior:
    torch.manual_seed(0)
    return LinearPrior(LinearPriorConfig(embedding_width=E)).eval()


def test_candidates_are_those_of_one_block_of_noise() -> None:
    """As the pipeline drew them before priors had an interface: all candidates of a picture in one draw."""
    prior, captions, nothing, candidates = (
        diffusion(),
        said(3),
        said(1, seed=7).rows(torch.zeros(3, dtype=torch.long)),
        2,
    )
    found = draw_nearest(prior, captions, nothing, generators(1, 2, 3), candidates=candidates)

    own = generators(1, 2, 3)
    rows = torch.arange(3).repeat_interleave(candidates)
    noise = normal_like_rows(own, (candidates, E)).flatten(0, 1)
    network, guess = prior.network, prior.guess
    assert guess is not None
    read = [
        network.condition(one.pooled, one.states, one.mask, guess(one.pooled))
        for one in (captions.rows(rows), nothing.rows(rows))
    ]
    schedule = SETTINGS.make_schedule()
    denoise = GuidedDenoise(
        network.step,
        *({"conditioning": one} for one in read),
        schedule=schedule,
        prediction="x0",
        scale=2.0,
        clip=(-5.0, 5.0),
    )
    repeated = [generator for generator in own for _ in range(candidates)]
    states = sample(
        denoise, noise, SETTINGS.grid(schedule, None), schedule=schedule, sampler="ddpm", generators=repeated
    )
    z = F.normalize(network.denormalise(last_state(states).x_t), dim=-1).view(3, candidates, E)
    for row in range(3):
        nearest = max(z[row], key=lambda one: float(one @ captions.pooled[row]))
        assert torch.equal(found[row], nearest)


@pytest.mark.parametrize("make", [diffusion, projection, linear, TextAsPicture, CaptionOnly])
def test_every_prior_wears_the_interface(make: type) -> None:
    prior = make()
    assert isinstance(prior, Prior)
    captions, nothing = said(2), said(2, seed=5)
    drawn = prior.draw(captions, nothing, generators(0, 1))
    if isinstance(prior, CaptionOnly):
        assert drawn is None
        assert draw_nearest(prior, captions, nothing, generators(0, 1)) is None
        return
    assert drawn.shape == (2, E)
    alone = prior.draw(captions.rows(slice(1, 2)), nothing.rows(slice(1, 2)), generators(1))
    torch.testing.assert_close(drawn[1:], alone, atol=1e-5, rtol=1e-5)
    assert prior.is_random == (not torch.equal(drawn, prior.draw(captions, nothing, generators(2, 3))))
    if "guidance" in prior.knobs:
        off, half, full = (prior.draw(captions, nothing, generators(0, 1), guidance=s) for s in (1.0, 1.5, 2.0))
        assert not torch.equal(off, full)
        if not prior.is_random:
            assert off is not None
            assert full is not None
            torch.testing.assert_close(half, (off + full) / 2)


def test_of_a_prior_without_chance_there_is_one_candidate() -> None:
    class Counting(TextAsPicture):
        rows = 0

        def draw(self, said: Said, empty: Said, generators: Sequence[Generator], **asked: object) -> torch.Tensor:
            self.rows += len(generators)
            return said.pooled

    prior = Counting()
    draw_nearest(prior, said(3), said(3), generators(0, 1, 2), candidates=4)
    assert prior.rows == 3


def test_a_wish_that_would_be_ignored_is_refused() -> None:
    refuse_unheeded("diffusion", diffusion(), steps=4, guidance=2.0, candidates=3)
    refuse_unheeded("linear", linear(), steps=None, guidance=2.0, candidates=None)
    for name, wishes in (("linear", {"steps": 4}), ("linear", {"candidates": 2}), ("none", {"guidance": 2.0})):
        prior = linear() if name == "linear" else TextAsPicture()
        with pytest.raises(BadRequest, match=f"{next(iter(wishes))}.*{name}"):
            refuse_unheeded(name, prior, **wishes)


def test_ridge_is_least_squares_on_rows_that_pull_to_zero() -> None:
    x, y = (torch.randn(40, 5, generator=picture_generator(seed), dtype=torch.float64) for seed in (1, 2))
    weight, bias = ridge(x, y, 0.3)
    centred = x - x.mean(dim=0)
    strength = 0.3 * centred.square().mean()
    pull = (strength * 40).sqrt() * torch.eye(5, dtype=torch.float64)
    plain = torch.linalg.lstsq(torch.cat([centred, pull]), torch.cat([y - y.mean(dim=0), 0 * pull])).solution
    torch.testing.assert_close(weight, plain)
    torch.testing.assert_close(x.mean(dim=0) @ weight + bias, y.mean(dim=0))


def test_the_penalty_is_the_one_that_held_out_rows_like_best() -> None:
    z_t = unit(400)
    turn = torch.linalg.qr(torch.randn(E, E, generator=picture_generator(3)))[0]
    prior = linear()
    assert prior.fit(z_t, z_t @ turn + 0.1) == 1e-7  # nothing but a rotation and a shift: no penalty helps
    torch.testing.assert_close(prior(z_t), z_t @ turn + 0.1, atol=1e-5, rtol=1e-4)
    few = torch.randn(20, E, generator=picture_generator(4))
    assert prior.fit(z_t[:20], few) > 1e-3  # nothing to be found: the more penalty the better
    with pytest.raises(BadConfig, match="held out"):
        prior.fit(z_t[:1], few[:1])


def test_the_shift_brings_captions_among_pictures() -> None:
    z_t, z = unit(100, seed=1), unit(100, seed=2) + 0.2
    prior = ShiftedText(ShiftedTextConfig(embedding_width=E))
    prior.fit(z_t, z)
    captions = Said(z_t, torch.zeros(100, N, D))
    shifted = prior.draw(captions, captions, generators())
    torch.testing.assert_close(shifted.mean(dim=0), z.mean(dim=0))
    torch.testing.assert_close(shifted - shifted.mean(dim=0), z_t - z_t.mean(dim=0), atol=1e-6, rtol=1e-4)


def test_padding_changes_no_projection() -> None:
    prior, captions = projection(), said(3)
    assert captions.mask is not None
    spoiled = captions.states.masked_fill(~captions.mask[..., None], 7.0)
    wanted = prior(captions.pooled, captions.states, captions.mask)
    torch.testing.assert_close(prior(captions.pooled, spoiled, captions.mask), wanted)
    with pytest.raises(BadRequest, match="text states"):
        prior(captions.pooled, captions.states[:, 1:], None)


def test_contrast_is_the_plain_sum_and_twins_are_no_strangers() -> None:
    z, z_t = unit(5, seed=3) * 0.4, unit(5, seed=4)
    odds = torch.tensor([[10 * float(one @ other / one.norm()) for other in z_t] for one in z])
    wanted = twice = 0.0
    for row in range(5):
        own = odds[row, row].exp()
        others = odds[row].exp().sum() - own
        wanted -= (own / (own + others)).log().item() / 5
        twice -= (own / (own + 2 * others)).log().item() / 5  # its twin is left out, the others' twins are strangers
    assert caption_contrast(z, z_t, 10.0).item() == pytest.approx(wanted, rel=1e-5)
    doubled = caption_contrast(torch.cat([z, z]), torch.cat([z_t, z_t]), 10.0)
    assert doubled.item() == pytest.approx(twice, rel=1e-5)


def test_a_projection_learns_what_captions_mean() -> None:
    torch.manual_seed(0)
    captions, z = said(8), unit(8, seed=8)
    assert captions.mask is not None
    table = {tuple(row.tolist()): k for k, row in enumerate(torch.arange(8)[:, None].expand(-1, N))}

    def read(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.tensor([table.get(tuple(row.tolist()), 0) for row in ids])
        return captions.pooled[rows], captions.states[rows]

    network = projection().requires_grad_(True).train()
    network.measure(z)
    empty = torch.zeros(N, dtype=torch.long), torch.ones(N, dtype=torch.bool)
    objective = ProjectionObjective(network, read, empty, ProjectionLossConfig(caption_drop=0.0), scale=5.0)
    batch = PairBatch(z=z, ids=torch.arange(8)[:, None].expand(-1, N), mask=captions.mask)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    rng, seen = picture_generator(0), list[float]()
    for _ in range(250):
        losses = objective(batch, rng)
        optimiser.zero_grad()
        losses.total["projection"].backward()
        optimiser.step()
        seen.append(losses.watch["cosine"])
    assert seen[0] < 0.5
    assert seen[-1] > 0.9


def test_the_preset_for_karlo_has_the_papers_size() -> None:
    with torch.device("meta"):
        network = ProjectionPrior(PROJECTION_PRESETS["karlo"])
    assert 32e6 < sum(one.numel() for one in network.parameters()) < 35e6


def test_scores_of_a_prior_that_knows_and_of_one_that_does_not() -> None:
    z, captions = unit(40, seed=5), said(40)
    empty = said(1, seed=6)
    truth = score_prior(TextAsPicture(), Said(z, captions.states), empty, z)
    assert truth.cosine == pytest.approx(1, abs=1e-5)
    assert (truth.finds_picture, truth.finds_picture_5) == (1.0, 1.0)
    assert truth.spread == pytest.approx(1, abs=1e-5)
    other = score_prior(TextAsPicture(), captions, empty, z)
    assert other.cosine == pytest.approx(F.cosine_similarity(captions.pooled, z).mean().item(), abs=1e-5)
    assert other.finds_picture < 0.3
    with pytest.raises(BadRequest, match="no embeddings"):
        score_prior(CaptionOnly(), captions, empty, z)
