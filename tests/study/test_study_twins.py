"""Twins differ in one thing only: how often the picture's embedding is left out of their lessons."""

import dataclasses
from pathlib import Path

import pytest
import torch

from opendalle.base.errors import BadRequest
from opendalle.checkpoint.folder import read_model
from opendalle.checkpoint.places import bundled_folder
from opendalle.pretrained.kinds import load_pipeline
from opendalle.study.priors import twins
from opendalle.study.priors.claims import TEXT_TWIN, TWIN
from opendalle.study.priors.twins import TwinsPlan, open_twins
from opendalle.training.chance import batch_generator

BUNDLED = bundled_folder() / "dalle2-emoji"
SMALL = {"pairs": 64, "width": 32, "depth": 1}


@pytest.fixture(scope="module")
def model() -> Path:
    if not (BUNDLED / "model.json").is_file():
        pytest.skip("the bundled model is not built yet")
    return BUNDLED


@pytest.fixture
def opened(model, world, tmp_path, monkeypatch):
    monkeypatch.setattr(twins, "TRIED", 0.0)
    monkeypatch.setattr(TwinsPlan, "count_for", lambda plan, minutes: 96)
    dalle = load_pipeline(model)

    def open_them(minutes):
        return open_twins(dalle, model, world.folder, tmp_path / "study", minutes, **SMALL)

    return open_them


def test_nobody_asks_for_twins(model, tmp_path):
    assert open_twins(load_pipeline(model), model, tmp_path, tmp_path, None) is None


@pytest.mark.slow
def test_twins_differ_only_in_what_they_are_shown(opened, tmp_path, monkeypatch):
    made = opened(0.5)
    assert made.seconds > 30
    works = {}
    whole = TwinsPlan.work

    def watched(plan, arm):
        works[arm] = work = whole(plan, arm)
        works[f"{arm}-first"] = {
            name: one.clone() for name, one in work.objective.groups["decoder"].state_dict().items()
        }
        return work

    monkeypatch.setattr(TwinsPlan, "work", watched)
    made.train()
    first, second = works[TWIN], works[TEXT_TWIN]
    assert works[f"{TWIN}-first"].keys() == works[f"{TEXT_TWIN}-first"].keys()
    assert all(torch.equal(one, works[f"{TEXT_TWIN}-first"][name]) for name, one in works[f"{TWIN}-first"].items())
    assert first.config == second.config
    assert dataclasses.replace(first.objective.config, embedding_drop=1.0) == second.objective.config
    assert first.objective.config.embedding_drop == 0.1
    batch, twin = next(first.batches(3)), next(second.batches(3))
    assert torch.equal(batch.z, twin.z)
    assert torch.equal(batch.ids, twin.ids)
    assert torch.equal(batch.grid, twin.grid)

    def loss(work, batch):
        with torch.no_grad():
            return work.objective(batch, batch_generator(0, 0)).total["decoder"].item()

    other = dataclasses.replace(batch, z=batch.z.flip(0))
    assert loss(second, batch) == loss(second, other)  # it never sees z
    assert loss(first, batch) != loss(first, other)

    stored = [read_model(tmp_path / f"study/twins/decoder-{arm}").part("decoder") for arm in (TWIN, TEXT_TWIN)]
    assert stored[0].config == stored[1].config
    assert any(not torch.equal(one, stored[1].state()[name]) for name, one in stored[0].state().items())
    again = opened(None)  # what the folder has begun goes on without being asked for
    assert again.told() == {"minutes": 0.5, "pairs": 64, "pictures each": 96}
    works.clear()
    again.train()
    assert works == {}  # both are there
    with pytest.raises(BadRequest, match=r"--twins 2 .*wanted --twins 0.5"):
        opened(2.0)
    small = {"width": 64, "height": 64, "seed": 1}
    (seen,) = again.subject(TWIN).generate("a red apple", **small)
    (said,) = again.subject(TEXT_TWIN).generate("a red apple", prior="caption", **small)
    assert seen.picture.tobytes() != said.picture.tobytes()


@pytest.mark.slow
def test_the_length_is_what_fits_into_the_minutes(model, world, tmp_path, monkeypatch):
    monkeypatch.setattr(twins, "TRIED", 0.0)
    places = {"clip": bundled_folder() / "clip-emoji", "codec": bundled_folder() / "codec-emoji"}
    plan = TwinsPlan(
        data=world.folder,
        out=tmp_path / "decoder",
        places=places,
        pairs=32,
        scenes=0.5,
        styles=None,
        seed=1,
        pictures=32,
        width=32,
        depth=1,
    )
    assert plan.encode(lambda: False)
    clock = iter([0.0, 0.0, *(float(one) for one in range(100))])
    monkeypatch.setattr(twins.time, "perf_counter", lambda: next(clock))
    count = plan.count_for(2.0)
    assert count % 32 == 0
    assert 32 <= count <= 60 * 32  # a step of 32 took at least a second of this clock, and each has a minute
