"""Karlo's weights: the open replica of DALL·E 2, in the layout in which the diffusers library publishes it.

Three tables, each built from the config of the network that it serves:

    prior/            PriorTransformer                           DiffusionPrior
    decoder/ and      UNet2DConditionModel, whose keys stand     Decoder
      text_proj/        here behind "decoder.", and
                        UnCLIPTextProjModel, behind "text_proj."
    super_res_*/      UNet2DModel                                Upsampler

`table.to_ours(state)` and `table.to_theirs(state)` are the key maps.  What the names do not say, the networks do:
the four picture tokens are interleaved along the features of their projection, the sinusoid begins with cosines, the
prior's answer stands at its last token, its attention has two norms of which the second is called norm3.

Source: Karlo v1 alpha (Kakao Brain, 2022), after unCLIP, arXiv:2204.06125.
"""

from collections.abc import Mapping

from torch import Tensor

from opendalle.base.errors import require
from opendalle.dalle2.decoder import DecoderConfig
from opendalle.dalle2.priors.diffusion import DiffusionPriorConfig
from opendalle.pretrained.maps.key_table import KeyTable, Row, layer
from opendalle.pretrained.maps.unet import unet_rows
from opendalle.upsampling.network import UpsamplerConfig

DECODER, CONTEXT = "decoder", "text_proj"  # folders whose weights make up one Decoder of ours


def prior_table(config: DiffusionPriorConfig) -> KeyTable:
    """Return the keys of a prior.

    Args:
        config: of our network.
    """
    rows = [
        *layer("text_in", "encoder_hidden_states_proj"),
        *layer("text_embedding_in", "embedding_proj"),
        *layer("time.linear1", "time_embedding.linear_1"),
        *layer("time.linear2", "time_embedding.linear_2"),
        *layer("noised_in", "proj_in"),
        Row(ours="query", theirs=("prd_embedding",), num_leading=2),
        Row(ours="positions.table", theirs=("positional_embedding",), num_leading=1),
    ]
    for index in range(config.transformer.depth):
        ours, theirs = f"transformer.blocks.{index}", f"transformer_blocks.{index}"
        rows += [
            *layer(f"{ours}.norm1", f"{theirs}.norm1"),
            *layer(f"{ours}.attention.qkv", *(f"{theirs}.attn1.to_{one}" for one in "qkv")),
            *layer(f"{ours}.attention.out", f"{theirs}.attn1.to_out.0"),
            *layer(f"{ours}.norm2", f"{theirs}.norm3"),
            *layer(f"{ours}.mlp.up", f"{theirs}.ff.net.0.proj"),
            *layer(f"{ours}.mlp.down", f"{theirs}.ff.net.2"),
        ]
    rows += [
        *layer("transformer.norm", "norm_out"),
        *layer("out", "proj_to_clip_embeddings"),
        Row(ours="embedding_mean", theirs=("clip_mean",), num_leading=1),
        Row(ours="embedding_std", theirs=("clip_std",), num_leading=1),
    ]
    dropped = {"causal_attention_mask": "follows from the number of tokens; nothing in it was learned"}
    return KeyTable(origin="Karlo's prior", rows=tuple(rows), dropped=dropped)


def decoder_table(config: DecoderConfig) -> KeyTable:
    """Return the keys of a decoder: its U-Net's and those of the projections that read a prompt for it.

    Args:
        config: of our network.

    Raises:
        BadConfig: when its body is no U-Net.
    """
    require(config.unet is not None, "a decoder without a U-Net", "one with the body that Karlo has")
    assert config.unet is not None
    rows = [
        Row(ours="null_embedding", theirs=(f"{CONTEXT}.learned_classifier_free_guidance_embeddings",)),
        *layer("picture_to_time", f"{CONTEXT}.clip_image_embeddings_project_to_time_embeddings"),
        *layer("text_to_time", f"{CONTEXT}.embedding_proj"),
        *layer("picture_to_tokens", f"{CONTEXT}.clip_extra_context_tokens_proj"),
        *layer("text_in", f"{CONTEXT}.encoder_hidden_states_proj"),
        *layer("text_norm", f"{CONTEXT}.text_encoder_hidden_states_norm"),
        *unet_rows(config.unet, "body.", f"{DECODER}."),
    ]
    return KeyTable(origin="Karlo's decoder", rows=tuple(rows))


def upsampler_table(config: UpsamplerConfig) -> KeyTable:
    """Return the keys of an upsampler; both super-resolution networks have the same.

    Args:
        config: of our network.
    """
    return KeyTable(origin="Karlo's super-resolution", rows=tuple(unet_rows(config.unet, "unet.", "")))


def join_folders(**states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the weights of several folders into one state dict, each key behind its folder's name.

    Args:
        states: folder -> its state dict; `decoder=..., text_proj=...` for `decoder_table`.
    """
    return {f"{folder}.{key}": tensor for folder, state in states.items() for key, tensor in state.items()}


def split_folders(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Undo `join_folders`.

    Args:
        state: keys behind their folders' names.
    """
    folders: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        folder, _, key = name.partition(".")
        folders.setdefault(folder, {})[key] = tensor
    return folders
