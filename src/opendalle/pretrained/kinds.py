"""The closed table kind -> class, and how a model is put together from its folders.

A model folder holds its own networks and names the sibling folders that it needs, each by name and sha256: so one
CLIP and one codec serve several generations, and none can be mixed up with another.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from reprlib import repr as repr_short
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from opendalle.base.errors import BadConfig, BadModel
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
from opendalle.dalle1.parts import Dalle1Config, Dalle1Parts
from opendalle.dalle1.pipeline import Dalle1
from opendalle.dalle1.transformer import Dalle1Transformer, Dalle1TransformerConfig
from opendalle.dalle2.decoder import Decoder, DecoderConfig
from opendalle.dalle2.means import Guess, GuessConfig, Sketch, SketchConfig
from opendalle.dalle2.parts import Dalle2Config, Dalle2Parts
from opendalle.dalle2.pipeline import Dalle2
from opendalle.dalle2.priors.autoregressive import AutoregressivePrior, AutoregressivePriorConfig
from opendalle.dalle2.priors.diffusion import DiffusionPrior, DiffusionPriorConfig
from opendalle.dalle2.priors.linear import LinearPrior, LinearPriorConfig
from opendalle.dalle2.priors.projection import ProjectionPrior, ProjectionPriorConfig
from opendalle.dalle2.priors.protocol import Prior
from opendalle.dalle2.priors.untrained import ShiftedText, ShiftedTextConfig
from opendalle.dalle3.caption_network import CaptionNetwork, CaptionNetworkConfig
from opendalle.dalle3.captioner import Captioner, CaptionerConfig
from opendalle.dalle3.denoiser import Denoiser, DenoiserConfig
from opendalle.dalle3.reading import SpellsCaptions
from opendalle.dalle3.rewriter import OwnRewriter, OwnRewriterConfig
from opendalle.dalle3.text_decoder import TextDecoder, TextDecoderConfig, TextToText
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
        "codec": ("codec-identity", "codec-kl", "codec-latent"),
        "words": ("codec-dvae", "codec-vqgan"),
        "upsampler": ("upsampler",),
        "upscaler": ("upsampler",),
        "priors": ("dalle2-priors",),
        "text": ("text-encoder",),
    }
)
HEAD = "pipeline"  # the part that holds a model's settings and siblings
PRIORS_HEAD = "priors"  # the part of a folder of priors that names their CLIP; every other part is a prior

TOKENIZER = "tokenizer.json"  # beside a CLIP's weights


def load(name: str | Path, *, device: str | torch.device = "cpu") -> Any:
    """Load a model, ready to use.

    Args:
        name: a bundled model (`dalle2`), or a model folder.
        device: where its networks go.

    Returns:
        A pipeline for a generation, priors by name for a folder of priors, a captioner with its CLIP, a rewriter with
        its text encoder, a network in evaluation mode for all else.

    Raises:
        BadModel: when it is missing, damaged, or of an unknown kind.
        BadConfig: when there is no such device.
    """
    return load_folder(read_model(find_model(name)), device=device)


def load_pipeline(name: str | Path, *, device: str | torch.device = "cpu") -> Any:
    """Load a generation: what `load` does, for those who want to draw.

    Args:
        name: a bundled generation (`dalle2`), or a model folder.
        device: where its networks go.

    Raises:
        BadModel: as `load`, or when the model is a network that draws nothing by itself.
    """
    model = read_model(find_model(name))
    if model.kind not in PIPELINES and model.kind in {*NETWORKS, *COLLECTIONS, *ASSISTANTS}:
        raise BadModel(f"{model.path.name}, a {model.kind}", f"a generation such as {next(iter(PIPELINES))}")
    return load_folder(model, device=device)


def load_captioner(name: str | Path, *, device: str | torch.device = "cpu") -> Captioner:
    """Load a captioner with the CLIP that it names.

    Args:
        name: a bundled captioner, or its model folder.
        device: where its networks go.

    Raises:
        BadModel: as `load`, or when the model is no captioner.
    """
    model = read_model(find_model(name))
    if model.kind != "captioner":
        raise BadModel(f"{model.path.name}, a {model.kind}", "a captioner")
    return load_folder(model, device=device)


def load_folder(model: ModelFolder, *, device: str | torch.device = "cpu") -> Any:
    """Load an open model folder; arguments and errors are those of `load`."""
    device = _ready(device)
    if model.kind in PIPELINES:
        return PIPELINES[model.kind](model, device)
    if model.kind in COLLECTIONS:
        return COLLECTIONS[model.kind](model, device)
    if model.kind in NETWORKS:
        return load_network(model.kind, _only_part(model), device=device)
    if model.kind in ASSISTANTS:
        return ASSISTANTS[model.kind](model, device)
    known = ", ".join(sorted({*PIPELINES, *COLLECTIONS, *ASSISTANTS, *NETWORKS}))
    raise BadModel(f"{model.path} of kind {model.kind!r}", f"one of {known}", "Update opendalle?")


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
    return BytePairTokenizer.from_json(_only_part(model).extra(TOKENIZER))  # noqa: S610 - no database here


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


def _only_part(model: ModelFolder) -> StoredPart:
    if len(model.parts) != 1:
        raise BadModel(f"{model.path} with {len(model.parts)} parts", f"the one part of a {model.kind}")
    return next(iter(model.parts.values()))


def _ready(device: Any) -> torch.device:
    """Return a device on which a number can really be put; torch's own words for it come too late, and are many."""
    try:
        return torch.zeros(1, device=device).device
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError):
        raise BadConfig(f"the device {str(device)!r}", "one that torch finds here: cpu, cuda or mps") from None


