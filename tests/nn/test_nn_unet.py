"""The U-Net equals diffusers' networks block by block, and does nothing twice that a prompt fixes."""

import re
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import TypeCheckError
from torch import nn

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.nn.unet import UNet, UNetConfig, UNetLevel

DECODER = UNetConfig(
    in_channels=3,
    out_channels=6,
    levels=(
        UNetLevel(width=32, num_blocks=2),
        UNetLevel(width=64, num_blocks=2, has_attention=True),
        UNetLevel(width=96, num_blocks=2, has_attention=True),
    ),
    time_width=128,
    head_width=8,
    context_width=24,
)
SMALL = UNetConfig(  # the same, as small as it can be
    in_channels=3,
    out_channels=6,
    levels=(UNetLevel(width=32, num_blocks=1), UNetLevel(width=32, num_blocks=1, has_attention=True)),
    time_width=128,
    head_width=8,
    context_width=24,
)
UPSAMPLER = UNetConfig(
    in_channels=6,
    out_channels=3,
    levels=(UNetLevel(width=32, num_blocks=2), UNetLevel(width=64, num_blocks=2)),
    time_width=128,
    middle="residual",
    conditioning="add",
)


def diffusers_decoder() -> Any:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        block_out_channels=(32, 64, 96),
        layers_per_block=2,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=8,
        class_embed_type="identity",
        resnet_time_scale_shift="scale_shift",
    )


def diffusers_upsampler() -> Any:
    return UNet2DModel(
        sample_size=16,
        in_channels=6,
        out_channels=3,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=("ResnetDownsampleBlock2D",) * 2,
        up_block_types=("ResnetUpsampleBlock2D",) * 2,
        add_attention=False,
    )


