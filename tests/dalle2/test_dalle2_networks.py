"""Prior and decoder equal the classes that Karlo was published with, and read a prompt only once."""

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.dalle2.decoder import DECODER_PRESETS, CaptionEncoderConfig, Decoder, DecoderConfig
from opendalle.dalle2.priors.diffusion import PRIOR_PRESETS, DiffusionPrior, DiffusionPriorConfig
from opendalle.nn.grid_transformer import GridTransformerConfig
from opendalle.nn.transformer import TransformerConfig
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.pretrained.maps.karlo import decoder_table
from opendalle.samplers.guided import join

PRIOR = DiffusionPriorConfig(
    embedding_width=24,
    text_width=24,
    num_text_tokens=12,
    transformer=TransformerConfig(width=32, depth=2, heads=2, is_causal=True),
)
DECODER = DecoderConfig(
    embedding_width=32,
    text_width=32,
    text_embedding_width=32,
    unet=UNetConfig(
        in_channels=3,
        out_channels=6,
        levels=(UNetLevel(width=32, num_blocks=1), UNetLevel(width=64, num_blocks=1, has_attention=True)),
        time_width=128,
        head_width=8,
        context_width=48,
    ),
)


def randomise(network: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(std=0.2)
            if re.search(r"norm\w*\.weight$", name):
                parameter.add_(1.0)


def copy(pairs: list[tuple[Any, list[Any]]]) -> None:
    with torch.no_grad():
        for mine, others in pairs:
            mine.weight.copy_(torch.cat([other.weight for other in others]))
            mine.bias.copy_(torch.cat([other.bias for other in others]))


def numel(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def prior_inputs(rows: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    real = torch.arange(12) < torch.tensor([12, 7, 3])[:rows, None]
    return (
        torch.randn(rows, 24),
        torch.tensor([3, 998, 500])[:rows],
        torch.randn(rows, 24),
        torch.randn(rows, 12, 24),
        real,
    )


def test_prior_equals_diffusers() -> None:
    theirs: Any = PriorTransformer(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=24, num_embeddings=12
    ).eval()
    randomise(theirs)
    ours: Any = DiffusionPrior(PRIOR).eval()
    pairs = [
        (ours.text_in, [theirs.encoder_hidden_states_proj]),
        (ours.text_embedding_in, [theirs.embedding_proj]),
        (ours.time.linear1, [theirs.time_embedding.linear_1]),
        (ours.time.linear2, [theirs.time_embedding.linear_2]),
        (ours.noised_in, [theirs.proj_in]),
        (ours.transformer.norm, [theirs.norm_out]),
        (ours.out, [theirs.proj_to_clip_embeddings]),
    ]
    for mine, block in zip(ours.transformer.blocks, theirs.transformer_blocks, strict=True):
        pairs += [
            (mine.norm1, [block.norm1]),
            (mine.attention.qkv, [block.attn1.to_q, block.attn1.to_k, block.attn1.to_v]),
            (mine.attention.out, [block.attn1.to_out[0]]),
            (mine.norm2, [block.norm3]),
            (mine.mlp.up, [block.ff.net[0].proj]),
            (mine.mlp.down, [block.ff.net[2]]),
        ]
    copy(pairs)
    with torch.no_grad():
        ours.query.copy_(theirs.prd_embedding[0, 0])
        ours.positions.table.copy_(theirs.positional_embedding[0])
    z, t, text_embedding, text_states, real = prior_inputs()
    with torch.no_grad():
        expected = theirs(z, t, text_embedding, text_states, real).predicted_image_embedding
        torch.testing.assert_close(ours(z, t, text_embedding, text_states, real), expected, atol=1e-5, rtol=1e-5)
    assert numel(ours) + 2 * 24 == numel(theirs)  # theirs keeps mean and std among the parameters


@pytest.mark.parametrize("is_padded", [False, True])
def test_prior_reads_a_caption_once(is_padded: bool) -> None:
    prior = DiffusionPrior(PRIOR).eval()
    randomise(prior)
    z, t, text_embedding, text_states, real = prior_inputs(3)
    mask = real if is_padded else None
    conditioning = prior.condition(text_embedding, text_states, mask)
    with torch.no_grad(), FlopCounterMode(display=False) as slow:
        plain = prior(z, t, text_embedding, text_states, mask)
    with FlopCounterMode(display=False) as fast:
        torch.testing.assert_close(prior.step(z, t, conditioning), plain, atol=1e-5, rtol=1e-5)
    assert fast.get_total_flops() * 3 < slow.get_total_flops()
    torch.testing.assert_close(prior.step(z, t, conditioning), plain, atol=1e-5, rtol=1e-5)  # nothing is left over
    picked = torch.tensor([2, 0])
    torch.testing.assert_close(prior.step(z[picked], t[picked], conditioning.rows(picked)), plain[picked])


def test_guided_pass_over_two_captions_equals_two_passes() -> None:
    prior = DiffusionPrior(PRIOR).eval()
    randomise(prior)
    z, t, text_embedding, text_states, real = prior_inputs()
    with_padding = prior.condition(text_embedding, text_states, real)
    without = prior.condition(z, text_states, real.flip(1))
    both = prior.step(torch.cat([z, z]), torch.cat([t, t]), join(with_padding, without))
    alone = torch.cat([prior.step(z, t, with_padding), prior.step(z, t, without)])
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-5)


def test_unconditional_prior_still_sees_the_noised_embedding() -> None:
    """Only the caption is dropped: a known fault was to drop the noised embedding with it."""
    prior = DiffusionPrior(PRIOR).eval()
    randomise(prior)
    z, t, text_embedding, text_states, _ = prior_inputs()
    nothing = torch.zeros(2, 12, dtype=torch.bool)
    first = prior(z, t, 0 * text_embedding, 0 * text_states, nothing)
    assert first.isfinite().all()
    assert (first - prior(z + 1, t, 0 * text_embedding, 0 * text_states, nothing)).abs().max() > 0.1


def test_prior_leaves_its_inputs_alone() -> None:
    """A known fault was to scale the caller's embedding in place."""
    prior = DiffusionPrior(dataclasses.replace(PRIOR, text_scale=5.0))
    inputs = prior_inputs()
    kept = [one.clone() for one in inputs]
    prior(*inputs)
    prior.step(inputs[0], inputs[1], prior.condition(*inputs[2:]))
    assert all(torch.equal(one, before) for one, before in zip(inputs, kept, strict=True))


def test_unit_embeddings_are_diffused_as_pixels_spread_until_statistics_are_stored() -> None:
    prior = DiffusionPrior(PRIOR)
    z = nn.functional.normalize(torch.randn(500, 24))
    kept = z.clone()
    assert abs(prior.normalise(z).std().item() - 0.5375) < 0.01
    prior.set_statistics(z.mean(0), z.std(0))
    assert abs(prior.normalise(z).std().item() - 1) < 0.01
    torch.testing.assert_close(prior.denormalise(prior.normalise(z)), kept)
    assert torch.equal(z, kept)
    loaded = DiffusionPrior(PRIOR)
    loaded.load_state_dict(prior.state_dict())  # the statistics travel with the weights
    torch.testing.assert_close(loaded.normalise(z), prior.normalise(z))
    with pytest.raises(BadConfig, match=r"std of 0\.0"):
        prior.set_statistics(z.mean(0), torch.zeros(24))


def test_prior_wants_its_number_of_text_states() -> None:
    z, t, text_embedding, text_states, real = prior_inputs()
    with pytest.raises(BadRequest, match="11 text states; wanted 12"):
        DiffusionPrior(PRIOR)(z, t, text_embedding, text_states[:, 1:], real[:, 1:])


def decoder_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(6)
    real = torch.arange(7) < torch.tensor([[7], [3]])
    return torch.randn(2, 32), torch.randn(2, 32), torch.randn(2, 7, 32), real


def test_context_projection_equals_diffusers() -> None:
    theirs: Any = UnCLIPTextProjModel(clip_embeddings_dim=32, time_embed_dim=128, cross_attention_dim=48)
    randomise(theirs)
    decoder = Decoder(DECODER).eval()
    copy(
        [
            (decoder.picture_to_time, [theirs.clip_image_embeddings_project_to_time_embeddings]),
            (decoder.text_to_time, [theirs.embedding_proj]),
            (decoder.picture_to_tokens, [theirs.clip_extra_context_tokens_proj]),
            (decoder.text_in, [theirs.encoder_hidden_states_proj]),
            (decoder.text_norm, [theirs.text_encoder_hidden_states_norm]),
        ]
    )
    with torch.no_grad():
        decoder.null_embedding.copy_(theirs.learned_classifier_free_guidance_embeddings)
    z, text_embedding, text_states, real = decoder_inputs()
    twice = [torch.cat([one, one]) for one in (text_embedding, text_states, real)]
    with torch.no_grad():
        states, embedding = theirs(
            image_embeddings=z,
            prompt_embeds=twice[0],
            text_encoder_hidden_states=twice[1],
            do_classifier_free_guidance=True,
        )
        expected = decoder.body.prepare_context(states)
        got = decoder.condition(
            torch.cat([z, z]), *twice, has_embedding=torch.tensor([False, False, True, True])
        )  # theirs puts the dropped half first
    torch.testing.assert_close(got.embedding, embedding, atol=1e-5, rtol=1e-5)
    for mine, other in zip(got.context.layers, expected.layers, strict=True):
        torch.testing.assert_close(mine.keys, other.keys, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mine.values, other.values, atol=1e-5, rtol=1e-5)
    assert torch.equal(got.context.mask, torch.cat([torch.ones(4, 4, dtype=torch.bool), twice[2]], 1))


GRID_DECODER = dataclasses.replace(
    DECODER,
    unet=None,
    transformer=GridTransformerConfig(
        in_channels=3, out_channels=6, patch=2, width=32, depth=2, heads=4, time_width=128, context_width=48
    ),
)


@pytest.mark.parametrize("config", [DECODER, GRID_DECODER], ids=["unet", "transformer"])
def test_decoder_reads_a_prompt_once_and_guides_in_one_pass(config: DecoderConfig) -> None:
    decoder = Decoder(config).eval()
    randomise(decoder)
    z, text_embedding, text_states, real = decoder_inputs()
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([10, 900])
    with torch.no_grad():
        first = decoder.condition(z, text_embedding, text_states, real)
        second = decoder.condition(z, text_embedding, text_states, ~real, has_embedding=torch.tensor([False, True]))
        alone = torch.cat([decoder(x, t, first), decoder(x, t, second)])
        both = decoder(torch.cat([x, x]), torch.cat([t, t]), join(first, second))
        close = {"atol": 5e-5, "rtol": 1e-5}  # batches of other sizes round in another order
        torch.testing.assert_close(both, alone, **close)
        torch.testing.assert_close(decoder(x[1:], t[1:], first.rows(slice(1, 2))), alone[1:2], **close)
        names = [name for name, _ in decoder.named_modules() if "context_kv" in name or "picture_to" in name]
        for name in names:  # what a prompt fixes is not asked for again
            decoder.get_submodule(name).register_forward_hook(lambda *_: pytest.fail("projected again"))
        decoder(x, t, first)


@pytest.mark.parametrize("bodies", ["none", "both"])
def test_a_decoder_has_one_body(bodies: str) -> None:
    transformer = DECODER_PRESETS["emoji"].transformer
    given = {"none": (None, None), "both": (DECODER.unet, transformer)}[bodies]
    with pytest.raises(BadConfig, match="a unet or a transformer"):
        dataclasses.replace(DECODER, unet=given[0], transformer=given[1])


def test_only_a_unet_has_karlos_keys() -> None:
    assert decoder_table(DECODER).rows
    with pytest.raises(BadConfig, match="U-Net"):
        decoder_table(DECODER_PRESETS["emoji"])


def test_embedding_and_caption_drop_independently() -> None:
    decoder = Decoder(DECODER).eval()
    randomise(decoder)
    z, text_embedding, text_states, real = decoder_inputs()
    kept = decoder.condition(z, text_embedding, text_states, real).embedding
    dropped = decoder.condition(
        z, text_embedding, text_states, real, has_embedding=torch.tensor([True, False])
    ).embedding
    torch.testing.assert_close(kept[0], dropped[0])
    expected = decoder.picture_to_time(decoder.null_embedding) + decoder.text_to_time(text_embedding[1])
    torch.testing.assert_close(dropped[1], expected, atol=1e-5, rtol=1e-5)


def test_caption_encoder_feeds_the_decoder() -> None:
    text = CaptionEncoderConfig(vocabulary=9, num_tokens=7, transformer=TransformerConfig(width=32, depth=1, heads=2))
    decoder: Any = Decoder(dataclasses.replace(DECODER, caption_encoder=text))
    z, text_embedding, _, real = decoder_inputs()
    states = decoder.caption_encoder(torch.randint(9, (2, 7)), real)
    randomise(decoder.body)
    x = torch.randn(2, 3, 8, 8)
    decoder(x, torch.tensor([1, 2]), decoder.condition(z, text_embedding, states, real)).sum().backward()
    assert decoder.caption_encoder.tokens.weight.grad.any()


COMPILE = """
from dataclasses import replace
import torch
from opendalle.dalle2.decoder import DECODER_PRESETS, Decoder
from opendalle.dalle2.priors.diffusion import PRIOR_PRESETS, DiffusionPrior

torch.manual_seed(0)
z, states, real = torch.randn(1, 256), torch.randn(1, 32, 256), torch.arange(32)[None] < 9
small, config = PRIOR_PRESETS["emoji"], DECODER_PRESETS["emoji"]
prior = DiffusionPrior(replace(small, transformer=replace(small.transformer, depth=1))).eval()
decoder = Decoder(replace(config, transformer=replace(config.transformer, depth=1))).eval()
for parameter in decoder.parameters():
    torch.nn.init.normal_(parameter, std=0.03)
with torch.no_grad():
    for network, x, prompt in (
        (prior.step, z, prior.condition(z, states, real, guess=torch.randn(1, 256))),
        (decoder, torch.randn(1, 8, 8, 8), decoder.condition(z, z, states, real, sketch=torch.randn(1, 8, 8, 8))),
    ):
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, torch.tensor([5]), prompt), network(x, torch.tensor([5]), prompt))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_networks_compile_without_a_break() -> None:
    """In a process of its own, since the compiler cannot see through the shape hook of these tests."""
    subprocess.run([sys.executable, "-c", COMPILE], check=True)


def test_karlos_counts() -> None:
    with torch.device("meta"):
        prior, decoder = DiffusionPrior(PRIOR_PRESETS["karlo"]), Decoder(DECODER_PRESETS["karlo"])
    assert numel(prior) + 2 * 768 == 1_022_030_080
    assert numel(decoder.body) == 885_439_686
    assert numel(decoder) - numel(decoder.body) == 7_878_400
    assert decoder.config.learns_variance


def test_the_papers_counts_to_the_printed_digits() -> None:
    with torch.device("meta"):
        prior, decoder = DiffusionPrior(PRIOR_PRESETS["paper"]), Decoder(DECODER_PRESETS["paper"])
    assert f"{numel(prior.transformer) / 1e9:.2f}" == "1.21"
    assert prior.positions.table.shape[0] == 256
    assert f"{numel(decoder.body) / 1e9:.2f}" == "2.24"
    assert f"{numel(decoder.caption_encoder) / 1e9:.2f}" == "1.31"
    assert f"{(numel(decoder.body) + numel(decoder.caption_encoder)) / 1e9:.2f}" == "3.55"


def test_emoji_sizes_stay_within_their_budget() -> None:
    with torch.device("meta"):
        prior, decoder = DiffusionPrior(PRIOR_PRESETS["emoji"]), Decoder(DECODER_PRESETS["emoji"])
        text = torch.randn(1, 256), torch.randn(1, 256), torch.randn(1, 32, 256)
        conditioning = decoder.condition(*text, sketch=torch.randn(1, 8, 8, 8))
        with FlopCounterMode(display=False) as counter:
            decoder(torch.randn(1, 8, 8, 8), torch.zeros(1), conditioning)
    assert 4.5e6 < numel(prior) < 5.5e6
    assert 12e6 < numel(decoder) < 14e6
    assert counter.get_total_flops() / 2 < 300e6
    assert not decoder.config.learns_variance
    assert decoder.config.learning_variance().learns_variance


@pytest.mark.parametrize(
    ("config", "bad"),
    [
        (PRIOR, {"embedding_width": 0}),
        (PRIOR, {"num_text_tokens": 0}),
        (PRIOR, {"text_scale": 0.0}),
        (PRIOR, {"transformer": TransformerConfig(width=32, depth=1, heads=1)}),
        (DECODER, {"text_width": 0}),
        (DECODER, {"num_picture_tokens": 0}),
        (DECODER, {"embedding_scale": -1.0}),
        (DECODER, {"unet": dataclasses.replace(DECODER.unet, context_width=None)}),
        (DECODER, {"unet": dataclasses.replace(DECODER.unet, out_channels=5)}),
        (
            DECODER,
            {
                "caption_encoder": CaptionEncoderConfig(
                    vocabulary=3, num_tokens=3, transformer=TransformerConfig(width=16, depth=1, heads=1)
                )
            },
        ),
    ],
)
def test_bad_configs_are_refused(config: DiffusionPriorConfig | DecoderConfig, bad: dict) -> None:
    with pytest.raises(BadConfig):
        dataclasses.replace(config, **bad)
