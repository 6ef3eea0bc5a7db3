"""A DALL·E 2 as a folder: how it is drawn from, the frozen networks it stands on, and how it is put together."""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from opendalle.base.axes import Embeddings, Mask, States, Tokens
from opendalle.base.errors import BadModel
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.files import new_folder, read_json, replace_file, to_json, write_file
from opendalle.checkpoint.folder import ModelFolder, Part, StoredPart, read_model, write_model
from opendalle.clip.model import CLIP
from opendalle.codec.protocol import Codec
from opendalle.dalle2.means import Guess
from opendalle.dalle2.objectives import without_common_padding
from opendalle.dalle2.parts import Dalle2Config
from opendalle.dalle2.priors.diffusion import DiffusionPrior
from opendalle.diffusion.grids import strided
from opendalle.diffusion.schedules import Schedule
from opendalle.pretrained.kinds import ROLES, find_model, load_folder, load_tokenizer
from opendalle.recipes.data import PairBatches
from opendalle.samplers.analytic import measure_noise_power
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.settings import StageSettings
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.upsampling.settings import UpsamplerSettings

SETTINGS = Dalle2Config(
    prior=StageSettings(prediction="x0", steps=16, sampler="ddim", guidance=2.0, clip=5.0),
    decoder=StageSettings(prediction="v", steps=20, sampler="ddim", guidance=2.0),
    upsampler=UpsamplerSettings(),
    doubt=0.6,
)
UPSCALER = UpsamplerSettings(steps=1)  # where there is one, of any generation
NOISE_POWER = "noise_power.json"  # beside the prior's weights, until the pipeline's settings hold it
MEASURED, MEASURED_STEPS = 512, 50  # pairs and steps on which the prior's noise is measured
SIBLINGS = ("clip", "codec", "upsampler")  # without which none is trained
NAMED = {  # kind of a generation -> roles of the siblings that it may name
    "dalle1": ("clip", "words", "upsampler", "upscaler"),
    "dalle2": ("clip", "codec", "upsampler", "upscaler", "priors"),
    "dalle3": ("text", "codec", "rewriter", "captioner", "clip", "upsampler", "upscaler"),
}
PIPELINE = "pipeline"  # the part that holds settings and siblings


def siblings_of(model: Path) -> dict[str, Path]:
    """Return where the networks lie that a DALL·E 2 shares with others: role -> folder.

    Args:
        model: its folder, or a bundled name.

    Raises:
        BadModel: when it is no DALL·E 2.
    """
    folder = read_model(find_model(model))
    if folder.kind != "dalle2":
        came = f"{folder.path} of kind {folder.kind!r}, to take CLIP, codec and upsampler from"
        raise BadModel(came, "a DALL·E 2", "Other models are given by --clip, --codec and --upsampler.")
    return named_siblings(folder)


def named_siblings(folder: ModelFolder, roles: Collection[str] | None = None) -> dict[str, Path]:
    """Return where the networks lie that a generation names: role -> folder.

    Args:
        folder: of the generation.
        roles: those wanted, as far as it names them; None: all.
    """
    named = folder.part(PIPELINE).config["siblings"]
    return {
        role: find_model(about["name"], beside=folder.path)
        for role, about in named.items()
        if roles is None or role in roles
    }


