"""The closed table kind -> class, and where models are found.

A model folder holds its own networks and names the sibling folders that it needs, each by name and sha256: so one
CLIP and one codec serve several generations, and none can be mixed up with another.
"""

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from opendalle.base.errors import BadModel
from opendalle.checkpoint.configs import from_plain
from opendalle.checkpoint.folder import ModelFolder, StoredPart, read_model
from opendalle.clip.model import CLIP, CLIPConfig
from opendalle.codec.identity import IdentityCodec, IdentityCodecConfig
from opendalle.codec.kl import KLAutoencoder, KLAutoencoderConfig
from opendalle.dalle2.decoder import Decoder, DecoderConfig
from opendalle.dalle2.pipeline import Dalle2, Dalle2Parts
from opendalle.dalle2.prior import DiffusionPrior, DiffusionPriorConfig
from opendalle.dalle2.settings import Dalle2Config
from opendalle.evaluation.judge import Judge, JudgeConfig
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.upsampling.network import Upsampler, UpsamplerConfig

Network = tuple[type[Any], type[nn.Module]]  # config dataclass, class

NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "clip": (CLIPConfig, CLIP),
        "codec-identity": (IdentityCodecConfig, IdentityCodec),
        "codec-kl": (KLAutoencoderConfig, KLAutoencoder),
        "dalle2-prior": (DiffusionPriorConfig, DiffusionPrior),
        "dalle2-decoder": (DecoderConfig, Decoder),
        "upsampler": (UpsamplerConfig, Upsampler),
        "judge": (JudgeConfig, Judge),
    }
)

SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {"dalle2": "dalle2-emoji", "clip": "clip-emoji", "codec": "codec-emoji", "judge": "judge-emoji"}
)

TOKENIZER = "tokenizer.json"  # beside a CLIP's weights


def bundled_folder() -> Path:
    """Where the models lie that ship with the package."""
    return Path(str(files("opendalle"))) / "bundled"


def bundled_models() -> list[str]:
    """Names of the models that ship with the package, sorted."""
    root = bundled_folder()
    return sorted(one.name for one in root.iterdir() if (one / "model.json").is_file()) if root.is_dir() else []


def find_model(name: str | Path, beside: Path | None = None) -> Path:
    """Return the folder of a model.

    Args:
        name: a bundled model, its short name (`dalle2`), or a folder.
        beside: look beside this folder first; for siblings.

    Raises:
        BadModel: when there is no such model.
    """
    if beside is not None and (beside.parent / name / "model.json").is_file():
        return beside.parent / name
    bundled = bundled_folder() / SHORT_NAMES.get(str(name), str(name))
    if str(name) in SHORT_NAMES or ("/" not in str(name) and (bundled / "model.json").is_file()):
        folder = bundled
    else:
        folder = Path(name)
    if not (folder / "model.json").is_file():
        known = ", ".join(sorted({*SHORT_NAMES, *bundled_models()}))
        raise BadModel(f"the model {str(name)!r}", f"a bundled model ({known}) or a model folder", "")
    return folder


def load(name: str | Path, *, device: str | torch.device = "cpu") -> Any:
    """Load a model, ready to use.

    Args:
        name: a bundled model (`dalle2`), or a model folder.
        device: where its networks go.

    Returns:
        A pipeline for a generation, a network in evaluation mode for all else.

    Raises:
        BadModel: when it is missing, damaged, or of an unknown kind.
    """
    return load_folder(read_model(find_model(name)), device=device)


def load_folder(model: ModelFolder, *, device: str | torch.device = "cpu") -> Any:
    """Load an open model folder; arguments and errors are those of `load`."""
    if model.kind in PIPELINES:
        return PIPELINES[model.kind](model, torch.device(device))
    if model.kind in NETWORKS and len(model.parts) == 1:
        return load_network(model.kind, next(iter(model.parts.values())), device=device)
    known = ", ".join(sorted({*PIPELINES, *NETWORKS}))
    raise BadModel(f"{model.path} of kind {model.kind!r}", f"one of {known}", "Update opendalle?")


def load_network(kind: str, part: StoredPart, *, device: str | torch.device = "cpu") -> Any:
    """Build one network and give it its weights, strictly.

    Args:
        kind: a key of NETWORKS.
        part: its config and weights.
        device: where it goes.

    Raises:
        BadModel: when the weights are not exactly those of the network.
    """
    config_class, network_class = NETWORKS[kind]
    network = network_class(from_plain(config_class, part.config))
    state = part.state()
    wanted = network.state_dict()
    wrong = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
    if problems := sorted({*wrong, *(set(state) - set(wanted))}):
        raise BadModel(f"{part.root}/{part.name} with other weights, as {problems[0]}", f"those of a {kind}")
    network.load_state_dict(state, strict=True)
    return network.to(device).eval().requires_grad_(False)


def load_tokenizer(model: ModelFolder) -> BytePairTokenizer:
    """Return the tokenizer that lies beside a CLIP's weights."""
    return BytePairTokenizer.from_json(next(iter(model.parts.values())).extra(TOKENIZER))  # noqa: S610 - no database here


def sibling(model: ModelFolder, siblings: Mapping[str, Any], role: str) -> ModelFolder:
    """Open the model that another one names, and check that it is the very one.

    Args:
        model: who names it.
        siblings: role -> name and sha256.
        role: which one.

    Raises:
        BadModel: when it is missing, or another model of the same name.
    """
    wanted = siblings.get(role)
    if not isinstance(wanted, Mapping) or not {"name", "sha256"} <= set(wanted):
        raise BadModel(f"{model.path} with {role} = {wanted!r}", "a sibling's name and sha256")
    found = read_model(find_model(wanted["name"], beside=model.path))
    if found.sha256 != wanted["sha256"]:
        raise BadModel(
            f"{found.path}, another {role} than {model.path} was trained with",
            f"the one with sha256 {wanted['sha256'][:12]}...",
            "Put it beside the model, or train the model again.",
        )
    return found


def _load_dalle2(model: ModelFolder, device: torch.device) -> Dalle2:
    head = model.part("pipeline").config
    if missing := [name for name in ("siblings", "settings") if name not in head]:
        raise BadModel(f"{model.path}/pipeline without {missing[0]}", "settings and siblings")
    siblings = head["siblings"]
    clip = sibling(model, siblings, "clip")
    codec = sibling(model, siblings, "codec")
    upsampler = sibling(model, siblings, "upsampler") if "upsampler" in siblings else None
    parts = Dalle2Parts(
        tokenizer=load_tokenizer(clip),
        clip=load_folder(clip, device=device),
        prior=load_network("dalle2-prior", model.part("prior"), device=device),
        decoder=load_network("dalle2-decoder", model.part("decoder"), device=device),
        codec=load_folder(codec, device=device),
        upsampler=load_folder(upsampler, device=device) if upsampler is not None else None,
    )
    config = from_plain(Dalle2Config, head["settings"])
    return Dalle2(parts, config, {"model": model.path.name, "sha256": model.sha256})


PIPELINES: Mapping[str, Callable[[ModelFolder, torch.device], Any]] = MappingProxyType({"dalle2": _load_dalle2})
