"""From a name to a model that is ready to use: how each kind is put together from its folder and its siblings."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from opendalle.base.errors import BadConfig, BadModel
from opendalle.checkpoint.configs import from_plain
from opendalle.checkpoint.folder import ModelFolder, read_model
from opendalle.checkpoint.places import find_model
from opendalle.clip.embedder import ClipEmbedder
from opendalle.codec.consistency import ConsistencyCodec, ConsistencyDecoder
from opendalle.dalle1.parts import Dalle1Config, Dalle1Parts
from opendalle.dalle1.pipeline import Dalle1
from opendalle.dalle2.parts import Dalle2Config, Dalle2Parts
from opendalle.dalle2.pipeline import Dalle2
from opendalle.dalle2.priors.protocol import Prior
from opendalle.dalle3.captioner import Captioner, CaptionerConfig
from opendalle.dalle3.parts import Dalle3Config, Dalle3Parts
from opendalle.dalle3.pipeline import Dalle3
from opendalle.dalle3.reading import CaptionReader
from opendalle.dalle3.rewriter import OwnRewriter, OwnRewriterConfig
from opendalle.dalle3.text_decoder import TextToText
from opendalle.pretrained.folders import (
    CODEC_HEAD,
    HEAD,
    NETWORKS,
    PRIORS_HEAD,
    ROLES,
    TOKENIZER,
    head_of,
    load_network,
    load_spelling,
    load_tokenizer,
    only_part,
    sibling,
)
from opendalle.tokenizers import ByteTokenizer

__all__ = [
    "ASSISTANTS",
    "CODEC_HEAD",
    "COLLECTIONS",
    "HEAD",
    "NETWORKS",
    "PIPELINES",
    "PRIORS_HEAD",
    "ROLES",
    "TOKENIZER",
    "Priors",
    "clip_of_priors",
    "find_model",
    "load",
    "load_captioner",
    "load_folder",
    "load_network",
    "load_pipeline",
    "load_spelling",
    "load_tokenizer",
    "sibling",
]

Loaded = TypeVar("Loaded")

DALLE3_NEEDS = ("text", "codec")  # siblings without which no DALL·E 3 draws
DALLE3_EAGER = (*DALLE3_NEEDS, "rewriter", "upsampler", "upscaler")  # loaded at once, as far as it names them
DALLE3_ROLES = (*DALLE3_EAGER, "captioner", "clip")


def load(name: str | Path, *, device: str | torch.device = "cpu") -> Any:
    """Load a model, ready to use.

    Args:
        name: a bundled model (`dalle2`), or a model folder.
        device: where its networks go.

    Returns:
        A pipeline for a generation, priors by name for a folder of priors, a captioner with its CLIP, a rewriter with
        its text encoder, a codec for a consistency decoder that names one, a network in evaluation mode for all else.

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
        return load_network(model.kind, only_part(model), device=device)
    if model.kind in ASSISTANTS:
        return ASSISTANTS[model.kind](model, device)
    known = ", ".join(sorted({*PIPELINES, *COLLECTIONS, *ASSISTANTS, *NETWORKS}))
    raise BadModel(f"{model.path} of kind {model.kind!r}", f"one of {known}", "Update opendalle?")


def _ready(device: Any) -> torch.device:
    """Return a device on which a number can really be put; torch's own words for it come too late, and are many."""
    try:
        return torch.zeros(1, device=device).device
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError):
        raise BadConfig(f"the device {str(device)!r}", "one that torch finds here: cpu, cuda or mps") from None


def _upsampler_of(
    model: ModelFolder, siblings: Any, settings: object | None, role: str = "upsampler"
) -> ModelFolder | None:
    found = sibling(model, siblings, role) if role in siblings else None
    if found is not None and settings is None:
        raise BadModel(f"{model.path} with an {role} but no settings for it", "both, or neither")
    return found


def _load_dalle1(model: ModelFolder, device: torch.device) -> Dalle1:
    settings, siblings = head_of(model)
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
    settings, siblings = head_of(model)
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


def _load_dalle3(model: ModelFolder, device: torch.device) -> Dalle3:
    settings, siblings = head_of(model)
    config = from_plain(Dalle3Config, settings)
    found = {role: sibling(model, siblings, role) for role in DALLE3_ROLES if role in siblings or role in DALLE3_NEEDS}
    for role in ("upsampler", "upscaler"):
        _upsampler_of(model, siblings, getattr(config, role), role)
    read = {role: load_folder(found[role], device=device) for role in DALLE3_EAGER if role in found}
    try:
        parts = Dalle3Parts(
            reader=CaptionReader(read["text"], load_spelling(found["text"]), context=config.context),
            denoiser=load_network("dalle3-denoiser", model.part("denoiser"), device=device),
            codec=read["codec"],
            rewriter=read.get("rewriter"),
            captioner=_when_asked(found.get("captioner"), lambda folder: load_folder(folder, device=device)),
            clip=_when_asked(
                found.get("clip"),
                lambda folder: ClipEmbedder(load_folder(folder, device=device), load_tokenizer(folder)),
            ),
            upsampler=read.get("upsampler"),
            upscaler=read.get("upscaler"),
        )
        clip = found.get("clip")
        return Dalle3(
            parts,
            config,
            {"model": model.path.name, "sha256": model.sha256},
            "" if clip is None else clip.sha256,
        )
    except BadConfig as error:
        raise BadModel(f"{model.path}: {error.came}", error.wanted) from None


def _when_asked(folder: ModelFolder | None, load: Callable[[ModelFolder], Loaded]) -> Callable[[], Loaded] | None:
    """Load what few pictures need when it is first asked for; that it is the right one is known before."""
    return None if folder is None else cache(lambda: load(folder))


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
    settings, siblings = head_of(model)
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


def _load_rewriter(model: ModelFolder, device: torch.device) -> OwnRewriter:
    settings, siblings = head_of(model)
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


def _load_consistency(model: ModelFolder, device: torch.device) -> ConsistencyCodec | ConsistencyDecoder:
    """Load a consistency decoder: with the codec that it names a codec, which draws by it; else the network alone."""
    if len(model.parts) == 1:
        return load_network("consistency-decoder", only_part(model), device=device)
    decoder = load_network("consistency-decoder", model.part("decoder"), device=device)
    encoder = sibling(model, model.part(CODEC_HEAD).config.get("siblings"), "encoder")
    try:
        return ConsistencyCodec(load_folder(encoder, device=device), decoder)
    except BadConfig as error:
        raise BadModel(f"{model.path} with {error.came}", error.wanted) from None


ASSISTANTS: Mapping[str, Callable[[ModelFolder, torch.device], Any]] = MappingProxyType(
    {"captioner": _load_captioner, "rewriter": _load_rewriter}
)
COLLECTIONS: Mapping[str, Callable[[ModelFolder, torch.device], Any]] = MappingProxyType(
    {"dalle2-priors": _load_priors, "consistency-decoder": _load_consistency}
)
PIPELINES: Mapping[str, Callable[[ModelFolder, torch.device], Any]] = MappingProxyType(
    {"dalle2": _load_dalle2, "dalle1": _load_dalle1, "dalle3": _load_dalle3}
)
