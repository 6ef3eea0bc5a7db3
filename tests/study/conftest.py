"""The room's fixtures: a small drawn world, a judge with random weights, and the tiny DALL·E 2 of its own room."""

import dataclasses
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch

from opendalle.dalle1.parts import Dalle1Config
from opendalle.dalle1.pipeline import Dalle1
from opendalle.dalle2.pipeline import Dalle2
from opendalle.dalle2.priors.linear import LinearPrior, LinearPriorConfig
from opendalle.data.emoji.fixture import build_fixture
from opendalle.data.emoji.holdout import HoldoutConfig
from opendalle.data.emoji.world import World
from opendalle.evaluation.judge import Judge, JudgeConfig
from opendalle.evaluation.judge_batches import judge_concepts
from opendalle.study.bench import Bench
from opendalle.upsampling.settings import UpsamplerSettings


def tiny(room: str) -> ModuleType:
    """Return the fixtures of another room's tests."""
    spec = spec_from_file_location(f"tiny_{room}", Path(__file__).parents[1] / room / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world") / "fixture"
    shares = HoldoutConfig(cells=0.15, object_colours=0.2, relation_pairs=0.2, count_objects=0.2)
    for _ in build_fixture(folder, holdout=shares):
        pass
    return World(folder)


@pytest.fixture(scope="session")
def judge(world) -> Judge:
    """Knows nothing, but says the same of the same picture."""
    config = JudgeConfig(concepts=judge_concepts(world), styles=world.styles, widths=(8, 16), depths=(0, 1))
    return Judge(config).eval()


@pytest.fixture(scope="session")
def plain() -> Dalle2:
    """A model without other priors than its own, and those that need no weights."""
    room = tiny("dalle2")
    return Dalle2(room.tiny_parts(), room.tiny_config(steps=2), {"model": "tiny", "sha256": "0" * 64})


@pytest.fixture(scope="session")
def dalle1() -> Dalle1:
    """A DALL·E 1 that draws 32 px, and 64 px by its upsampler."""
    config = Dalle1Config(candidates=3, upsampler=UpsamplerSettings(steps=1))  # the study asks for single ones
    return Dalle1(tiny("dalle1").tiny_parts(), config, {"model": "tiny", "sha256": "1" * 64})


@pytest.fixture(scope="session")
def dalle(plain) -> Dalle2:
    """The same with a matrix beside its own prior."""
    torch.manual_seed(1)
    matrix = LinearPrior(LinearPriorConfig(embedding_width=plain.parts.prior.config.embedding_width))
    parts = dataclasses.replace(plain.parts, priors={"linear": matrix.eval().requires_grad_(False)})
    return Dalle2(parts, plain.config, plain.origin)


@pytest.fixture(scope="session")
def bench(dalle, world, judge) -> Bench:
    return Bench(subject=dalle, world=world, judge=judge, told={"model": "tiny", "world": "fixture"})
