"""What reads captions and what rewrites prompts, from their model folders."""

from pathlib import Path

import torch

from opendalle.base.errors import BadModel
from opendalle.checkpoint.folder import ModelFolder, read_model
from opendalle.checkpoint.places import find_model
from opendalle.dalle3.reading import CaptionReader
from opendalle.dalle3.rewriter import OwnRewriter
from opendalle.pretrained.kinds import load_folder, load_spelling


def load_reader(name: str | Path, context: int, *, device: str | torch.device = "cpu") -> CaptionReader:
    """Load a text encoder with its tokenizer.

    Args:
        name: a bundled text encoder, or its model folder.
        context: tokens a caption, as `CaptionReader` has it.
        device: where the encoder goes.

    Raises:
        BadModel: when it is missing, damaged, or no text encoder.
    """
    model = _of_kind(name, "text-encoder")
    return CaptionReader(load_folder(model, device=device), load_spelling(model), context=context)


def load_rewriter(name: str | Path, *, device: str | torch.device = "cpu") -> OwnRewriter:
    """Load a rewriter with the text encoder that it names.

    Args:
        name: a bundled rewriter, or its model folder.
        device: where its networks go.

    Raises:
        BadModel: when it is missing, damaged, or no rewriter.
    """
    return load_folder(_of_kind(name, "rewriter"), device=device)


def _of_kind(name: str | Path, kind: str) -> ModelFolder:
    model = read_model(find_model(name))
    if model.kind != kind:
        raise BadModel(f"{model.path.name}, a {model.kind}", f"a {kind}")
    return model