class Shared:
    """The frozen networks that prior and decoder are trained against.

    Args:
        places: role -> model folder.
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        clip, codec = read_model(find_model(places["clip"])), read_model(find_model(places["codec"]))
        self.clip: CLIP = load_folder(clip)
        self.codec: Codec = load_folder(codec)
        self.tokenizer: BytePairTokenizer = load_tokenizer(clip)
        empty = self.tokenizer.pack([""], self.clip.config.context)
        self.empty = torch.from_numpy(empty.ids)[0], torch.from_numpy(empty.mask)[0]

    def read(self, ids: Tokens, mask: Mask) -> tuple[Embeddings, States]:
        """Read captions with the frozen text tower."""
        with torch.no_grad():
            text = self.clip.encode_text(*without_common_padding(ids, mask))
        return text.pooled, F.pad(text.states, (0, 0, 0, ids.shape[1] - text.states.shape[1]))

    def words(self, ids: Tokens) -> States:
        """Look up the frozen vector of every token."""
        with torch.no_grad():
            return self.clip.text.tokens(ids)


def noise_power(
    prior: DiffusionPrior, guess: Guess, schedule: Schedule, shared: Shared, batches: PairBatches
) -> tuple[float, ...]:
    """Measure what Analytic-DPM needs to know of a trained prior; the paper samples its prior so (appendix C).

    Args:
        prior: trained.
        guess: the one that it was trained with.
        schedule: of its training.
        shared: CLIP, for the captions.
        batches: pairs; the first batch is measured on.
    """
    batch = next(batches(0))
    pooled, states = shared.read(batch.ids, batch.mask)
    with torch.no_grad():
        conditioning = prior.condition(pooled, states, batch.mask, guess(pooled))
    denoise = GuidedDenoise(
        prior.step, {"conditioning": conditioning}, schedule=schedule, prediction=SETTINGS.prior.prediction
    )
    grid = strided(schedule.num_steps, MEASURED_STEPS)
    return measure_noise_power(denoise, [prior.normalise(batch.z)], schedule, grid, torch.Generator().manual_seed(0))


def write_dalle2(
    out: Path,
    earlier: Mapping[str, StoredPart],
    decoder: Part,
    places: Mapping[str, Path],
    card: Mapping[str, Any],
) -> ModelFolder:
    """Put trained guess, prior, sketch and decoder into one model folder that names its siblings.

    Args:
        out: the model folder to write.
        earlier: guess, prior and sketch as they lie in folders of their own, from which they are copied to the bit.
        decoder: the trained network.
        places: role -> sibling's folder.
        card: where all comes from.
    """
    named = {role: read_model(find_model(place)) for role, place in places.items()}
    measured = earlier["prior"].extra(NOISE_POWER)  # noqa: S610 - no database here
    upscaler = UPSCALER if "upscaler" in places else None
    settings = replace(SETTINGS, prior=replace(SETTINGS.prior, **measured), upscaler=upscaler)
    siblings = {role: model.reference for role, model in named.items()}
    parts = {
        **{name: part.copied() for name, part in earlier.items()},
        "decoder": decoder,
        PIPELINE: Part({"settings": to_plain(settings), "siblings": siblings}),
    }
    return write_model(out, kind="dalle2", parts=parts, card=card)


def name_sibling(model: Path, role: str, named: Path, out: Path) -> ModelFolder:
    """Copy a generation that names one sibling more, as its upscaler; all else stays as it is, to the byte.

    An upsampler or upscaler that it has no settings for is sampled as the recipe says.

    Args:
        model: its folder, or a bundled name.
        role: of the sibling, as priors or upscaler.
        named: the sibling's folder; it must lie beside `out` when that is loaded, or among the bundled models.
        out: the model folder to write.

    Raises:
        BadModel: when the model is no such generation, or the sibling is of a kind that cannot play the role there.
    """
    folder, other = read_model(find_model(model)), read_model(find_model(named))
    if folder.kind not in NAMED:
        raise BadModel(f"{folder.path} of kind {folder.kind!r}, to name a sibling", "a DALL·E 1, 2 or 3")
    fitting = ROLES[role] if role in NAMED[folder.kind] else ()
    if other.kind not in fitting:
        came = f"{other.path}, a {other.kind}, as {role} of a {folder.kind}"
        raise BadModel(came, " or ".join(fitting) or "one of " + ", ".join(NAMED[folder.kind]))
    head = folder.part(PIPELINE).config
    head["siblings"] |= {role: other.reference}
    own = {"upsampler": SETTINGS.upsampler, "upscaler": UPSCALER}
    if role in own and head["settings"].get(role) is None:
        head["settings"] |= {role: to_plain(own[role])}
    listed = f"{PIPELINE}/config.json"
    with new_folder(out) as draft:
        shutil.copytree(folder.path, draft, dirs_exist_ok=True)
        (draft / listed).unlink()
        about = read_json(draft / "model.json")
        about["files"][listed] = write_file(draft / listed, to_json(head))
        replace_file(draft / "model.json", to_json(about))
        read_model(draft).verify()
    return read_model(out)
