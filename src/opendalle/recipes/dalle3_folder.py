"""A DALL·E 3 as a folder: how it is drawn from, the frozen networks it stands on, and how it is put together."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from opendalle.checkpoint.configs import from_plain, to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.codec.protocol import Codec
from opendalle.dalle3.denoiser import Denoiser
from opendalle.dalle3.parts import Dalle3Config, Dalle3Parts
from opendalle.dalle3.reading import CaptionReader
from opendalle.pretrained.kinds import find_model, load_folder, load_network, load_spelling, sibling
from opendalle.recipes.dalle2_folder import PIPELINE, UPSCALER
from opendalle.samplers.settings import StageSettings
from opendalle.upsampling.settings import UpsamplerSettings

SETTINGS = Dalle3Config(  # prediction and schedule as the decoder of DALL·E 2, whose grid this is
    denoiser=StageSettings(prediction="v", steps=20, sampler="ddim", guidance=3.0),
    context=256,
    upsampler=UpsamplerSettings(),
)
STORAGE = "int8-row"  # of the denoiser's weights
DENOISER = "denoiser"


def frozen_reader(text: Path, context: int) -> CaptionReader:
    """Load a text encoder and its tokenizer.

    Args:
        text: a folder of kind `text-encoder`, or a bundled name.
        context: tokens a caption.

    Raises:
        BadModel: when there is none.
    """
    model = read_model(find_model(text))
    return CaptionReader(load_folder(model), load_spelling(model), context=context)


class Dalle3Encoders:
    """The frozen networks that the denoiser is trained against.

    Args:
        places: role -> model folder: text and codec.
        context: tokens a caption.
    """

    def __init__(self, places: Mapping[str, Path], context: int) -> None:
        self.reader = frozen_reader(places["text"], context)
        self.codec: Codec = load_folder(read_model(find_model(places["codec"])))


def write_dalle3(
    out: Path, denoiser: Denoiser, places: Mapping[str, Path], card: Mapping[str, Any], context: int
) -> ModelFolder:
    """Put a trained denoiser into a model folder that names its siblings.

    Args:
        out: the model folder to write.
        denoiser: the trained network.
        places: role -> sibling's folder: text, codec, and upsampler and upscaler if there are any.
        card: where all comes from.
        context: tokens a caption, in training.
    """
    settings = replace(
        SETTINGS,
        context=context,
        upsampler=SETTINGS.upsampler if "upsampler" in places else None,
        upscaler=UPSCALER if "upscaler" in places else None,
    )
    siblings = {role: read_model(find_model(place)).reference for role, place in places.items()}
    parts = {
        DENOISER: Part(to_plain(denoiser.config), denoiser.state_dict(), storage=STORAGE),
        PIPELINE: Part({"settings": to_plain(settings), "siblings": siblings}),
    }
    return write_model(out, kind="dalle3", parts=parts, card=card)


def read_dalle3(model: ModelFolder) -> tuple[Dalle3Parts, Dalle3Config]:
    """Put together the networks of a DALL·E 3 and its settings.

    Args:
        model: its folder.

    Raises:
        BadModel: when a part or sibling is missing, damaged or another.
    """
    head = model.part(PIPELINE).config
    settings = from_plain(Dalle3Config, head["settings"])
    found = {role: sibling(model, head["siblings"], role) for role in head["siblings"]}
    parts = Dalle3Parts(
        reader=CaptionReader(load_folder(found["text"]), load_spelling(found["text"]), context=settings.context),
        denoiser=load_network("dalle3-denoiser", model.part(DENOISER)),
        codec=load_folder(found["codec"]),
        upsampler=load_folder(found["upsampler"]) if "upsampler" in found else None,
        upscaler=load_folder(found["upscaler"]) if "upscaler" in found else None,
    )
    return parts, settings
