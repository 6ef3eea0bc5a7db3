"""The judge's recipe on a small world: both sizes, and temperatures that are fitted, not left at one."""

from pathlib import Path

import pytest
import torch

from opendalle.base.errors import BadConfig, BadData
from opendalle.checkpoint.folder import read_model
from opendalle.data.emoji.fixture import build_fixture
from opendalle.evaluation.judge_batches import JudgeBatches
from opendalle.pretrained.kinds import load_folder
from opendalle.recipes import run
from opendalle.recipes.judge import judge
from opendalle.recipes.stage import Work


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 256])
def test_a_judge_of_either_size_is_trained_and_calibrated(size: int, tmp_path: Path) -> None:
    world, out = tmp_path / "world", tmp_path / "judge"
    for _ in build_fixture(world):
        pass
    steps = list(run("judge", data=world, out=out, size=size, pictures=96, batch_size=16))
    assert len(steps) == 6
    trained = load_folder(read_model(out))
    assert trained.config.size == size
    assert not torch.equal(trained.temperatures, torch.ones(2))
    verdict = trained.look(torch.zeros(2, 3, size, size))
    assert verdict.concept.isfinite().all()


def test_what_a_judge_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="emoji world"):
        judge(tmp_path, tmp_path / "out")
    for _ in build_fixture(tmp_path / "world"):
        pass
    with pytest.raises(BadConfig, match="64 or 256"):
        judge(tmp_path / "world", tmp_path / "out", size=128)


def test_only_the_judge_of_names_learns_small_things(tmp_path: Path) -> None:
    for _ in build_fixture(tmp_path / "world"):
        pass
    for size, is_soft in ((64, True), (256, False)):
        (stage,) = judge(tmp_path / "world", tmp_path / "out", size=size)
        work = stage.build()
        assert isinstance(work, Work)
        lessons = work.batches
        assert isinstance(lessons, JudgeBatches)
        assert (lessons.config.small > 0) == is_soft  # a small thing enlarged is soft: no lesson in sharpness
