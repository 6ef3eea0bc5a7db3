"""Karlo's networks: ours, loaded by the key map, say what the published library's say of the same weights."""

from typing import Any

import pytest
import torch
from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from torch import Tensor

from opendalle.base.errors import BadModel
from opendalle.codec.identity import IdentityCodecConfig
from opendalle.dalle2.decoder import DECODER_PRESETS
from opendalle.dalle2.priors.diffusion import PRIOR_PRESETS
from opendalle.pretrained.maps.karlo import (
    decoder_table,
    join_folders,
    prior_table,
    split_folders,
    upsampler_table,
)
from opendalle.pretrained.maps.karlo_configs import (
    codec_config,
    decoder_config,
    pipeline_config,
    prior_config,
    upsampler_config,
)
from opendalle.upsampling.network import UPSAMPLER_PRESETS

WIDTHS = [320, 640, 960, 1280]
PUBLISHED: dict[str, dict[str, Any]] = {  # as the weights of 2023 say it: fields that came later are absent
    "prior": {
        "_class_name": "PriorTransformer",
        "_diffusers_version": "0.12.0.dev0",
        "additional_embeddings": 4,
        "attention_head_dim": 64,
        "dropout": 0.0,
        "embedding_dim": 768,
        "num_attention_heads": 32,
        "num_embeddings": 77,
        "num_layers": 20,
    },
    "text_proj": {
        "_class_name": "UnCLIPTextProjModel",
        "clip_embeddings_dim": 768,
        "clip_extra_context_tokens": 4,
        "cross_attention_dim": 1536,
        "time_embed_dim": 1280,
    },
    "decoder": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "in_channels": 3,
        "out_channels": 6,
        "block_out_channels": WIDTHS,
        "layers_per_block": 3,
        "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
        "cross_attention_dim": 1536,
        "attention_head_dim": 64,
        "class_embed_type": "identity",
        "resnet_time_scale_shift": "scale_shift",
        "norm_num_groups": 32,
        "norm_eps": 1e-05,
        "act_fn": "silu",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "center_input_sample": False,
        "only_cross_attention": False,
    },
    "super_res": {
        "_class_name": "UNet2DModel",
        "sample_size": None,
        "in_channels": 6,
        "out_channels": 3,
        "block_out_channels": WIDTHS,
        "layers_per_block": 3,
        "down_block_types": ["ResnetDownsampleBlock2D"] * 4,
        "up_block_types": ["ResnetUpsampleBlock2D"] * 4,
        "add_attention": False,
        "resnet_time_scale_shift": "default",
    },
}


def t_of(*steps: int) -> Tensor:
    return torch.tensor(steps)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_padded", [False, True])
def test_the_prior(karlo, captions, is_padded: bool) -> None:
    z, t = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)), t_of(3, 998)
    mask = captions.mask if is_padded else None
    theirs_mask = captions.mask if is_padded else torch.ones_like(captions.mask)  # without one, theirs is not causal
    expected = karlo.theirs.prior(z, t, captions.pooled, captions.states, theirs_mask).predicted_image_embedding
    close(karlo.prior(z, t, captions.pooled, captions.states, mask), expected)
    close(karlo.prior.step(z, t, karlo.prior.condition(captions.pooled, captions.states, mask)), expected)
    close(karlo.prior.denormalise(z), karlo.theirs.prior.post_process_latents(z))


@pytest.mark.parametrize("is_padded", [False, True])
def test_the_decoder_with_its_context(karlo, captions, empty, is_padded: bool) -> None:
    rng = torch.Generator().manual_seed(1)
    z, x, t = torch.randn(2, 32, generator=rng), torch.randn(4, 3, 16, 16, generator=rng), t_of(0, 998, 333, 500)
    pooled, states, mask = (
        torch.cat([getattr(empty, one), getattr(captions, one)]) for one in ("pooled", "states", "mask")
    )
    context, embedding = karlo.theirs.text_proj(
        image_embeddings=z, prompt_embeds=pooled, text_encoder_hidden_states=states, do_classifier_free_guidance=True
    )
    read = karlo.decoder.condition(
        torch.cat([z, z]),
        pooled,
        states,
        mask if is_padded else None,
        has_embedding=torch.tensor([False, False, True, True]),  # theirs puts the unconditional half first
    )
    close(read.embedding, embedding)
    for mine, other in zip(read.context.layers, karlo.decoder.body.prepare_context(context).layers, strict=True):
        close(mine.keys, other.keys)
        close(mine.values, other.values)
    theirs = karlo.theirs.decoder(
        x,
        t,
        encoder_hidden_states=context,
        class_labels=embedding,
        attention_mask=torch.cat([torch.ones(4, 4, dtype=torch.bool), mask], 1) if is_padded else None,
    ).sample
    close(karlo.decoder(x, t, read), theirs)