def randomise(network: nn.Module) -> None:
    """Fill every tensor, the zero-initialised ones too, so that nothing is compared with zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(std=0.05)
            if re.search(r"norm\w*\.weight$", name):
                parameter.add_(1.0)


def residual_pairs(ours: Any, theirs: Any) -> list[tuple[nn.Module, list[nn.Module]]]:
    pairs = [
        (ours.norm_in, [theirs.norm1]),
        (ours.conv_in, [theirs.conv1]),
        (ours.embedding, [theirs.time_emb_proj]),
        (ours.norm_out, [theirs.norm2]),
        (ours.conv_out, [theirs.conv2]),
    ]
    return pairs + ([] if theirs.conv_shortcut is None else [(ours.skip, [theirs.conv_shortcut])])


def attention_pairs(ours: Any, theirs: Any) -> list[tuple[nn.Module, list[nn.Module]]]:
    return [
        (ours.norm, [theirs.group_norm]),
        (ours.attention.qkv, [theirs.to_q, theirs.to_k, theirs.to_v]),
        (ours.attention.context_kv, [theirs.add_k_proj, theirs.add_v_proj]),
        (ours.attention.out, [theirs.to_out[0]]),
    ]


def their_blocks(theirs: Any) -> list[tuple[nn.Module, nn.Module | None]]:
    """Their (residual block, attention or None) in the order of the forward pass."""
    found = []
    for stage in (*theirs.down_blocks, theirs.mid_block, *theirs.up_blocks):
        attentions = list(getattr(stage, "attentions", []))
        attentions += [None] * (len(stage.resnets) - len(attentions))
        found += list(zip(stage.resnets, attentions, strict=True))
        for name in ("downsamplers", "upsamplers"):
            found += [(one, None) for one in getattr(stage, name, None) or []]
    return found


def copy_weights(ours: Any, theirs: Any) -> None:
    pairs = [
        (ours.time.linear1, [theirs.time_embedding.linear_1]),
        (ours.time.linear2, [theirs.time_embedding.linear_2]),
        (ours.conv_in, [theirs.conv_in]),
        (ours.norm_out, [theirs.conv_norm_out]),
        (ours.conv_out, [theirs.conv_out]),
    ]
    for block, (residual, attention) in zip((*ours.down, *ours.middle, *ours.up), their_blocks(theirs), strict=True):
        pairs += residual_pairs(block.residual, residual)
        if attention is not None:
            pairs += attention_pairs(block.attention, attention)
    with torch.no_grad():
        for mine, others in pairs:
            mine.weight.copy_(torch.cat([other.weight for other in others]))
            mine.bias.copy_(torch.cat([other.bias for other in others]))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_equals_karlos_decoder_as_diffusers_builds_it_block_by_block(dtype: torch.dtype, tolerance: float) -> None:
    theirs = diffusers_decoder().eval()
    randomise(theirs)
    ours = UNet(DECODER).eval()
    copy_weights(ours, theirs)
    theirs, ours = theirs.to(dtype), ours.to(dtype)
    x, t = torch.randn(2, 3, 16, 16, dtype=dtype), torch.tensor([3, 998])
    states, embedding = torch.randn(2, 11, 24, dtype=dtype), torch.randn(2, 128, dtype=dtype)
    mask = torch.arange(11) < torch.tensor([[11], [6]])  # 11 tokens: never as many as a level has cells

    expected, got = [], []
    for residual, attention in their_blocks(theirs):
        (attention or residual).register_forward_hook(lambda _m, _i, output: expected.append(output))
    for block in (*ours.down, *ours.middle, *ours.up):
        block.register_forward_hook(lambda _m, _i, output: got.append(output))
    with torch.no_grad():
        their_output = theirs(
            x, t, encoder_hidden_states=states, class_labels=embedding, attention_mask=mask.to(dtype)
        ).sample  # their mask is turned to a bias of -10000 inside
        our_output = ours(x, t, embedding=embedding, context=ours.prepare_context(states, mask))
    assert len(got) == len(expected) == 21
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=tolerance * other.abs().max().item(), rtol=0)
    torch.testing.assert_close(our_output, their_output, atol=tolerance, rtol=0)


def test_equals_karlos_super_resolution_as_diffusers_builds_it() -> None:
    theirs = diffusers_upsampler().eval()
    randomise(theirs)
    ours = UNet(UPSAMPLER).eval()
    copy_weights(ours, theirs)
    x, t = torch.randn(2, 6, 16, 8), torch.tensor([0, 500])
    with torch.no_grad():
        torch.testing.assert_close(ours(x, t), theirs(x, t).sample, atol=1e-5, rtol=1e-5)


def test_a_prompt_is_projected_once_and_padding_does_not_matter() -> None:
    network: Any = UNet(SMALL).eval()
    randomise(network)
    x, t, states = torch.randn(1, 3, 8, 8), torch.tensor([7]), torch.randn(1, 5, 24)
    real = torch.tensor([[True, True, True, False, False]])
    with torch.no_grad():
        context = network.prepare_context(states, real)
        for module in network.modules():  # from here on a context projection would fail
            if hasattr(module, "context_kv"):
                module.context_kv = None
        first = network(x, t, context=context)
        torch.testing.assert_close(network(x, t, context=context), first)
    other = UNet(SMALL).eval()
    randomise(other)
    with torch.no_grad():
        torch.testing.assert_close(other(x, t, context=other.prepare_context(states[:, :3])), first)
    assert context.rows(torch.tensor([0, 0])).layers[0].keys.shape[0] == 2


def test_channels_last_changes_nothing() -> None:
    network: Any = UNet(SMALL).eval()
    randomise(network)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([7, 8])
    with torch.no_grad():
        context = network.prepare_context(torch.randn(2, 5, 24))
        plain = network(x, t, context=context)
        network.to(memory_format=torch.channels_last)
        fast = network(x.contiguous(memory_format=torch.channels_last), t, context=context)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)


def test_patch_stem_works_on_the_coarser_grid() -> None:
    config = UNetConfig(
        in_channels=8, out_channels=4, levels=(UNetLevel(width=32, num_blocks=1),), time_width=16, patch=4,
        middle="residual",
    )  # fmt: skip
    network = UNet(config)
    seen = []
    network.down[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    assert network(torch.randn(1, 8, 16, 24), torch.tensor([1])).shape == (1, 4, 16, 24)
    assert seen == [(1, 32, 4, 6)]


def test_predicts_zero_before_training_and_every_weight_learns() -> None:
    network = UNet(SMALL)
    x, t, embedding = torch.randn(1, 3, 8, 8), torch.tensor([3]), torch.randn(1, 128)
    output = network(x, t, embedding=embedding, context=network.prepare_context(torch.randn(1, 4, 24)))
    assert not output.any()
    randomise(network)
    output = network(x, t, embedding=embedding, context=network.prepare_context(torch.randn(1, 4, 24)))
    output.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_karlos_sizes_on_the_meta_device() -> None:
    widths = (320, 640, 960, 1280)
    decoder = UNetConfig(
        in_channels=3,
        out_channels=6,
        levels=tuple(UNetLevel(width=w, num_blocks=3, has_attention=w > 320) for w in widths),
        time_width=1280,
        context_width=1536,
    )
    upsampler = UNetConfig(
        in_channels=6,
        out_channels=3,
        levels=tuple(UNetLevel(width=w, num_blocks=3) for w in widths),
        time_width=1280,
        middle="residual",
        conditioning="add",
    )
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet(decoder).parameters()) == 885_439_686
        assert sum(p.numel() for p in UNet(upsampler).parameters()) == 691_579_523


def test_grid_must_fit_the_levels() -> None:
    with pytest.raises(BadRequest, match="9 by 8; wanted multiples of 2"):
        UNet(SMALL)(torch.randn(1, 3, 9, 8), torch.tensor([1]))


@pytest.mark.parametrize(
    "bad",
    [
        {"in_channels": 0},
        {"levels": ()},
        {"patch": 0},
        {"conditioning": "none"},
        {"middle": "conv"},
        {"dropout": 1.0},
        {"norm_eps": 0.0},
        {"norm_groups": 48},
        {"head_width": 20},
    ],
)
def test_bad_configs_are_refused(bad: dict) -> None:
    good = {"in_channels": 1, "out_channels": 1, "levels": (UNetLevel(width=64, num_blocks=1),), "time_width": 8}
    UNetConfig(**good)
    with pytest.raises((BadConfig, TypeCheckError)):  # the shape hook is quicker with closed sets of words
        UNetConfig(**good | bad)
    with pytest.raises(BadConfig):
        UNetLevel(width=0, num_blocks=1)
