"""Pairs of large and small pictures, and the recipe's two scales."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opendalle.base.errors import BadConfig, BadData
from opendalle.checkpoint.folder import read_model
from opendalle.data.emoji.fixture import build_fixture
from opendalle.data.loading import LoadingConfig
from opendalle.pretrained.kinds import load_folder
from opendalle.recipes.scales import ScaleBatches, open_crops, shrink
from opendalle.recipes.stage import Passage, walk
from opendalle.recipes.upsampler import upsampler
from opendalle.upsampling.degradation import DegradationConfig, degrade, light


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three captioned pictures with something to see."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((400, 320)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"number {k}")
    return folder


def batches(folder: Path, degradation: DegradationConfig | None, **loading: int) -> ScaleBatches:
    source = open_crops(folder, 128, 32)
    return ScaleBatches(source, 4, LoadingConfig(**{"batch_size": 4, "seed": 2, **loading}), degradation=degradation)


@pytest.mark.parametrize("degradation", [None, light()])
def test_pairs_are_a_function_of_their_position(folder: Path, degradation: DegradationConfig | None) -> None:
    whole = list(islice(batches(folder, degradation)(0), 3))
    for position, pair in enumerate(islice(batches(folder, degradation)(1), 2), start=1):
        assert torch.equal(pair.large, whole[position].large)
        assert torch.equal(pair.small, whole[position].small)
    assert whole[0].large.shape == (4, 4, 32, 32)
    assert whole[0].small.shape == (4, 4, 8, 8)
    shared = [next(batches(folder, degradation, rank=rank, num_ranks=2)(2)) for rank in (0, 1)]
    for rank, part in enumerate(shared):  # two processes see together what one sees alone
        assert torch.equal(part.small, whole[2].small[rank::2])
    if degradation is None:
        assert torch.equal(whole[0].small, shrink(whole[0].large, 4))
    else:
        other = next(batches(folder, degradation, seed=3)(0))
        plain = degrade(whole[0].large, degradation, [torch.Generator().manual_seed(k) for k in range(4)])
        assert not torch.equal(whole[0].small, other.small)
        assert (whole[0].small - plain).abs().mean() < 0.5


def test_a_world_without_vectors_has_no_large_pictures(tmp_path: Path) -> None:
    for _ in build_fixture(tmp_path / "world"):
        pass
    with pytest.raises(BadData, match="opendalle data emoji"):
        open_crops(tmp_path / "world", 1024, 256)
    with pytest.raises(BadData):
        open_crops(tmp_path, 1024, 256)


def test_the_stage_to_1024_trains_on_a_folder_and_its_model_loads(folder: Path, tmp_path: Path) -> None:
    stages = upsampler(folder, tmp_path / "m", size=1024, pictures=2, batch_size=1)
    steps = list(walk(stages, Passage(runs=tmp_path / "m.runs")))
    assert [step.pictures for step in steps] == [1, 2]
    network = load_folder(read_model(tmp_path / "m"))
    assert network.config.unet.reach is not None
    assert read_model(tmp_path / "m").card["recipe"] == {"name": "upsampler", "size": 1024, "pictures": 2, "seed": 3}


@pytest.mark.parametrize("wrong", [{"size": 512}, {"size": 1024, "crops": 2}, {"size": 1024, "codec": Path("c")}])
def test_what_a_scale_has_not_is_refused(folder: Path, tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(BadConfig):
        upsampler(folder, tmp_path / "m", **wrong)
