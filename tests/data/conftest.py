"""One small drawn world for all tests of the room."""

import pytest

from opendalle.data.emoji.fixture import build_fixture
from opendalle.data.emoji.holdout import HoldoutConfig
from opendalle.data.emoji.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "fixture"
    shares = HoldoutConfig(cells=0.15, object_colours=0.2, relation_pairs=0.2, count_objects=0.2)
    for _ in build_fixture(folder, holdout=shares):
        pass
    return World(folder)
