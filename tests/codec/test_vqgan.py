"""VQGAN: its codebook against brute force, gradients on the right side, its halves against another library."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadConfig
from opendalle.codec.codebook import cluster_means
from opendalle.codec.convolutional import ConvolutionalConfig
from opendalle.codec.kl import KLAutoencoder, KLAutoencoderConfig
from opendalle.codec.likeness import PatchCritic
from opendalle.codec.protocol import TokenCodec
from opendalle.codec.vqgan import VQGAN, VQGAN_PRESETS, Codebook, VQGANConfig
from opendalle.codec.vqgan_objective import VQGANLossConfig, VQGANObjective

NETWORK = ConvolutionalConfig(
    picture_size=16, picture_channels=4, grid_channels=8, width=8, growth=(1, 2), blocks=1, attention_sides=(8,),
    norm_groups=4,
)  # fmt: skip
TINY = VQGANConfig(network=NETWORK, vocabulary=16, code_width=3)


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
        network = VQGAN(VQGAN_PRESETS["f16-1024"])
    counts = [sum(weight.numel() for weight in half.parameters()) for half in (network.encoder, network.decoder)]
    assert counts == [29_298_176, 42_449_795]  # as counted in another library's networks of the same layout


@pytest.mark.parametrize("is_normalised", [False, True])
def test_the_nearest_word_is_the_nearest_by_brute_force(is_normalised: bool) -> None:
    torch.manual_seed(0)
    book, cells = (
        Codebook(VQGANConfig(vocabulary=9, code_width=4, is_normalised=is_normalised)),
        torch.randn(2, 4, 3, 3),
    )
    torch.nn.init.normal_(book.words.weight)
    tokens = book.nearest(cells)
    for b in range(2):
        for y in range(3):
            for x in range(3):
                cell = cells[b, :, y, x]
                if is_normalised:
                    angles = [torch.cosine_similarity(cell, word, dim=0).item() for word in book.words.weight]
                    best = max(range(9), key=angles.__getitem__)
                else:
                    distances = [(cell - word).norm().item() for word in book.words.weight]
                    best = min(range(9), key=distances.__getitem__)
                assert tokens[b, y, x] == best


def test_words_are_spread_over_clusters() -> None:
    rng = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    rows = centres.repeat_interleave(50, 0) + 0.1 * torch.randn(200, 2, generator=rng)
    means = cluster_means(rows, 4, torch.Generator().manual_seed(3), rounds=20)
    nearest = torch.cdist(rows, means).argmin(1)
    for word in range(4):  # where the search has come to rest, each word is the mean of what is nearest to it
        torch.testing.assert_close(means[word], rows[nearest == word].mean(0))
    with pytest.raises(BadConfig, match="3 cells for 4 words"):
        cluster_means(rows[:3], 4, rng)


@torch.no_grad()
def test_a_trained_autoencoder_is_taken_over_whole() -> None:
    torch.manual_seed(0)
    small = KLAutoencoderConfig(picture_size=16, grid_channels=3, patch=2, widths=(8, 8), norm_groups=4)
    autoencoder = KLAutoencoder(small).eval()
    autoencoder.measure_grid(smooth(8))
    network = VQGAN(VQGANConfig(small=small, vocabulary=16, code_width=3)).eval()
    network.begin_with(autoencoder, smooth(8), torch.Generator().manual_seed(0))
    pictures = smooth(2, seed=5)
    grid = autoencoder.encode(pictures)
    torch.testing.assert_close(network.cells(pictures), grid, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.draw(grid).clamp(-1, 1), autoencoder.decode(grid), rtol=1e-5, atol=1e-5)
    words = network.codebook.look_up(network.encode_tokens(pictures))
    assert (words - grid).square().mean() < 0.5  # of a grid with unit spread
    with pytest.raises(BadConfig, match="as they are"):
        VQGAN(VQGANConfig(small=small, vocabulary=16, code_width=2)).begin_with(
            autoencoder, pictures, torch.Generator()
        )


def test_each_half_of_the_codebook_term_moves_one_side_alone() -> None:
    torch.manual_seed(0)
    book, cells = Codebook(TINY), torch.randn(2, 3, 4, 4, requires_grad=True)
    book(cells).codebook_loss.backward()
    assert cells.grad is None
    assert book.words.weight.grad is not None
    book.words.weight.grad = None
    book(cells).commitment.backward()
    assert cells.grad is not None
    assert book.words.weight.grad is None


def test_the_gradient_passes_straight_through() -> None:
    torch.manual_seed(0)
    book, cells = Codebook(TINY), torch.randn(1, 3, 2, 2, requires_grad=True)
    found, pull = book(cells), torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(found.vectors, book.look_up(found.tokens))
    (found.vectors * pull).sum().backward()
    torch.testing.assert_close(cells.grad, pull)


def test_pictures_to_words_and_back() -> None:
    torch.manual_seed(0)
    network = VQGAN(TINY)
    assert isinstance(network, TokenCodec)
    tokens = network.encode_tokens(smooth())
    assert tokens.shape == (4, 8, 8)
    assert 0 <= tokens.min() <= tokens.max() < 16
    with torch.no_grad():
        found = network.codebook(network.cells(smooth()))
        torch.testing.assert_close(network.draw(found.vectors).clamp(-1, 1), network.decode_tokens(tokens))


def test_the_total_is_the_weighted_sum_with_beta_on_the_cells_side() -> None:
    torch.manual_seed(0)
    config = VQGANLossConfig(pixel=2.0, gradient=0.5, codebook=0.7, commitment=0.25)
    network = VQGAN(TINY)
    losses = VQGANObjective(network, config)(Pictures(smooth()), torch.Generator().manual_seed(0))
    cells = network.cells(smooth())
    error = (cells - network.codebook.look_up(network.codebook.nearest(cells))).square().mean().item()
    watch = losses.watch
    expected = 2.0 * watch["pixel"] + 0.5 * watch["gradient"] + (0.7 + 0.25) * error
    assert math.isclose(losses.total["codec"].item(), expected, rel_tol=1e-4)
    assert math.isclose(watch["commitment"], error, rel_tol=1e-4)


def test_the_critic_joins_late_and_pulls_as_hard_as_all_else() -> None:
    torch.manual_seed(0)
    network, critic = VQGAN(TINY), PatchCritic(4, width=8)
    objective = VQGANObjective(network, VQGANLossConfig(adversarial=1.0, adversarial_from=0.5), critic=critic)
    last = network.decoder.last_layer

    def gradient(done: int) -> Tensor:
        objective.before_step(done, 4)
        losses = objective(Pictures(smooth()), torch.Generator().manual_seed(0))
        return torch.autograd.grad(losses.total["codec"], last)[0]

    early, late = gradient(1), gradient(2)
    pull = late - early
    torch.testing.assert_close(pull.norm(), early.norm(), rtol=0.05, atol=0)


def test_idle_words_begin_anew_at_cells_of_the_batch() -> None:
    torch.manual_seed(0)
    network = VQGAN(TINY)
    with torch.no_grad():
        network.codebook.words.weight[1:] = 1e3  # nobody is near them
    objective = VQGANObjective(network, VQGANLossConfig(renew=0.1))
    rng = torch.Generator().manual_seed(0)
    while not objective.use.is_full:
        objective(Pictures(smooth()), rng)
        objective.after_step()
    cells = network.cells(smooth()).permute(0, 2, 3, 1).flatten(0, 2)
    objective(Pictures(smooth()), rng)
    objective.after_step()
    words = network.codebook.words.weight[1:]
    nearest = (words[:, None] - cells[None]).norm(dim=2).amin(dim=1)
    assert nearest.max() < 1e-4
    assert len(network.encode_tokens(smooth()).unique()) > 1


@pytest.mark.parametrize("wrong", [{"codebook": -1.0}, {"renew": 2.0}, {"pixel": -1.0}, {"adversarial_from": 1.5}])
def test_refused_weights(wrong: dict[str, float]) -> None:
    with pytest.raises(BadConfig):
        VQGANLossConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"width": 9}, {"picture_size": 17}, {"growth": ()}, {"dropout": 1.0}])
def test_refused_shapes(wrong: dict[str, object]) -> None:
    with pytest.raises(BadConfig):
        ConvolutionalConfig(**wrong)  # type: ignore[arg-type]
