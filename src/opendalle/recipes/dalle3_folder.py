"""A DALL·E 3 as a folder: how it is drawn from, the frozen networks it stands on, and how it is put together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.codec.protocol import Codec
from opendalle.dalle3.denoiser import Denoiser
from opendalle.dalle3.parts import Dalle3Config
from opendalle.dalle3.reading import CaptionReader
from opendalle.pretrained.kinds import find_model, load_folder, load_spelling
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
    out: Path,
    denoiser: Denoiser,
    places: Mapping[str, Path],
    card: Mapping[str, Any],
    context: int,
    shapes: Sequence[tuple[int, int]] = (),
) -> ModelFolder:
    """Put a trained denoiser into a model folder that names its siblings.

    Args:
        out: the model folder to write.
        denoiser: the trained network.
        places: role -> sibling's folder: text, codec, and as far as there are any rewriter, captioner, clip,
            upsampler and upscaler.
        card: where all comes from.
        context: tokens a caption, in training.
        shapes: rows and columns of the wide and tall grids that it was trained on.
    """
    settings = replace(
        SETTINGS,
        context=context,
        shapes=tuple(shapes),
        upsampler=SETTINGS.upsampler if "upsampler" in places else None,
        upscaler=UPSCALER if "upscaler" in places else None,
    )
    siblings = {role: read_model(find_model(place)).reference for role, place in places.items()}
    parts = {
        DENOISER: Part(to_plain(denoiser.config), denoiser.state_dict(), storage=STORAGE),
        PIPELINE: Part({"settings": to_plain(settings), "siblings": siblings}),
    }
    return write_model(out, kind="dalle3", parts=parts, card=card)
