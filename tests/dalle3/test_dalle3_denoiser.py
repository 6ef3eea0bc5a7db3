"""Both denoisers behind their one door: any grid, what was said read once or at every step, padding, sizes."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.checkpoint.configs import from_plain, to_plain
from opendalle.dalle3.denoiser import DENOISER_PRESETS, Denoiser, DenoiserConfig
from opendalle.dalle3.text_encoder import TextStates
from opendalle.dalle3.text_keys import TextKeys, hidden, without_common_padding
from opendalle.dalle3.transformer import LatentTransformer, LatentTransformerConfig, square_places
from opendalle.dalle3.unet import LatentUNetConfig
from opendalle.diffusion.schedules import cosine
from opendalle.samplers.guided import GuidedDenoise

UNET = LatentUNetConfig(
    channels=3,
    text_width=10,
    widths=(8, 16, 24),
    num_blocks=1,
    time_width=12,
    context_width=14,
    head_width=4,
    norm_groups=4,
    pools_text=True,
)
TRANSFORMER = LatentTransformerConfig(channels=3, text_width=10, width=16, depth=2, heads=4, sinusoid_width=8)
BODIES = {
    "unet": DenoiserConfig(unet=UNET),
    "transformer": DenoiserConfig(transformer=TRANSFORMER),
    "shared": DenoiserConfig(
        transformer=replace(TRANSFORMER, shares_keys=True, pools_text=True, base_side=3, learns_variance=True)
    ),
}
GRIDS = [(8, 8), (8, 16), (12, 4)]  # square, wide, tall


def filled(config: DenoiserConfig) -> Denoiser:
    """Weights of which every one matters."""
    torch.manual_seed(0)
    network = Denoiser(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    return network


def captions(lengths: tuple[int, ...] = (5, 2), longest: int = 7) -> TextStates:
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    states = torch.randn(len(lengths), longest, 10, generator=torch.Generator().manual_seed(1))
    return TextStates(states=states * mask[..., None], mask=mask)


def noised(height: int = 8, width: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2)), torch.tensor([3, 700])


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("height", "width"), GRIDS)
def test_captions_read_once_give_what_captions_give_at_every_step(body: str, height: int, width: int) -> None:
    network, said = filled(BODIES[body]), captions()
    keys = network.read(said)
    for t in (0, 500, 999):
        x_t, _ = noised(height, width)
        steps = torch.tensor([t, max(0, t - 7)])
        by_keys, plainly = network(x_t, steps, keys), network(x_t, steps, said)
        assert by_keys.shape == (2, 3 * (1 + BODIES[body].learns_variance), height, width)
        assert torch.equal(by_keys, plainly)


@pytest.mark.parametrize("body", BODIES)
def test_padding_and_neighbours_never_matter(body: str) -> None:
    network, said, (x_t, t) = filled(BODIES[body]), captions(), noised()
    drawn = network(x_t, t, said)
    spoiled = TextStates(states=said.states.masked_fill(~said.mask[..., None], 1e3), mask=said.mask)
    assert torch.equal(network(x_t, t, spoiled), drawn)
    torch.testing.assert_close(network(x_t, t, without_common_padding(said)), drawn, rtol=0, atol=1e-5)
    for row, length in enumerate((5, 2)):
        one = slice(row, row + 1)
        alone = TextStates(states=said.states[one, :length], mask=said.mask[one, :length])
        torch.testing.assert_close(network(x_t[one], t[one], alone), drawn[one], rtol=0, atol=1e-5)
    twisted = TextStates(states=said.states.flip(0), mask=said.mask.flip(0))
    assert (network(x_t, t, twisted) - drawn).abs().amax() > 1e-2  # what is said does matter


@pytest.mark.parametrize("body", BODIES)
def test_guidance_joins_what_was_read(body: str) -> None:
    network, (x_t, t) = filled(replace_variance(BODIES[body])), noised()
    said, empty = captions(), captions((1, 1))
    with_prompt, without = (network(x_t, t, one) for one in (said, empty))
    denoise = GuidedDenoise(
        network,
        {"said": network.read(said)},
        {"said": network.read(empty)},
        schedule=cosine(),
        prediction="x0",
        scale=3.0,
    )
    expected = without + 3 * (with_prompt - without)
    torch.testing.assert_close(denoise(x_t, t).x0, expected, rtol=0, atol=1e-4)
    kept = network.read(said).rows(torch.tensor([1, 1]))
    assert torch.equal(network(x_t[[1, 1]], t[[1, 1]], kept)[0], with_prompt[1]) or torch.allclose(
        network(x_t[[1, 1]], t[[1, 1]], kept)[0], with_prompt[1], atol=1e-5
    )


@pytest.mark.parametrize("body", BODIES)
def test_neighbours_may_share_a_caption(body: str) -> None:
    network, said = filled(BODIES[body]), captions()
    x_t = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([3, 700, 20, 5, 999, 0])
    shared = network(x_t, t, network.read(said))
    each = network(x_t, t, said.rows(torch.tensor([0, 0, 0, 1, 1, 1])))
    torch.testing.assert_close(shared, each, rtol=0, atol=1e-5)


def replace_variance(config: DenoiserConfig) -> DenoiserConfig:
    if config.transformer is None:
        return config
    return DenoiserConfig(transformer=replace(config.transformer, learns_variance=False))


def one_head_at_a_time(attention: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    parts = zip(*(one.chunk(attention.heads, dim=-1) for one in (queries, keys, values)), strict=True)
    return attention.out(torch.cat([(q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v for q, k, v in parts], dim=-1))


def plain_transformer(network: LatentTransformer, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
    """One picture with the real tokens of its caption: sums as the paper tells them."""
    config, side = network.config, network.config.patch
    rows, columns = x.shape[1] // side, x.shape[2] // side
    places = [(i, j) for i in range(rows) for j in range(columns)]
    squares = [x[:, i * side : (i + 1) * side, j * side : (j + 1) * side].flatten() for i, j in places]
    tokens = network.patch_in(torch.stack(squares))
    frequency = torch.exp(-torch.arange(config.width // 4) * torch.log(torch.tensor(10_000.0)) / (config.width // 4))
    for token, (i, j) in enumerate(places):
        if config.base_side is not None:
            i, j = i * config.base_side / rows, j * config.base_side / columns
        waves = [(j * frequency).sin(), (j * frequency).cos(), (i * frequency).sin(), (i * frequency).cos()]
        tokens[token] += torch.cat(waves)
    time = network.time(t[None])[0]
    text = network.text_in.linear2(F.gelu(network.text_in.linear1(states), approximate="tanh"))
    if network.text_in.pooled is not None:
        time = time + network.text_in.pooled(states.mean(0))
    shared = network.modulation(F.silu(time)).reshape(6, -1)
    blocks = cast(list[Any], network.blocks)
    for block in blocks:
        shift1, scale1, gate1, shift2, scale2, gate2 = block.table + shared
        normed = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale1) + shift1
        tokens = tokens + gate1 * one_head_at_a_time(block.attention, *block.attention.qkv(normed).chunk(3, dim=-1))
        kv = (blocks[0] if config.shares_keys else block).cross.context_kv(text)
        tokens = tokens + one_head_at_a_time(block.cross, block.cross.queries(tokens), *kv.chunk(2, dim=-1))
        normed = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale2) + shift2
        tokens = tokens + gate2 * block.mlp.down(F.gelu(block.mlp.up(normed), approximate="tanh"))
    shift, scale = network.table_out + time
    out = network.patch_out(F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift)
    drawn = torch.zeros(out.shape[1] // side**2, *x.shape[1:])
    for token, (i, j) in enumerate(places):
        drawn[:, i * side : (i + 1) * side, j * side : (j + 1) * side] = (
            out[token].reshape(side, side, -1).movedim(2, 0)
        )
    return drawn


@pytest.mark.parametrize("body", ["transformer", "shared"])
@pytest.mark.parametrize(("height", "width"), GRIDS)
def test_the_transformer_equals_the_plain_sums(body: str, height: int, width: int) -> None:
    network, said, (x_t, t) = filled(BODIES[body]), captions(), noised(height, width)
    drawn = network(x_t, t, said)
    for row, length in enumerate((5, 2)):
        wanted = plain_transformer(cast(LatentTransformer, network.body), x_t[row], t[row], said.states[row, :length])
        torch.testing.assert_close(drawn[row], wanted, rtol=0, atol=2e-5)


def test_places_of_a_square_grid_are_counted_or_stretched() -> None:
    counted = square_places(4, 6, 16, None, torch.device("cpu")).unflatten(0, (4, 6))
    assert torch.equal(counted[:3, :3], square_places(3, 3, 16, None, torch.device("cpu")).unflatten(0, (3, 3)))
    stretched = square_places(4, 6, 16, 2, torch.device("cpu")).unflatten(0, (4, 6))
    half = square_places(2, 2, 16, 2, torch.device("cpu")).unflatten(0, (2, 2))
    torch.testing.assert_close(stretched[::2, ::3], half)  # the same part of the picture, the same place


@pytest.mark.parametrize("body", BODIES)
def test_a_fresh_one_predicts_zero_and_every_weight_learns(body: str) -> None:
    torch.manual_seed(0)
    network, said, (x_t, t) = Denoiser(BODIES[body]), captions(), noised()
    assert not network(x_t, t, said).any()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.3)
    for _ in range(6):  # zeros open one after the other: exit, gates, what is said
        optimiser.zero_grad()
        (network(x_t, t, said) - 1).square().mean().backward()
        optimiser.step()
    idle = [name for name, one in network.named_parameters() if one.grad is None or not one.grad.any()]
    assert idle == []


def test_a_hidden_caption_is_the_empty_one() -> None:
    said, empty = captions(), captions((1,), longest=3)
    covered = hidden(said, torch.tensor([True, False]), empty)
    assert torch.equal(covered.states[0, :3], empty.states[0])
    assert covered.mask[0].tolist() == [True] + [False] * 6
    assert torch.equal(covered.states[1], said.states[1])
    assert torch.equal(covered.mask[1], said.mask[1])


def weights_of(config: DenoiserConfig) -> int:
    with torch.device("meta"):
        return sum(one.numel() for one in Denoiser(config).parameters())


def test_sizes_of_the_presets_on_the_meta_device() -> None:
    counted = {name: weights_of(config) for name, config in DENOISER_PRESETS.items()}
    assert counted["pixart"] == 610_856_096  # as published for 256 pixels
    assert counted["paper-like"] == 810_892_932
    assert 6_000_000 <= counted["emoji"] == 8_657_952 <= 9_000_000
    assert 6_000_000 <= counted["emoji-unet"] == 8_165_864 <= 9_000_000


def test_a_config_outlives_the_disk_and_fits_other_neighbours() -> None:
    for config in (*BODIES.values(), *DENOISER_PRESETS.values()):
        assert from_plain(DenoiserConfig, to_plain(config)) == config
        other = config.fitting(channels=5, text_width=7)
        assert (other.channels, other.text_width) == (5, 7)
    assert BODIES["unet"].multiple == 4
    assert BODIES["transformer"].multiple == 2


@pytest.mark.parametrize("body", BODIES)
def test_a_grid_must_fit(body: str) -> None:
    with pytest.raises(BadRequest):
        filled(BODIES[body])(torch.zeros(2, 3, 8, 7), torch.tensor([1, 2]), captions())


@pytest.mark.parametrize(
    "make",
    [
        lambda: DenoiserConfig(),
        lambda: DenoiserConfig(unet=UNET, transformer=TRANSFORMER),
        lambda: replace(UNET, widths=(8, 9)),
        lambda: replace(UNET, channels=0),
        lambda: replace(TRANSFORMER, width=18),
        lambda: replace(TRANSFORMER, heads=3),
        lambda: replace(TRANSFORMER, base_side=0),
    ],
)
def test_bad_configs_are_refused(make: Any) -> None:
    with pytest.raises(BadConfig):
        make()


def test_keys_hold_a_layer_for_every_attention() -> None:
    def layers(network: Denoiser) -> int:
        keys: TextKeys = network.read(captions())
        return len(keys.context.layers)

    crosses = [one for one in filled(BODIES["unet"]).modules() if type(one).__name__ == "CrossAttention"]
    assert layers(filled(BODIES["unet"])) == len(crosses)
    assert [layers(filled(BODIES[body])) for body in ("transformer", "shared")] == [2, 1]
    assert all(isinstance(one, nn.Module) for one in crosses)
