"""The prior that writes codes: codes and back, the cache against no cache, the loss against a plain sum."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.rng import picture_generator
from opendalle.dalle2.objectives import PairBatch, PriorLossConfig
from opendalle.dalle2.priors.autoregressive import (
    AUTOREGRESSIVE_PRESETS,
    AutoregressivePrior,
    AutoregressivePriorConfig,
    NextCode,
    joined,
)
from opendalle.dalle2.priors.codes import EmbeddingCodes, num_axes_for
from opendalle.dalle2.priors.objectives import AutoregressiveObjective
from opendalle.dalle2.priors.protocol import Prior, Said, draw_nearest
from opendalle.nn.transformer import TransformerConfig
from opendalle.samplers import GuidedLogits, sample_tokens

E, D, N, CODES, BUCKETS = 16, 12, 6, 5, 8
CONFIG = AutoregressivePriorConfig(
    embedding_width=E,
    text_width=D,
    num_text_tokens=N,
    transformer=TransformerConfig(width=16, depth=2, heads=2, is_causal=True),
    num_codes=CODES,
    num_buckets=BUCKETS,
    num_nearness=4,
    has_guess=True,
)


def flat(rows: int, seed: int = 0) -> torch.Tensor:
    """Draw embeddings that lie near a plane of five axes, each narrower than the one before."""
    rng = picture_generator(seed)
    axes = torch.linalg.qr(torch.randn(E, E, generator=picture_generator(77)))[0]
    spread = torch.tensor([1.0, 0.7, 0.5, 0.3, 0.2, *[0.01] * (E - 5)])
    return (torch.randn(rows, E, generator=rng) * spread) @ axes.T + 0.1


def said(rows: int, seed: int = 0) -> Said:
    states = torch.randn(rows, N, D, generator=picture_generator(seed + 100))
    length = torch.randint(2, N, (rows,), generator=picture_generator(seed + 200))
    pooled = F.normalize(torch.randn(rows, E, generator=picture_generator(seed + 300)), dim=-1)
    return Said(pooled, states, torch.arange(N) < length[:, None], torch.zeros(rows, dtype=torch.bool))


@pytest.fixture
def prior() -> AutoregressivePrior:
    torch.manual_seed(0)
    network = AutoregressivePrior(CONFIG)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    z = flat(400)
    network.measure(z, F.normalize(flat(400, seed=1), dim=-1))
    return network.eval()


def test_codes_come_back_and_every_bucket_holds_as_many() -> None:
    z, codes = flat(800), EmbeddingCodes(E, CODES, BUCKETS)
    codes.fit(z)
    found = codes.encode(z)
    assert found.shape == (800, CODES)
    for axis in range(CODES):
        assert torch.bincount(found[:, axis], minlength=BUCKETS).tolist() == [100] * BUCKETS
    every = torch.arange(BUCKETS)[:, None].expand(-1, CODES)
    assert torch.equal(codes.encode(codes.decode(every)), every)
    for code in range(BUCKETS):  # the value of a bucket is the mean of what lies in it
        inside = found[:, 0] == code
        along = (codes.decode(found[inside]) - z[inside]) @ codes.axes.view(E, CODES)[:, 0]
        assert abs(along.mean().item()) < 1e-5


def test_more_buckets_say_more_and_axes_are_ordered_by_width() -> None:
    z, errors = flat(4000), []
    for buckets in (4, 32, 256):
        codes = EmbeddingCodes(E, CODES, buckets)
        codes.fit(z)
        errors.append(((codes.decode(codes.encode(z)) - z).square().sum() / (z - z.mean(0)).square().sum()).item())
    assert errors[0] > 5 * errors[1] > 5 * errors[2]
    assert errors[2] < 0.01
    along = (z - codes.mean) @ codes.axes.view(E, CODES)
    assert along.std(dim=0).tolist() == sorted(along.std(dim=0).tolist(), reverse=True)


def test_too_few_axes_are_refused_with_the_number_that_would_do() -> None:
    z = flat(400)
    assert num_axes_for(z) == 5
    EmbeddingCodes(E, 5, BUCKETS).fit(z)
    with pytest.raises(BadConfig, match="Keep 5 axes"):
        EmbeddingCodes(E, 4, BUCKETS).fit(z)
    with pytest.raises(BadConfig, match="as many at least"):
        EmbeddingCodes(E, 5, BUCKETS).fit(z[:7])


def test_with_a_cache_as_without_as_in_training(prior: AutoregressivePrior) -> None:
    captions, codes = said(3), torch.randint(BUCKETS, (3, CODES), generator=picture_generator(5))
    nearness = torch.tensor([0, 3, 4])
    at_once = prior(codes[:, :-1], nearness, captions.pooled, captions.states, captions.mask)
    assert at_once.shape == (3, CODES, BUCKETS)
    next_code = NextCode(prior, captions, nearness)
    cache = next_code.new_cache()
    for known in range(CODES):
        plain = next_code(codes[:, :known], None)
        torch.testing.assert_close(plain, at_once[:, known], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(next_code(codes[:, :known], cache), plain, atol=1e-5, rtol=1e-5)
    assert cache.length == cache.capacity  # every place of the cache was used, none twice


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_drawing_is_the_uncached_one(prior: AutoregressivePrior, guidance: float) -> None:
    captions, nothing = said(3), said(3, seed=9)
    rows = [picture_generator(seed) for seed in (1, 2, 3)]
    drawn = prior.draw(captions, nothing, rows, guidance=guidance)

    rows = [picture_generator(seed) for seed in (1, 2, 3)]
    nearness = prior.draw_nearness(captions, rows)
    assert (nearness >= 2).all()
    assert (nearness < 4).all()
    both = NextCode(prior, joined(captions, nothing), torch.cat([nearness, torch.full((3,), 4)]))
    start = torch.zeros(3, 0, dtype=torch.long)
    *_, ended = sample_tokens(GuidedLogits(both, guidance), start, CODES, generators=rows, cache=None)
    torch.testing.assert_close(drawn, prior.codes.decode(ended.tokens))
    assert torch.equal(prior.codes.encode(drawn), ended.tokens)


def test_a_caption_draws_the_same_alone_and_padding_says_nothing(prior: AutoregressivePrior) -> None:
    assert isinstance(prior, Prior)
    captions, nothing = said(4), said(4, seed=9)
    together = draw_nearest(prior, captions, nothing, [picture_generator(k) for k in range(4)], candidates=2)
    for row in range(4):
        one = slice(row, row + 1)
        alone = draw_nearest(prior, captions.rows(one), nothing.rows(one), [picture_generator(row)], candidates=2)
        torch.testing.assert_close(together[one], alone)
    assert captions.mask is not None
    spoiled = dataclasses.replace(captions, states=captions.states.masked_fill(~captions.mask[..., None], 9.0))
    again = draw_nearest(prior, spoiled, nothing, [picture_generator(k) for k in range(4)], candidates=2)
    torch.testing.assert_close(again, together)


def test_nearness_counts_training_pictures_and_is_drawn_from_their_upper_half(prior: AutoregressivePrior) -> None:
    z, z_t = flat(400), F.normalize(flat(400, seed=1), dim=-1)
    near = prior.nearness_of(z, z_t)
    assert torch.bincount(near, minlength=4).tolist() == pytest.approx([100] * 4, abs=1)
    assert (z * z_t).sum(dim=1)[near >= 2].min() >= (z * z_t).sum(dim=1).median()
    dropped = torch.arange(400) % 2 == 0
    assert (prior.nearness_of(z, z_t, dropped)[dropped] == 4).all()
    many = prior.draw_nearness(said(2).rows(torch.zeros(600, dtype=torch.long)), [picture_generator(3)] * 600)
    assert torch.bincount(many, minlength=5)[[0, 1, 4]].sum() == 0
    assert abs((many == 2).float().mean().item() - 0.5) < 0.1
    nobody = dataclasses.replace(said(3), is_empty=torch.tensor([True, False, True]))
    assert (prior.draw_nearness(nobody, [picture_generator(3)] * 3) == 4).tolist() == [True, False, True]


def test_the_guess_is_what_least_squares_expects(prior: AutoregressivePrior) -> None:
    turn = torch.linalg.qr(torch.randn(E, E, generator=picture_generator(6)))[0]
    z_t = flat(400, seed=3)
    prior.measure(z_t @ turn, z_t)  # pictures that follow from their captions altogether
    guessed, codes = prior.guess(z_t), prior.codes.encode(z_t @ turn)
    assert guessed is not None
    assert (guessed - codes).abs().max() <= 1
    assert (guessed == codes).float().mean() > 0.95
    without = AutoregressivePrior(dataclasses.replace(CONFIG, has_guess=False))
    assert without.guess(z_t) is None
    codes = torch.zeros(2, CODES - 1, dtype=torch.long)
    assert without(codes, codes[:, 0], z_t[:2], torch.zeros(2, N, D)).shape == (2, CODES, BUCKETS)


def test_the_loss_is_the_plain_sum_and_a_dropped_caption_leaves_no_trace(prior: AutoregressivePrior) -> None:
    captions, z = said(4), flat(4, seed=2)
    assert captions.mask is not None
    given: list[torch.Tensor] = []

    def read(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        given.append(ids)
        return captions.pooled, captions.states

    batch = PairBatch(z=z, ids=torch.ones(4, N, dtype=torch.long), mask=captions.mask)
    empty = torch.zeros(N, dtype=torch.long), torch.arange(N) < 2
    keep = AutoregressiveObjective(prior, read, empty, PriorLossConfig(caption_drop=0.0))
    loss = keep(batch, picture_generator(0)).total["ar"].item()
    codes, nearness = prior.codes.encode(z), prior.nearness_of(z, captions.pooled)
    wanted = 0.0
    for row in range(4):
        said_row = captions.rows(slice(row, row + 1))
        next_code = NextCode(prior, said_row, nearness[row : row + 1])
        for place in range(CODES):
            odds = next_code(codes[row : row + 1, :place], None).log_softmax(dim=1)
            wanted -= odds[0, codes[row, place]].item() / (4 * CODES)
    assert loss == pytest.approx(wanted, rel=1e-4)
    drop = AutoregressiveObjective(prior, read, empty, PriorLossConfig(caption_drop=0.999))
    seen: list[torch.Tensor] = []
    prior.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    drop(batch, picture_generator(0))
    assert (given[-1] == 0).all()
    assert (seen[-1] == 4).all()


def test_it_learns_a_sentence_by_heart() -> None:
    torch.manual_seed(0)
    network, z, captions = AutoregressivePrior(CONFIG), flat(400), said(6)
    assert captions.mask is not None
    network.measure(z, F.normalize(flat(400, seed=1), dim=-1))

    def read(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return captions.pooled, captions.states

    objective = AutoregressiveObjective(
        network, read, (torch.zeros(N, dtype=torch.long), captions.mask[0]), PriorLossConfig(caption_drop=0.0)
    )
    batch = PairBatch(z=z[:6], ids=torch.ones(6, N, dtype=torch.long), mask=captions.mask)
    optimiser, loss = torch.optim.Adam(network.parameters(), lr=1e-2), torch.tensor(torch.inf)
    for _ in range(150):
        optimiser.zero_grad()
        loss = objective(batch, picture_generator(0)).total["ar"]
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05
    assert network.eval().nearness_of(z[:6], captions.pooled).max() < 4


def test_configs_that_cannot_be_are_refused_and_the_papers_size() -> None:
    wrong = (
        {"num_nearness": 3},
        {"text_scale": 0.0},
        {"guidance": -1.0},
        {"transformer": TransformerConfig(width=16, depth=1, heads=2)},
    )
    for change in wrong:
        with pytest.raises(BadConfig):
            dataclasses.replace(CONFIG, **change)
    with pytest.raises(BadRequest, match="text states"):
        AutoregressivePrior(CONFIG)(
            torch.zeros(1, 0).long(), torch.zeros(1).long(), torch.zeros(1, E), torch.zeros(1, 2, D)
        )
    with torch.device("meta"):
        blocks = AutoregressivePrior(AUTOREGRESSIVE_PRESETS["paper"]).transformer
    assert sum(one.numel() for one in blocks.parameters()) == pytest.approx(0.80e9, rel=0.01)
