"""Guess and sketch: the mean of what belongs to an embedding, and its place beside what is noised."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.dalle2.decoder import DECODER_PRESETS, Decoder, DecoderConfig
from opendalle.dalle2.decoder_objective import DecoderLossConfig, DecoderObjective
from opendalle.dalle2.means import (
    SKETCH_PRESETS,
    Guess,
    GuessConfig,
    RoleReader,
    RoleReaderConfig,
    Sketch,
    SketchConfig,
)
from opendalle.dalle2.objectives import (
    GuessObjective,
    PairBatch,
    PriorLossConfig,
    PriorObjective,
    SketchObjective,
    disturbed,
    doubted,
    draw_doubt,
)
from opendalle.dalle2.pipeline import Dalle2
from opendalle.dalle2.priors.diffusion import DiffusionPrior, DiffusionPriorConfig
from opendalle.diffusion.schedules import cosine
from opendalle.nn.grid_transformer import GridTransformerConfig
from opendalle.nn.transformer import TransformerConfig
from opendalle.nn.whitening import Whitening

SMALL = SketchConfig(embedding_width=8, channels=3, side=2, width=32, depth=1)
DECODER = DecoderConfig(
    embedding_width=8,
    text_width=12,
    text_embedding_width=8,
    transformer=GridTransformerConfig(
        in_channels=6, out_channels=3, patch=2, width=16, depth=1, heads=2, time_width=16, context_width=16
    ),
    has_sketch=True,
)


def unit(rows: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def pairs(z: torch.Tensor, grid: torch.Tensor) -> PairBatch:
    ids = torch.ones(len(z), 4, dtype=torch.long)
    return PairBatch(z=z, ids=ids, mask=torch.ones(len(z), 4, dtype=torch.bool), grid=grid)


def decoder_with_sketch() -> tuple[Decoder, Sketch]:
    torch.manual_seed(0)
    decoder, sketch = Decoder(DECODER), Sketch(SMALL)
    sketch.mean.whitening.fit(unit(50))
    for network in (decoder, sketch):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        network.eval()
    return decoder, sketch


def test_it_learns_the_mean_of_what_an_embedding_shows() -> None:
    torch.manual_seed(0)
    z = unit(4)
    grids = torch.randn(2, 4, 3, 2, 2)  # two pictures of every embedding
    sketch = Sketch(SMALL)
    sketch.mean.whitening.fit(unit(100, seed=1))
    objective = SketchObjective(sketch, word_zeros, EMPTY)
    optimiser = torch.optim.Adam(sketch.parameters(), lr=4e-3)
    batch = pairs(z.repeat(2, 1), grids.flatten(0, 1))
    for _ in range(800):
        optimiser.zero_grad()
        objective(batch, torch.Generator()).total["sketch"].backward()
        optimiser.step()
    torch.testing.assert_close(sketch(z), grids.mean(dim=0), atol=2e-2, rtol=0)


def test_noise_is_measured_along_the_axes() -> None:
    z, whitening = unit(2_000) * torch.tensor([1.0, 0.5, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05]), Whitening(8)
    whitening.fit(z)
    rng = torch.Generator().manual_seed(1)
    moved = disturbed(z, 0.3, whitening, rng) - z
    torch.testing.assert_close(
        whitening(z + moved).sub(whitening(z)).std(dim=0), torch.full((8,), 0.3), atol=0.02, rtol=0
    )
    plain = disturbed(z, 0.3, None, rng) - z
    torch.testing.assert_close(plain.std(dim=0), 0.3 * z.std(dim=0), atol=0.02, rtol=0)
    assert disturbed(z, 0.0, whitening, rng) is z


def test_the_decoder_sees_the_sketch_beside_the_noised_grid() -> None:
    decoder, _ = decoder_with_sketch()
    z, x, t = unit(2), torch.randn(2, 3, 4, 4), torch.tensor([3, 900])
    text, states = torch.randn(2, 8), torch.randn(2, 5, 12)
    grid = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        conditioning = decoder.condition(z, text, states, sketch=grid)
        wanted = decoder.body(
            torch.cat([x, grid], 1), t, embedding=conditioning.embedding, context=conditioning.context
        )
        torch.testing.assert_close(decoder(x, t, conditioning), wanted)
        some = decoder.condition(z, text, states, sketch=grid, has_embedding=torch.tensor([True, False]))
        assert some.sketch is not None
        assert torch.equal(some.sketch, torch.stack([grid[0], torch.zeros_like(grid[1])]))
        picked = conditioning.rows(torch.tensor([1]))
        torch.testing.assert_close(decoder(x[1:], t[1:], picked), wanted[1:])


def test_the_decoder_trains_on_the_sketches_of_disturbed_embeddings() -> None:
    decoder, sketch = decoder_with_sketch()
    grid = torch.randn(3, 3, 2, 2)
    empty = torch.ones(4, dtype=torch.long), torch.ones(4, dtype=torch.bool)

    def read(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(ids), 8), torch.zeros(len(ids), ids.shape[1], 12)

    seen = []
    sketch.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    loss = DecoderLossConfig(prediction="v", embedding_noise=0.3)
    objective = DecoderObjective(decoder, cosine(), read, empty, loss, sketch)
    objective(pairs(unit(3), grid), torch.Generator().manual_seed(0)).total["decoder"].backward()
    assert not torch.equal(seen[0], unit(3))
    assert all(one.grad is None for one in sketch.parameters())
    assert list(objective.groups) == ["decoder"]


def test_with_and_without_are_not_mixed_up() -> None:
    decoder, _ = decoder_with_sketch()
    text, states = torch.randn(2, 8), torch.randn(2, 5, 12)
    with pytest.raises(BadRequest, match="a sketch"):
        decoder.condition(unit(2), text, states)
    body = dataclasses.replace(DECODER.body, in_channels=3)
    plain = Decoder(dataclasses.replace(DECODER, has_sketch=False, transformer=body))
    with pytest.raises(BadRequest, match="without"):
        plain.condition(unit(2), text, states, sketch=torch.zeros(2, 3, 4, 4))
    with pytest.raises(BadConfig, match="channels in"):
        dataclasses.replace(DECODER, transformer=body)
    with pytest.raises(BadConfig, match="sizes"):
        dataclasses.replace(SMALL, side=0)
    with pytest.raises(BadConfig, match="embedding_noise"):
        SketchObjective(Sketch(SMALL), word_zeros, EMPTY, -1.0)
    with pytest.raises(BadConfig, match="doubt_share"):
        SketchObjective(Sketch(SMALL), word_zeros, EMPTY, doubt_share=1.5)


def test_the_emoji_presets_fit_each_other() -> None:
    sketch, decoder = SKETCH_PRESETS["emoji"], DECODER_PRESETS["emoji"]
    assert decoder.has_sketch
    assert sketch.channels == decoder.grid_channels == decoder.body.out_channels
    with torch.device("meta"):
        assert sum(one.numel() for one in Sketch(sketch).parameters()) < 7e6


# ------------------------------------------------------------------------------------- what the caption says of places

READER = RoleReaderConfig(word_width=12, num_words=5, text=TransformerConfig(width=16, depth=1, heads=2), num_roles=3)
READING = dataclasses.replace(SMALL, side=4, reader=READER)


def test_roles_are_weighted_sums_of_the_words_that_are_there() -> None:
    torch.manual_seed(0)
    reader = RoleReader(READER).eval()
    words, mask = torch.randn(2, 4, 12) * 0.05, torch.tensor([[True, True, True, False], [True, False, False, False]])
    with torch.no_grad():
        roles = reader(words, mask)
        plain = reader.values_norm(words)
        for row, count in ((0, 3), (1, 1)):
            kept = plain[row, :count]
            weights = torch.linalg.lstsq(kept.T, roles[row].T).solution  # (count, roles)
            torch.testing.assert_close(kept.T @ weights, roles[row].T, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(weights.sum(dim=0), torch.ones(3), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(reader(words[:, :3], mask[:, :3]), roles)  # padding is not read
        other = words[:, [1, 0, 2, 3]]
        assert not torch.allclose(reader(other, mask)[0], roles[0])  # order counts
    with pytest.raises(BadConfig, match="sizes"):
        dataclasses.replace(READER, num_roles=0)


def test_a_sketch_that_reads_wants_words() -> None:
    with pytest.raises(BadRequest, match="without words"):
        Sketch(READING)(unit(3))
    assert Sketch(SMALL)(unit(3), torch.zeros(3, 5, 12)).shape == (3, 3, 2, 2)  # one that does not, leaves them


def test_the_sketch_learns_from_words_what_the_embedding_does_not_say() -> None:
    torch.manual_seed(0)
    z = unit(1).expand(2, -1)  # two pictures that CLIP cannot tell apart
    grids, states = torch.randn(2, 3, 4, 4), torch.randn(2, 4, 12)
    sketch = Sketch(READING)
    sketch.mean.whitening.fit(unit(100, seed=1))
    objective = SketchObjective(sketch, lambda ids: states, EMPTY, caption_drop=0.0)
    optimiser = torch.optim.Adam(sketch.parameters(), lr=4e-3)
    for _ in range(500):
        optimiser.zero_grad()
        objective(pairs(z, grids), torch.Generator()).total["sketch"].backward()
        optimiser.step()
    torch.testing.assert_close(sketch(z, states), grids, atol=5e-2, rtol=0)


def test_a_doubt_of_one_is_the_error_of_a_guess() -> None:
    torch.manual_seed(0)
    sketch, z = Sketch(READING), unit(4_000)
    sketch.mean.whitening.fit(z)
    white = sketch.mean.whitening(z)
    off = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    sketch.measure_error(z, sketch.mean.whitening.inverse(white + off))
    torch.testing.assert_close(sketch.error, off, atol=1e-3, rtol=1e-3)
    for doubt in (0.0, 0.5, 1.0):
        rng = torch.Generator().manual_seed(3)
        moved = sketch.mean.whitening(doubted(z, 0.1, torch.full((len(z),), doubt), sketch, rng)) - white
        wanted = (0.1**2 + (doubt * off).square()).sqrt()
        torch.testing.assert_close(moved.std(dim=0), wanted, atol=0.02, rtol=0.03)
    drawn = draw_doubt(0.25, z, torch.Generator().manual_seed(1))
    assert ((drawn > 0).float().mean() - 0.25).abs() < 0.03
    assert (drawn.max() - 1).abs() < 0.01
    assert not draw_doubt(0.0, z, torch.Generator()).any()


def test_the_sketch_is_told_the_doubt() -> None:
    torch.manual_seed(0)
    sketch, z, states = Sketch(READING).eval(), unit(2), torch.randn(2, 4, 12)
    for parameter in sketch.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        sure, unsure = sketch(z, states), sketch(z, states, None, 1.0)
        assert not torch.allclose(sure, unsure)
        torch.testing.assert_close(sketch(z, states, None, torch.tensor([0.0, 1.0])), torch.stack([sure[0], unsure[1]]))


# ------------------------------------------------------------------------------------------------------- the guess

PRIOR = DiffusionPriorConfig(
    embedding_width=8,
    text_width=12,
    num_text_tokens=4,
    transformer=TransformerConfig(width=16, depth=1, heads=2, is_causal=True),
    has_guess=True,
    is_whitened=True,
)


def prior_with_guess() -> tuple[DiffusionPrior, Guess]:
    torch.manual_seed(0)
    prior, guess = DiffusionPrior(PRIOR), Guess(GuessConfig(embedding_width=8, width=32, depth=1))
    prior.measure(unit(50))
    guess.measure(unit(50, seed=1), unit(50))
    for network in (prior, guess):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        network.eval()
    return prior, guess


def word_zeros(ids: torch.Tensor) -> torch.Tensor:
    return torch.zeros(*ids.shape, 12)


def read_zeros(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return unit(len(ids), seed=7), torch.zeros(len(ids), ids.shape[1], 12)


EMPTY = torch.ones(4, dtype=torch.long), torch.ones(4, dtype=torch.bool)


def test_the_guess_learns_the_mean_embedding_of_a_caption() -> None:
    torch.manual_seed(0)
    guess, z_t, z_i = Guess(GuessConfig(embedding_width=8, width=32, depth=1)), unit(4, seed=7), unit(8)
    guess.measure(unit(50, seed=1), unit(50))
    ids, mask = torch.ones(8, 4, dtype=torch.long), torch.ones(8, 4, dtype=torch.bool)
    objective = GuessObjective(
        guess, lambda ids, mask: (z_t.repeat(2, 1), torch.zeros(8, 4, 12)), EMPTY, PriorLossConfig()
    )
    optimiser = torch.optim.Adam(guess.parameters(), lr=4e-3)
    for _ in range(600):
        optimiser.zero_grad()
        objective(PairBatch(z=z_i, ids=ids, mask=mask), torch.Generator()).total["guess"].backward()
        optimiser.step()
    torch.testing.assert_close(guess(z_t), (z_i[:4] + z_i[4:]) / 2, atol=2e-2, rtol=0)
    assert list(objective.groups) == ["guess"]


def test_the_prior_sees_the_guess_at_once_and_step_by_step() -> None:
    prior, guess = prior_with_guess()
    z, t, z_t, states = torch.randn(3, 8), torch.tensor([2, 500, 900]), unit(3, seed=2), torch.randn(3, 4, 12)
    with torch.no_grad():
        whole = prior(z, t, z_t, states, None, guess(z_t))
        conditioning = prior.condition(z_t, states, None, guess(z_t))
        torch.testing.assert_close(prior.step(z, t, conditioning), whole, atol=1e-5, rtol=1e-5)
        picked = torch.tensor([2, 0])
        torch.testing.assert_close(prior.step(z[picked], t[picked], conditioning.rows(picked)), whole[picked])
        assert not torch.allclose(prior(z, t, z_t, states, None, guess(unit(3, seed=3))), whole)
        torch.testing.assert_close(prior.denormalise(prior.normalise(z)), z, atol=1e-5, rtol=1e-4)
    with pytest.raises(BadRequest, match="a guess"):
        prior(z, t, z_t, states)
    plain = DiffusionPrior(dataclasses.replace(PRIOR, has_guess=False))
    with pytest.raises(BadRequest, match="without"):
        plain.condition(z_t, states, None, guess(z_t))


def test_the_prior_trains_on_the_guesses_of_its_captions() -> None:
    prior, guess = prior_with_guess()
    seen = []
    guess.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    objective = PriorObjective(prior, cosine(), read_zeros, EMPTY, PriorLossConfig(), guess)
    objective(pairs(unit(3), torch.zeros(3, 3, 2, 2)), torch.Generator().manual_seed(0)).total["prior"].backward()
    assert torch.equal(seen[0], unit(3, seed=7))
    assert all(one.grad is None for one in guess.parameters())
    assert prior.noised_in.weight.grad is not None


def test_a_whole_dalle_draws_with_guess_and_sketch(dalle: Dalle2) -> None:
    parts = dalle.parts
    torch.manual_seed(0)
    prior = DiffusionPrior(dataclasses.replace(parts.prior.config, has_guess=True, is_whitened=True))
    guess = Guess(GuessConfig(embedding_width=16, width=32, depth=1))
    unet = parts.decoder.config.unet
    assert unet is not None
    decoder = Decoder(
        dataclasses.replace(parts.decoder.config, has_sketch=True, unet=dataclasses.replace(unet, in_channels=6))
    )
    side = parts.codec.picture_size // parts.codec.factor
    clip, text = parts.clip.config, TransformerConfig(width=16, depth=1, heads=2)
    reader = RoleReaderConfig(word_width=clip.text_width, num_words=clip.context, text=text)
    shape = SketchConfig(embedding_width=16, channels=3, side=side, width=32, depth=1, reader=reader)
    sketch = Sketch(shape)
    for network in (prior, guess, decoder, sketch):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        network.eval().requires_grad_(False)
    whole = Dalle2(dataclasses.replace(parts, prior=prior, guess=guess, decoder=decoder, sketch=sketch), dalle.config)
    size = parts.codec.picture_size
    asked = {"width": size, "height": size, "steps": 2, "prior_steps": 2}
    (alone,) = whole.generate("a red apple", seed=3, **asked)
    both = list(whole.generate("a red apple", seed=3, count=2, exact=True, **asked))
    assert alone.picture.tobytes() == both[0].picture.tobytes()
    with torch.no_grad():
        sketch.mean.out.bias.add_(3.0)
    (other,) = whole.generate("a red apple", seed=3, **asked)
    assert other.picture.tobytes() != alone.picture.tobytes()
