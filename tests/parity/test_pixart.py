"""The latent transformer against PixArt's, layers of the U-Net against latent diffusion's, with equal random weights.

Theirs are as the diffusers library builds them, tiny.
"""

from typing import Any

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from opendalle.dalle3.text_encoder import TextStates
from opendalle.dalle3.transformer import LatentTransformer, LatentTransformerConfig
from opendalle.nn.attention import AttentionContext
from opendalle.nn.picture_transformer import PictureTransformer
from opendalle.nn.residual import ResidualBlock

SIDE, PATCH, WIDTH, HEADS, DEPTH = 8, 2, 24, 3, 3
REAL = torch.arange(6) < torch.tensor([6, 2])[:, None]


def randomised(network: nn.Module, seed: int = 0) -> Any:
    """Give every weight a value that matters, those that start at zero or one as well."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            noise = torch.randn(weight.shape, generator=rng)
            weight.copy_(0.3 + 0.3 * noise if weight.ndim == 1 else noise / weight[0].numel() ** 0.5)
    return network.eval().requires_grad_(False)


def their_pixart() -> Any:
    network = PixArtTransformer2DModel(
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        in_channels=4,
        out_channels=8,
        num_layers=DEPTH,
        cross_attention_dim=WIDTH,
        sample_size=SIDE,
        patch_size=PATCH,
        caption_channels=20,
        use_additional_conditions=False,
    )
    return randomised(network)


def to_our_names(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their weights under our names: queries, keys and values joined, a convolution that is a linear map made one."""
    ours = {
        "patch_in.weight": theirs["pos_embed.proj.weight"].flatten(1),
        "patch_in.bias": theirs["pos_embed.proj.bias"],
        "table_out": theirs["scale_shift_table"],
    }
    for kind in ("weight", "bias"):
        for number in (1, 2):
            timestep = f"adaln_single.emb.timestep_embedder.linear_{number}.{kind}"
            ours[f"time.linear{number}.{kind}"] = theirs[timestep]
            ours[f"text_in.linear{number}.{kind}"] = theirs[f"caption_projection.linear_{number}.{kind}"]
        ours[f"modulation.{kind}"] = theirs[f"adaln_single.linear.{kind}"]
        ours[f"patch_out.{kind}"] = theirs[f"proj_out.{kind}"]
        for layer in range(DEPTH):
            own, their = f"blocks.{layer}", f"transformer_blocks.{layer}"
            ours |= attention_names(
                theirs, f"{own}.attention", f"{their}.attn1", f"{own}.cross", f"{their}.attn2", kind
            )
            ours[f"{own}.mlp.up.{kind}"] = theirs[f"{their}.ff.net.0.proj.{kind}"]
            ours[f"{own}.mlp.down.{kind}"] = theirs[f"{their}.ff.net.2.{kind}"]
            ours[f"{own}.table"] = theirs[f"{their}.scale_shift_table"]
    return ours


def attention_names(
    theirs: dict[str, Tensor], own: str, attn1: str, cross: str, attn2: str, kind: str
) -> dict[str, Tensor]:
    return {
        f"{own}.qkv.{kind}": torch.cat([theirs[f"{attn1}.to_{one}.{kind}"] for one in "qkv"]),
        f"{own}.out.{kind}": theirs[f"{attn1}.to_out.0.{kind}"],
        f"{cross}.queries.{kind}": theirs[f"{attn2}.to_q.{kind}"],
        f"{cross}.context_kv.{kind}": torch.cat([theirs[f"{attn2}.to_{one}.{kind}"] for one in "kv"]),
        f"{cross}.out.{kind}": theirs[f"{attn2}.to_out.0.{kind}"],
    }


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 12), (16, 4)])
def test_equals_pixart_with_equal_weights(height: int, width: int) -> None:
    theirs = their_pixart()
    config = LatentTransformerConfig(
        channels=4,
        text_width=20,
        patch=PATCH,
        width=WIDTH,
        depth=DEPTH,
        heads=HEADS,
        base_side=SIDE // PATCH,
        learns_variance=True,
    )
    ours = LatentTransformer(config).eval().requires_grad_(False)
    ours.load_state_dict(to_our_names(theirs.state_dict()), strict=True)
    rng = torch.Generator().manual_seed(1)
    x_t, states = torch.randn(2, 4, height, width, generator=rng), torch.randn(2, 6, 20, generator=rng)
    t = torch.tensor([1, 730])
    wanted = theirs(x_t, states, timestep=t, encoder_attention_mask=REAL.long(), return_dict=False)[0]
    drawn = ours(x_t, t, TextStates(states=states, mask=REAL))
    torch.testing.assert_close(drawn, wanted, rtol=1e-5, atol=1e-5)


def test_a_layer_of_the_unet_equals_latent_diffusions() -> None:
    theirs = randomised(
        Transformer2DModel(
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH // HEADS,
            in_channels=WIDTH,
            norm_num_groups=4,
            cross_attention_dim=20,
            attention_bias=True,
            activation_fn="gelu",
            use_linear_projection=True,
        )
    )
    theirs.norm.eps = 1e-5
    ours = PictureTransformer(WIDTH, HEADS, 20, 0, norm="group", norm_groups=4, norm_eps=1e-5)
    state, block = theirs.state_dict(), "transformer_blocks.0"
    named: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        named |= attention_names(state, "attention", f"{block}.attn1", "cross", f"{block}.attn2", kind)
        named |= {f"norm{number}.{kind}": state[f"{block}.norm{number}.{kind}"] for number in (1, 2, 3)}
        named[f"norm_in.{kind}"] = state[f"norm.{kind}"]
        named[f"cells_in.{kind}"], named[f"cells_out.{kind}"] = state[f"proj_in.{kind}"], state[f"proj_out.{kind}"]
        named[f"mlp.up.{kind}"] = state[f"{block}.ff.net.0.proj.{kind}"]
        named[f"mlp.down.{kind}"] = state[f"{block}.ff.net.2.{kind}"]
    ours.load_state_dict(named, strict=True)
    rng = torch.Generator().manual_seed(1)
    x, states = torch.randn(2, WIDTH, 4, 6, generator=rng), torch.randn(2, 6, 20, generator=rng)
    wanted = theirs(x, states, encoder_attention_mask=REAL.long(), return_dict=False)[0]
    with torch.no_grad():
        drawn = ours(x, AttentionContext((ours.project_context(states),), REAL))
    torch.testing.assert_close(drawn, wanted, rtol=1e-5, atol=1e-5)


def test_the_step_scales_and_shifts_the_norm_as_theirs_does() -> None:
    theirs = randomised(
        ResnetBlock2D(
            in_channels=8,
            out_channels=16,
            temb_channels=12,
            groups=4,
            eps=1e-5,
            time_embedding_norm="scale_shift",
        )
    )
    ours = ResidualBlock(8, 16, embedding_width=12, conditioning="scale-shift", norm_groups=4)
    names = {"norm_in": "norm1", "conv_in": "conv1", "embedding": "time_emb_proj", "norm_out": "norm2"}
    names |= {"conv_out": "conv2", "skip": "conv_shortcut"}
    state = theirs.state_dict()
    ours.load_state_dict({f"{a}.{kind}": state[f"{b}.{kind}"] for a, b in names.items() for kind in ("weight", "bias")})
    rng = torch.Generator().manual_seed(1)
    x, time = torch.randn(2, 8, 6, 4, generator=rng), torch.randn(2, 12, generator=rng)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, time), theirs(x, time), rtol=1e-5, atol=1e-5)
