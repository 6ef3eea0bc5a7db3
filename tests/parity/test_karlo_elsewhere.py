"""What the library that published Karlo's layout does with it today; our documentation says so, so it is tested."""

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers.pipelines.deprecated.unclip.pipeline_unclip import UnCLIPPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler


def saved(karlo: Any, folder: Path) -> Path:
    """Let the library itself write the folder."""
    pipeline = UnCLIPPipeline(
        **vars(karlo.theirs),
        text_encoder=None,  # pyright: ignore[reportArgumentType]
        tokenizer=None,  # pyright: ignore[reportArgumentType]
        **{f"{one}_scheduler": UnCLIPScheduler() for one in ("prior", "decoder", "super_res")},
    )
    pipeline.save_pretrained(folder)
    return folder


def test_a_published_karlo_folder_no_longer_loads_there(karlo, tmp_path: Path) -> None:
    """Published folders name the library "unclip" for the context projection, and that name no longer resolves."""
    folder = saved(karlo, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    index["text_proj"] = ["unclip", "UnCLIPTextProjModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    for pipeline in (DiffusionPipeline, UnCLIPPipeline):
        with pytest.raises((ValueError, AttributeError, ImportError), match="unclip"):
            pipeline.from_pretrained(folder)


def test_nor_does_one_that_it_wrote_itself(karlo, tmp_path: Path) -> None:
    with pytest.raises((ValueError, AttributeError, ImportError), match="UnCLIPTextProjModel"):
        DiffusionPipeline.from_pretrained(saved(karlo, tmp_path))
