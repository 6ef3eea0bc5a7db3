"""What model folders are made of: the closed table kind -> network, and how one is read, strictly.

A model folder holds its own networks and names the sibling folders that it needs, each by name and sha256: so one
CLIP and one codec serve several generations, and none can be mixed up with another.
"""

from collections.abc import Mapping
from reprlib import repr as repr_short
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from opendalle.base.errors import BadModel
from opendalle.checkpoint.configs import from_plain
from opendalle.checkpoint.folder import ModelFolder, StoredPart, read_model
from opendalle.checkpoint.places import find_model, is_plain
from opendalle.clip.model import CLIP, CLIPConfig
from opendalle.codec.consistency import ConsistencyDecoder, ConsistencyDecoderConfig
from opendalle.codec.dvae import DiscreteVAE, DiscreteVAEConfig
from opendalle.codec.identity import IdentityCodec, IdentityCodecConfig
from opendalle.codec.kl import KLAutoencoder, KLAutoencoderConfig
from opendalle.codec.latent import LatentAutoencoder, LatentAutoencoderConfig
from opendalle.codec.vqgan import VQGAN, VQGANConfig
from opendalle.dalle1.transformer import Dalle1Transformer, Dalle1TransformerConfig
from opendalle.dalle2.decoder import Decoder, DecoderConfig
from opendalle.dalle2.means import Guess, GuessConfig, Sketch, SketchConfig
from opendalle.dalle2.priors.autoregressive import AutoregressivePrior, AutoregressivePriorConfig
from opendalle.dalle2.priors.diffusion import DiffusionPrior, DiffusionPriorConfig
from opendalle.dalle2.priors.linear import LinearPrior, LinearPriorConfig
from opendalle.dalle2.priors.projection import ProjectionPrior, ProjectionPriorConfig
from opendalle.dalle2.priors.untrained import ShiftedText, ShiftedTextConfig
from opendalle.dalle3.caption_network import CaptionNetwork, CaptionNetworkConfig
from opendalle.dalle3.denoiser import Denoiser, DenoiserConfig
from opendalle.dalle3.reading import SpellsCaptions
from opendalle.dalle3.text_decoder import TextDecoder, TextDecoderConfig
from opendalle.dalle3.text_encoder import TextEncoder, TextEncoderConfig
from opendalle.evaluation.judge import Judge, JudgeConfig
from opendalle.nn.unfilled import Unfilled
from opendalle.tokenizers import BytePairTokenizer, ByteTokenizer, UnigramTokenizer
from opendalle.upsampling.network import Upsampler, UpsamplerConfig

Network = tuple[type[Any], type[nn.Module]]  # config dataclass, class

NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "clip": (CLIPConfig, CLIP),
        "codec-identity": (IdentityCodecConfig, IdentityCodec),
        "codec-kl": (KLAutoencoderConfig, KLAutoencoder),
        "codec-latent": (LatentAutoencoderConfig, LatentAutoencoder),
        "codec-dvae": (DiscreteVAEConfig, DiscreteVAE),
        "codec-vqgan": (VQGANConfig, VQGAN),
        "consistency-decoder": (ConsistencyDecoderConfig, ConsistencyDecoder),
        "dalle1-transformer": (Dalle1TransformerConfig, Dalle1Transformer),
        "dalle2-prior": (DiffusionPriorConfig, DiffusionPrior),
        "dalle2-prior-ar": (AutoregressivePriorConfig, AutoregressivePrior),
        "dalle2-prior-linear": (LinearPriorConfig, LinearPrior),
        "dalle2-prior-none-shifted": (ShiftedTextConfig, ShiftedText),
        "dalle2-prior-projection": (ProjectionPriorConfig, ProjectionPrior),
        "dalle2-guess": (GuessConfig, Guess),
        "dalle2-sketch": (SketchConfig, Sketch),
        "dalle2-decoder": (DecoderConfig, Decoder),
        "dalle3-captions": (CaptionNetworkConfig, CaptionNetwork),
        "dalle3-denoiser": (DenoiserConfig, Denoiser),
        "text-encoder": (TextEncoderConfig, TextEncoder),
        "text-decoder": (TextDecoderConfig, TextDecoder),
        "upsampler": (UpsamplerConfig, Upsampler),
        "judge": (JudgeConfig, Judge),
    }
)