def _head(model: ModelFolder) -> tuple[Any, Any]:
    """Return the settings and siblings of a generation, as the file holds them."""
    head = model.part(HEAD).config
    if missing := [name for name in ("siblings", "settings") if name not in head]:
        raise BadModel(f"{model.path}/{HEAD} without {missing[0]}", "settings and siblings")
    return head["settings"], head["siblings"]


def _upsampler_of(
    model: ModelFolder, siblings: Any, settings: object | None, role: str = "upsampler"
) -> ModelFolder | None:
    found = sibling(model, siblings, role) if role in siblings else None
    if found is not None and settings is None:
        raise BadModel(f"{model.path} with an {role} but no settings for it", "both, or neither")
    return found


def _load_dalle1(model: ModelFolder, device: torch.device) -> Dalle1:
    settings, siblings = _head(model)
    config = from_plain(Dalle1Config, settings)
    clip, words = sibling(model, siblings, "clip"), sibling(model, siblings, "words")
    upsampler = _upsampler_of(model, siblings, config.upsampler)
    upscaler = _upsampler_of(model, siblings, config.upscaler, "upscaler")
    networks = {
        "transformer": load_network("dalle1-transformer", model.part("transformer"), device=device),
        "codec": load_folder(words, device=device),
        "clip": load_folder(clip, device=device),
        "upsampler": load_folder(upsampler, device=device) if upsampler is not None else None,
        "upscaler": load_folder(upscaler, device=device) if upscaler is not None else None,
    }
    try:
        parts = Dalle1Parts(tokenizer=load_tokenizer(clip), **networks)
    except BadConfig as error:
        raise BadModel(f"{model.path}: {error.came}", error.wanted) from None
    return Dalle1(parts, config, {"model": model.path.name, "sha256": model.sha256}, clip.sha256)


def _load_dalle2(model: ModelFolder, device: torch.device) -> Dalle2:
    settings, siblings = _head(model)
    config = from_plain(Dalle2Config, settings)
    clip = sibling(model, siblings, "clip")
    codec = sibling(model, siblings, "codec")
    upsampler = _upsampler_of(model, siblings, config.upsampler)
    upscaler = _upsampler_of(model, siblings, config.upscaler, "upscaler")
    priors = sibling(model, siblings, "priors") if "priors" in siblings else None
    if priors is not None and clip_of_priors(priors).sha256 != clip.sha256:
        raise BadModel(f"{model.path} with {priors.path}, priors of another CLIP", "priors of its own CLIP")

    def own(name: str) -> Any:
        return load_network(f"dalle2-{name}", model.part(name), device=device)

    prior, decoder = own("prior"), own("decoder")
    parts = Dalle2Parts(
        tokenizer=load_tokenizer(clip),
        clip=load_folder(clip, device=device),
        prior=prior,
        decoder=decoder,
        codec=load_folder(codec, device=device),
        guess=own("guess") if prior.config.has_guess else None,
        sketch=own("sketch") if decoder.config.has_sketch else None,
        upsampler=load_folder(upsampler, device=device) if upsampler is not None else None,
        upscaler=load_folder(upscaler, device=device) if upscaler is not None else None,
        priors=load_folder(priors, device=device) if priors is not None else {},
    )
    return Dalle2(parts, config, {"model": model.path.name, "sha256": model.sha256}, clip.sha256)