@pytest.mark.parametrize("which", ["first", "last"])
def test_super_resolution(karlo, which: str) -> None:
    rng = torch.Generator().manual_seed(2)
    x, small, t = torch.randn(2, 3, 32, 32, generator=rng), torch.randn(2, 3, 16, 16, generator=rng), t_of(0, 999)
    ours, theirs = getattr(karlo, which), getattr(karlo.theirs, f"super_res_{which}")
    enlarged = torch.nn.functional.interpolate(
        small.clamp(-1, 1), size=[32, 32], mode="bicubic", align_corners=False, antialias=True
    )
    close(ours.condition(small), enlarged)
    close(ours(x, t, enlarged), theirs(torch.cat([x, enlarged], 1), t).sample)


@pytest.fixture(scope="module")
def tables(karlo) -> list[tuple[Any, dict[str, Tensor], dict[str, Tensor]]]:
    """Each table with their weights and ours."""
    theirs = karlo.theirs
    both = join_folders(decoder=theirs.decoder.state_dict(), text_proj=theirs.text_proj.state_dict())
    return [
        (prior_table(karlo.prior.config), theirs.prior.state_dict(), karlo.prior.state_dict()),
        (decoder_table(karlo.decoder.config), both, karlo.decoder.state_dict()),
        (upsampler_table(karlo.first.config), theirs.super_res_first.state_dict(), karlo.first.state_dict()),
    ]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_both_round_trips_give_back_every_bit(karlo, tables) -> None:
    for table, theirs, ours in tables:
        before = {key: tensor.clone() for key, tensor in theirs.items()}
        assert same(table.to_ours(theirs), ours)
        assert same(table.to_theirs(ours), theirs)
        assert same(theirs, before)
    folders = split_folders(tables[1][1])
    assert same(folders["text_proj"], karlo.theirs.text_proj.state_dict())
    assert same(folders["decoder"], karlo.theirs.decoder.state_dict())