ROLES: Mapping[str, tuple[str, ...]] = MappingProxyType(  # role of a sibling -> kinds that can play it
    {
        "clip": ("clip",),
        "codec": ("codec-identity", "codec-kl", "codec-latent", "consistency-decoder"),
        "encoder": ("codec-identity", "codec-kl", "codec-latent"),
        "words": ("codec-dvae", "codec-vqgan"),
        "upsampler": ("upsampler",),
        "upscaler": ("upsampler",),
        "priors": ("dalle2-priors",),
        "text": ("text-encoder",),
        "rewriter": ("rewriter",),
        "captioner": ("captioner",),
    }
)
HEAD = "pipeline"  # the part that holds a model's settings and siblings
CODEC_HEAD = "codec"  # the part of a consistency decoder that names the codec whose grids it draws, if it does
PRIORS_HEAD = "priors"  # the part of a folder of priors that names their CLIP; every other part is a prior

TOKENIZER = "tokenizer.json"  # beside a CLIP's weights


def load_network(kind: str, part: StoredPart, *, device: str | torch.device = "cpu") -> Any:
    """Build one network and give it its weights, strictly.

    Args:
        kind: a key of NETWORKS.
        part: its config and weights.
        device: where it goes.

    Raises:
        BadModel: when no network can be built from the config, or the weights are not exactly those of the network.
    """
    config_class, network_class = NETWORKS[kind]
    config = from_plain(config_class, part.config)
    try:
        with Unfilled():
            network = network_class(config)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        came = f"{part.root}/{part.name}, whose config makes no {kind} ({error})"
        raise BadModel(came, "a config as opendalle writes it") from None
    state = part.state()
    wanted = network.state_dict()
    wrong = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
    if problems := sorted({*wrong, *(set(state) - set(wanted))}):
        raise BadModel(f"{part.root}/{part.name} with other weights, as {problems[0]}", f"those of a {kind}")
    network.load_state_dict(state, strict=True)
    return network.to(device).eval().requires_grad_(False)


def load_tokenizer(model: ModelFolder) -> BytePairTokenizer:
    """Return the tokenizer that lies beside a CLIP's weights."""
    return BytePairTokenizer.from_json(only_part(model).extra(TOKENIZER))  # noqa: S610 - no database here


def sibling(model: ModelFolder, siblings: Any, role: str) -> ModelFolder:
    """Open the model that another one names, and check that it is the very one.

    Args:
        model: who names it.
        siblings: role -> name and sha256, as the file holds it.
        role: which one.

    Raises:
        BadModel: when it is missing, of a kind that cannot play the role, or another model of the same name.
    """
    wanted = siblings.get(role) if isinstance(siblings, Mapping) else None
    name, sha256 = (wanted.get("name"), wanted.get("sha256")) if isinstance(wanted, Mapping) else (None, None)
    if not isinstance(name, str) or not isinstance(sha256, str) or not is_plain(name):
        raise BadModel(f"{model.path} with {role} = {repr_short(wanted)}", "a sibling's plain name and sha256")
    found = read_model(find_model(name, beside=model.path))
    if found.kind not in ROLES[role]:
        raise BadModel(f"{found.path}, a {found.kind}, as the {role} of {model.path}", " or ".join(ROLES[role]))
    if found.sha256 != sha256:
        raise BadModel(
            f"{found.path}, another {role} than {model.path} was trained with",
            f"the one with sha256 {sha256[:12]}...",
            "Put it beside the model, or train the model again.",
        )
    return found


def only_part(model: ModelFolder) -> StoredPart:
    """Return the part of a folder that holds one network.

    Args:
        model: the folder.

    Raises:
        BadModel: when it has none, or more.
    """
    if len(model.parts) != 1:
        raise BadModel(f"{model.path} with {len(model.parts)} parts", f"the one part of a {model.kind}")
    return next(iter(model.parts.values()))


def head_of(model: ModelFolder) -> tuple[Any, Any]:
    """Return the settings and siblings of a model, as the file holds them.

    Args:
        model: the folder.

    Raises:
        BadModel: when they are not there.
    """
    head = model.part(HEAD).config
    if missing := [name for name in ("siblings", "settings") if name not in head]:
        raise BadModel(f"{model.path}/{HEAD} without {missing[0]}", "settings and siblings")
    return head["settings"], head["siblings"]


def load_spelling(model: ModelFolder) -> SpellsCaptions:
    """Return the tokenizer that lies beside a text encoder's weights: bytes, or likeliest pieces."""
    plain = only_part(model).extra(TOKENIZER)  # noqa: S610 - no database here
    return UnigramTokenizer.from_json(plain) if "model" in plain else ByteTokenizer.from_json(plain)