class Priors(Mapping[str, Prior]):
    """The priors of a folder by the names that are asked for, each loaded when it first is: a picture needs one.

    Args:
        model: the folder.
        device: where their networks go.

    Raises:
        BadModel: when it holds a prior of an unknown kind; when one is asked for whose weights are damaged.
    """

    def __init__(self, model: ModelFolder, device: torch.device) -> None:
        self._parts = {name: part for name, part in model.parts.items() if name != PRIORS_HEAD}
        self._device, self._loaded = device, dict[str, Prior]()
        if unknown := [name for name in self._parts if f"dalle2-prior-{name}" not in NETWORKS]:
            raise BadModel(f"{model.path} with a prior {unknown[0]!r}", "one that opendalle knows", "Update opendalle?")

    def __getitem__(self, name: str) -> Prior:
        if name not in self._loaded:
            self._loaded[name] = load_network(f"dalle2-prior-{name}", self._parts[name], device=self._device)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _load_priors(model: ModelFolder, device: torch.device) -> Priors:
    """Open the priors of a folder; they belong to one CLIP, which must be there."""
    clip_of_priors(model)
    return Priors(model, device)


def clip_of_priors(model: ModelFolder) -> ModelFolder:
    """Return the CLIP that a folder of priors was trained with.

    Args:
        model: the folder.

    Raises:
        BadModel: when it names none, or another lies in its place.
    """
    return sibling(model, model.part(PRIORS_HEAD).config.get("siblings"), "clip")


def _load_captioner(model: ModelFolder, device: torch.device) -> Captioner:
    settings, siblings = _head(model)
    config = from_plain(CaptionerConfig, settings)
    clip = sibling(model, siblings, "clip")
    own = {
        name: load_network("dalle3-captions", model.part(name), device=device) for name in set(config.parts.values())
    }
    try:
        return Captioner(
            {kind: own[name] for kind, name in config.parts.items()},
            load_folder(clip, device=device),
            load_tokenizer(clip),
            config.decoding,
        )
    except BadConfig as error:
        raise BadModel(f"{model.path}: {error.came}", error.wanted) from None


def load_spelling(model: ModelFolder) -> SpellsCaptions:
    """Return the tokenizer that lies beside a text encoder's weights: bytes, or likeliest pieces."""
    plain = _only_part(model).extra(TOKENIZER)  # noqa: S610 - no database here
    return UnigramTokenizer.from_json(plain) if "model" in plain else ByteTokenizer.from_json(plain)


def _load_rewriter(model: ModelFolder, device: torch.device) -> OwnRewriter:
    settings, siblings = _head(model)
    config, text = from_plain(OwnRewriterConfig, settings), sibling(model, siblings, "text")
    spelling = load_spelling(text)
    if not isinstance(spelling, ByteTokenizer):
        raise BadModel(f"{text.path}, which reads pieces of words", "a text encoder that reads bytes")
    decoder = load_network("text-decoder", model.part("rewriter"), device=device)
    try:
        network = TextToText(load_folder(text, device=device), decoder).eval()
        return OwnRewriter(network, spelling, config, name=model.path.name)
    except BadConfig as error:
        raise BadModel(f"{model.path}: {error.came}", error.wanted) from None


ASSISTANTS: Mapping[str, Callable[[ModelFolder, torch.device], Any]] = (
    MappingProxyType(  # with siblings, drawing nothing
        {"captioner": _load_captioner, "rewriter": _load_rewriter}
    )
)
COLLECTIONS: Mapping[str, Callable[[ModelFolder, torch.device], Any]] = MappingProxyType(
    {"dalle2-priors": _load_priors}
)
PIPELINES: Mapping[str, Callable[[ModelFolder, torch.device], Any]] = MappingProxyType(
    {"dalle2": _load_dalle2, "dalle1": _load_dalle1}
)
