"""Karlo's JSON configs as ours: what the diffusers library writes beside the weights, at any size.

Which values are accepted is a closed set: those that our networks compute alike.  Everything else, a switch that is
set otherwise or one that we have never heard of, raises BadModel with its name.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from opendalle.base.errors import BadModel
from opendalle.checkpoint.configs import from_plain
from opendalle.codec.identity import IdentityCodecConfig
from opendalle.dalle2.decoder import DecoderConfig
from opendalle.dalle2.parts import Dalle2Config
from opendalle.dalle2.priors.diffusion import DiffusionPriorConfig
from opendalle.nn.transformer import TransformerConfig
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.pretrained.maps.foreign_form import ForeignForm, number, only, several, whole
from opendalle.samplers.settings import StageSettings
from opendalle.upsampling.network import UpsamplerConfig
from opendalle.upsampling.settings import UpsamplerSettings

Config = TypeVar("Config")

PRIOR = ForeignForm(
    class_name="PriorTransformer",
    fields={
        "num_attention_heads": whole(32),
        "attention_head_dim": whole(64),
        "num_layers": whole(20),
        "embedding_dim": whole(768),
        "num_embeddings": whole(77),
        "additional_embeddings": only(4),  # z_t, step, noised z_i, query
        "dropout": only(0.0),
        "time_embed_act_fn": only("silu"),
        "norm_in_type": only(None),
        "embedding_proj_norm_type": only(None),
        "encoder_hid_proj_type": only("linear"),
        "added_emb_type": only("prd"),
        "time_embed_dim": whole(None, optional=True),
        "embedding_proj_dim": whole(None, optional=True),
        "clip_embed_dim": whole(None, optional=True),
    },
)

CONTEXT = ForeignForm(
    class_name="UnCLIPTextProjModel",
    fields={
        "clip_extra_context_tokens": whole(4),
        "clip_embeddings_dim": whole(768),
        "time_embed_dim": whole(),
        "cross_attention_dim": whole(),
    },
)

CONDITIONING = {"default": "add", "scale_shift": "scale-shift"}  # how the time vector enters a residual block
BLOCKS = {"ResnetDownsampleBlock2D": False, "SimpleCrossAttnDownBlock2D": True}  # way down -> whether it attends
MIRRORED = {  # way down -> way up
    "ResnetDownsampleBlock2D": "ResnetUpsampleBlock2D",
    "SimpleCrossAttnDownBlock2D": "SimpleCrossAttnUpBlock2D",
}

UNET = {  # fields that both U-Net classes have
    "sample_size": whole(None, optional=True),  # belongs to the codec here
    "center_input_sample": only(False),
    "flip_sin_to_cos": only(True),
    "freq_shift": only(0),
    "time_embedding_type": only("positional"),
    "time_embedding_dim": whole(None, optional=True),
    "down_block_types": several("one of " + ", ".join(MIRRORED), lambda one: one in tuple(MIRRORED)),
    "up_block_types": several("one of " + ", ".join(MIRRORED.values()), lambda one: one in tuple(MIRRORED.values())),
    "block_out_channels": several("a positive whole number", whole().fits),
    "downsample_padding": only(0, 1, default=1),  # of a convolution that these blocks do not have
    "mid_block_scale_factor": only(1),
    "dropout": number(0.0, 0.0, 1.0),
    "act_fn": only("silu"),
    "norm_num_groups": whole(32),
    "norm_eps": number(1e-5, 1e-12, 1.0),
    "attention_head_dim": whole(8),  # the true width of a head, in this kind of block
    "resnet_time_scale_shift": only(*CONDITIONING),
    "num_class_embeds": only(None),
}

DECODER = ForeignForm(
    class_name="UNet2DConditionModel",
    fields={
        **UNET,
        "in_channels": whole(4),
        "out_channels": whole(4),
        "layers_per_block": whole(2),
        "mid_block_type": only("UNetMidBlock2DSimpleCrossAttn", default="UNetMidBlock2DCrossAttn"),
        "cross_attention_dim": whole(1280),
        "class_embed_type": only("identity", default=None),
        "only_cross_attention": only(False),
        "mid_block_only_cross_attention": only(None, False),
        "cross_attention_norm": only(None),
        "dual_cross_attention": only(False),
        "upcast_attention": only(False),
        "use_linear_projection": only(False),
        "attention_type": only("default"),
        "num_attention_heads": only(None),
        "transformer_layers_per_block": only(1),
        "reverse_transformer_layers_per_block": only(None),
        "encoder_hid_dim": only(None),
        "encoder_hid_dim_type": only(None),
        "addition_embed_type": only(None),
        "addition_embed_type_num_heads": only(64),
        "addition_time_embed_dim": only(None),
        "projection_class_embeddings_input_dim": only(None),
        "class_embeddings_concat": only(False),
        "resnet_skip_time_act": only(False),
        "resnet_out_scale_factor": only(1.0),
        "time_embedding_act_fn": only(None),
        "timestep_post_act": only(None),
        "time_cond_proj_dim": only(None),
        "conv_in_kernel": only(3),
        "conv_out_kernel": only(3),
    },
)

UPSAMPLER = ForeignForm(
    class_name="UNet2DModel",
    fields={
        **UNET,
        "in_channels": whole(3),
        "out_channels": whole(3),
        "layers_per_block": whole(2),
        "mid_block_type": only("UNetMidBlock2D"),
        "add_attention": only(False, default=True),
        "attn_norm_num_groups": only(None),
        "downsample_type": only("conv", "resnet"),  # these blocks resample inside, whatever it says
        "upsample_type": only("conv", "resnet"),
        "class_embed_type": only(None),
        "num_train_timesteps": only(None),
        "attention_head_dim": whole(8, optional=True),  # of attention that is not there
    },
)

PREDICTIONS = {"epsilon": "eps", "sample": "x0"}
VARIANCES = {"fixed_small_log": "fixed-small", "learned_range": "learned"}

SCHEDULER = ForeignForm(
    class_name="UnCLIPScheduler",
    fields={
        "num_train_timesteps": whole(1000),
        "variance_type": only(*VARIANCES),
        "clip_sample": only(True, False),
        "clip_sample_range": number(1.0, 1e-6, 1e6),
        "prediction_type": only(*PREDICTIONS),
        "beta_schedule": only("squaredcos_cap_v2"),
    },
)


def prior_config(plain: Mapping[str, Any]) -> DiffusionPriorConfig:
    """Read the config of a PriorTransformer.

    Args:
        plain: `prior/config.json`.

    Raises:
        BadModel: when it is no prior that we compute.
    """
    values = PRIOR.read(plain)
    width, e = values["num_attention_heads"] * values["attention_head_dim"], values["embedding_dim"]
    for name, wanted in (("time_embed_dim", width), ("embedding_proj_dim", e), ("clip_embed_dim", e)):
        if values[name] is not None:
            _agree(f"the prior's {name}", values[name], wanted)
    transformer = _build(
        TransformerConfig,
        width=width,
        depth=values["num_layers"],
        heads=values["num_attention_heads"],
        is_causal=True,
    )
    return _build(
        DiffusionPriorConfig,
        embedding_width=e,
        text_width=e,
        num_text_tokens=values["num_embeddings"],
        transformer=transformer,
    )


def decoder_config(unet: Mapping[str, Any], text_proj: Mapping[str, Any]) -> DecoderConfig:
    """Read the configs of a UNet2DConditionModel and of the UnCLIPTextProjModel that reads prompts for it.

    Args:
        unet: `decoder/config.json`.
        text_proj: `text_proj/config.json`.

    Raises:
        BadModel: when they are no decoder that we compute, or do not fit each other.
    """
    values, context = DECODER.read(unet), CONTEXT.read(text_proj)
    ours = _unet_config(values, attends=True, context_width=values["cross_attention_dim"])
    _agree("text_proj's cross_attention_dim", context["cross_attention_dim"], values["cross_attention_dim"])
    _agree("text_proj's time_embed_dim", context["time_embed_dim"], ours.time_width)
    e = context["clip_embeddings_dim"]
    return _build(
        DecoderConfig,
        embedding_width=e,
        text_width=e,
        text_embedding_width=e,
        unet=ours,
        num_picture_tokens=context["clip_extra_context_tokens"],
    )


def upsampler_config(plain: Mapping[str, Any], *, factor: int = 4) -> UpsamplerConfig:
    """Read the config of a super-resolution UNet2DModel.

    Args:
        plain: `super_res_first/config.json` or `super_res_last/config.json`.
        factor: how much larger the side becomes; the file does not say.

    Raises:
        BadModel: when it is no upsampler that we compute.
    """
    values = UPSAMPLER.read(plain)
    unet = _unet_config(values, attends=False, context_width=None)
    return _build(UpsamplerConfig, picture_channels=values["out_channels"], factor=factor, unet=unet)


def codec_config(unet: Mapping[str, Any]) -> IdentityCodecConfig:
    """Return the codec of a decoder that draws pixels; the side of its pictures stands beside its U-Net.

    Args:
        unet: `decoder/config.json`.

    Raises:
        BadModel: when the side is not told, or the channels are no picture's.
    """
    values = DECODER.read(unet)
    if values["sample_size"] is None:
        raise BadModel("a decoder without sample_size", "the side of its pictures in pixels")
    return _build(IdentityCodecConfig, picture_size=values["sample_size"], picture_channels=values["in_channels"])


def stage_settings(plain: Mapping[str, Any], *, steps: int, guidance: float = 1.0) -> StageSettings:
    """Read the config of an UnCLIPScheduler: how a network was trained and is sampled.

    Args:
        plain: `prior_scheduler/scheduler_config.json` and its two sisters.
        steps: visited when nobody says otherwise; the file does not say.
        guidance: applied when nobody says otherwise; the file does not say.

    Raises:
        BadModel: when it is a scheduler of another kind.
    """
    values = SCHEDULER.read(plain)
    return _build(
        StageSettings,
        schedule="cosine",
        num_train_steps=values["num_train_timesteps"],
        prediction=PREDICTIONS[values["prediction_type"]],
        sampler="ddpm",
        steps=steps,
        spacing="karlo",
        guidance=guidance,
        clip=float(values["clip_sample_range"]) if values["clip_sample"] else None,
        variance=VARIANCES[values["variance_type"]],
    )


def pipeline_config(prior: Mapping[str, Any], decoder: Mapping[str, Any], super_res: Mapping[str, Any]) -> Dalle2Config:
    """Return the settings of the whole cascade, with the steps and guidances that Karlo is published with.

    Args:
        prior: `prior_scheduler/scheduler_config.json`.
        decoder: `decoder_scheduler/scheduler_config.json`.
        super_res: `super_res_scheduler/scheduler_config.json`.

    Raises:
        BadModel: when one of them is a scheduler of another kind.
    """
    return Dalle2Config(
        prior=stage_settings(prior, steps=25, guidance=4.0),
        decoder=stage_settings(decoder, steps=25, guidance=8.0),
        upsampler=UpsamplerSettings(**vars(stage_settings(super_res, steps=7))),
        candidates=1,
        unit_embeddings=False,
    )


def _unet_config(values: Mapping[str, Any], *, attends: bool, context_width: int | None) -> UNetConfig:
    """Build a U-Net's config from a foreign one that has been read."""
    down, up, widths = (tuple(values[key]) for key in ("down_block_types", "up_block_types", "block_out_channels"))
    _agree("up_block_types", up, tuple(MIRRORED[one] for one in reversed(down)))
    _agree("the number of block_out_channels", len(widths), len(down))
    levels = tuple(
        _build(UNetLevel, width=width, num_blocks=values["layers_per_block"], has_attention=BLOCKS[one])
        for width, one in zip(widths, down, strict=True)
    )
    head = {"head_width": values["attention_head_dim"]} if attends else {}
    return _build(
        UNetConfig,
        in_channels=values["in_channels"],
        out_channels=values["out_channels"],
        levels=levels,
        time_width=values["time_embedding_dim"] or 4 * widths[0],
        middle="attention" if attends else "residual",
        context_width=context_width,
        conditioning=CONDITIONING[values["resnet_time_scale_shift"]],
        norm_groups=values["norm_num_groups"],
        norm_eps=values["norm_eps"],
        dropout=values["dropout"],
        **head,
    )


def _build(kind: type[Config], **fields: Any) -> Config:
    """Build a config of ours; what it refuses is a fault of the foreign file."""
    return from_plain(kind, fields)


def _agree(name: str, came: Any, wanted: Any) -> None:
    if came != wanted:
        raise BadModel(f"{name} = {came!r}", f"{wanted!r}, as the rest of the config says")