def test_what_the_map_does_not_know_is_refused_by_name(tables) -> None:
    for table, theirs, ours in tables:
        with pytest.raises(BadModel, match=r"'down_blocks\.9\.surprise', which Karlo's"):
            table.to_ours({**theirs, "down_blocks.9.surprise": torch.zeros(1)})
        with pytest.raises(BadModel, match="'ema'"):
            table.to_theirs({**ours, "ema": torch.zeros(1)})
        for key in list(theirs)[:: len(theirs) // 7]:
            with pytest.raises(BadModel, match=f"no weights '{key}'"):
                table.to_ours({name: tensor for name, tensor in theirs.items() if name != key})
    table, theirs, ours = tables[0]
    assert same(table.to_ours({**theirs, "causal_attention_mask": torch.zeros(1, 16, 16)}), ours)  # knowingly dropped


def test_the_published_sizes_are_our_presets_and_every_one_of_their_keys_is_mapped() -> None:
    prior, decoder = prior_config(PUBLISHED["prior"]), decoder_config(PUBLISHED["decoder"], PUBLISHED["text_proj"])
    upsampler = upsampler_config(PUBLISHED["super_res"])
    assert prior == PRIOR_PRESETS["karlo"]
    assert decoder == DECODER_PRESETS["karlo"]
    assert upsampler == UPSAMPLER_PRESETS["karlo"]
    assert codec_config(PUBLISHED["decoder"]) == IdentityCodecConfig(picture_size=64, picture_channels=3)
    with torch.device("meta"):
        classes: dict[str, Any] = {
            "prior": PriorTransformer,
            "decoder": UNet2DConditionModel,
            "text_proj": UnCLIPTextProjModel,
            "super_res": UNet2DModel,
        }
        states = {name: kind.from_config(PUBLISHED[name]).state_dict() for name, kind in classes.items()}
    both = join_folders(decoder=states["decoder"], text_proj=states["text_proj"])
    for table, theirs, count in (
        (prior_table(prior), states["prior"], 1_022_030_080),
        (decoder_table(decoder), both, 885_439_686 + 7_878_400),
        (upsampler_table(upsampler), states["super_res"], 691_579_523),
    ):
        ours = table.to_ours(theirs)
        back = table.to_theirs(ours)
        assert sum(tensor.numel() for tensor in ours.values()) == count
        assert {key: one.shape for key, one in back.items()} == {key: one.shape for key, one in theirs.items()}


def test_published_schedulers_become_stages() -> None:
    common = {"_class_name": "UnCLIPScheduler", "num_train_timesteps": 1000, "clip_sample": True}
    fixed = {**common, "variance_type": "fixed_small_log"}
    config = pipeline_config(
        {**fixed, "prediction_type": "sample", "clip_sample_range": 5.0},
        {**common, "variance_type": "learned_range", "prediction_type": "epsilon", "clip_sample_range": 1.0},
        {**fixed, "prediction_type": "epsilon", "clip_sample_range": 1.0},
    )
    prior, decoder, upsampler = config.prior, config.decoder, config.upsampler
    assert (prior.prediction, prior.clip, prior.variance, prior.guidance, prior.steps) == (
        "x0",
        5,
        "fixed-small",
        4,
        25,
    )
    assert (decoder.prediction, decoder.clip, decoder.variance, decoder.guidance) == ("eps", 1, "learned", 8)
    assert (upsampler.prediction, upsampler.variance, upsampler.guidance, upsampler.steps) == (
        "eps",
        "fixed-small",
        1,
        7,
    )
    assert {one.schedule for one in (prior, decoder, upsampler)} == {"cosine"}
    assert not config.unit_embeddings


@pytest.mark.parametrize(
    ("which", "wrong", "says"),
    [
        ("prior", {"added_emb_type": None}, "added_emb_type = None; wanted 'prd'"),
        ("prior", {"norm_in_type": "layer"}, "norm_in_type = 'layer'"),
        ("prior", {"num_layers": "20"}, "num_layers = '20'; wanted a positive whole number"),
        ("prior", {"num_layers": True}, "num_layers = True"),
        ("prior", {"clip_embed_dim": 512}, "clip_embed_dim = 512; wanted 768"),
        ("prior", {"rotary": True}, "unknown field 'rotary'"),
        ("prior", {"_class_name": "UNet2DModel"}, "a config of 'UNet2DModel'; wanted one of PriorTransformer"),
        ("text_proj", {"cross_attention_dim": 768}, "cross_attention_dim = 768; wanted 1536"),
        ("text_proj", {"time_embed_dim": ...}, "without 'time_embed_dim'"),
        ("decoder", {"class_embed_type": ...}, "class_embed_type = None; wanted 'identity'"),
        ("decoder", {"freq_shift": 1}, "freq_shift = 1; wanted 0"),
        ("decoder", {"freq_shift": False}, "freq_shift = False"),
        ("decoder", {"only_cross_attention": True}, "only_cross_attention = True"),
        ("decoder", {"down_block_types": ["DownBlock2D"]}, "down_block_types"),
        ("decoder", {"down_block_types": [[]]}, "down_block_types"),
        ("decoder", {"up_block_types": ["ResnetUpsampleBlock2D"]}, "up_block_types = "),
        ("decoder", {"block_out_channels": [320]}, "number of block_out_channels = 1; wanted 4"),
        ("decoder", {"block_out_channels": [330, 640, 960, 1280]}, "norm_groups"),
        ("decoder", {"norm_eps": 0}, "norm_eps = 0"),
        ("decoder", {"out_channels": 5}, "5 channels out"),
        ("super_res", {"add_attention": ...}, "add_attention = True; wanted False"),
        ("super_res", {"down_block_types": ["SimpleCrossAttnDownBlock2D"] * 4}, "up_block_types = "),
        ("super_res", {"resnet_time_scale_shift": "spatial"}, "wanted 'default' or 'scale_shift'"),
    ],
)
def test_a_config_that_we_would_compute_otherwise_is_refused_by_name(which: str, wrong: dict, says: str) -> None:
    configs = {name: dict(config) for name, config in PUBLISHED.items()}
    configs[which].update(wrong)
    configs[which] = {key: value for key, value in configs[which].items() if value is not ...}
    names, build = {
        "prior": (["prior"], prior_config),
        "super_res": (["super_res"], upsampler_config),
    }.get(which, (["decoder", "text_proj"], decoder_config))
    with pytest.raises(BadModel) as error:
        build(*(configs[name] for name in names))
    assert says in str(error.value)


def test_a_decoder_that_does_not_say_its_size_has_no_codec() -> None:
    with pytest.raises(BadModel, match="without sample_size"):
        codec_config({**PUBLISHED["decoder"], "sample_size": None})
