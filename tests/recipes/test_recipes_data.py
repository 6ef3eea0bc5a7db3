"""What recipes read: shares of scenes, numbered concepts, small pictures made from large ones."""

import math
from pathlib import Path

import pytest
import torch

from opendalle.base.errors import BadConfig
from opendalle.data.emoji.dataset import EmojiSetConfig
from opendalle.data.emoji.truth import SCENE_KINDS
from opendalle.recipes.command import runs_beside
from opendalle.recipes.data import aspects_of, concept_of, said_of, with_scenes
from opendalle.recipes.scales import shrink


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_scenes_make_up_their_share_and_keep_their_proportions(share: float) -> None:
    kinds = dict(EmojiSetConfig().kinds)
    scaled = with_scenes(kinds, share)
    scenes = sum(weight for kind, weight in scaled.items() if kind in SCENE_KINDS)
    assert math.isclose(scenes, share, abs_tol=1e-9)
    assert math.isclose(sum(scaled.values()), 1.0)
    assert math.isclose(scaled["single"] * kinds["plain"], scaled["plain"] * kinds["single"], abs_tol=1e-9)


def test_a_share_outside_its_range_is_refused() -> None:
    with pytest.raises(BadConfig, match="scenes"):
        with_scenes({"single": 1.0, "pair": 1.0}, 1.5)


def test_only_lone_drawings_have_a_concept() -> None:
    lone = {"kind": "single", "things": [{"key": "1F34E"}]}
    assert concept_of(lone) == concept_of({**lone, "kind": "plain"}) >= 0
    assert concept_of({**lone, "kind": "pair"}) == concept_of(None) == -1
    assert concept_of({"kind": "single", "things": [{"key": "1F34F"}]}) != concept_of(lone)


def test_captions_say_a_style_by_its_words_and_a_background_always() -> None:
    lone = {"kind": "single", "style": "flat", "background": None, "things": [{"key": "1F34E"}]}
    plain = {**lone, "kind": "plain", "background": "red"}
    style, background = aspects_of(lone)
    assert aspects_of(plain)[0] == style
    assert aspects_of(plain)[1] != background
    assert aspects_of({**lone, "style": "3d"})[0] != style
    for caption, named in (
        ("a Flat apple", True),
        ("扁平风格的苹果", True),
        ("an apple", False),
        ("a 3d apple", False),
    ):
        assert said_of(lone, caption) == (style if named else -1, -1)
        assert said_of(plain, caption)[1] == aspects_of(plain)[1]
    assert aspects_of({**lone, "kind": "pair"}) == said_of({**lone, "kind": "pair"}, "flat") == (-1, -1)
    assert aspects_of(None) == said_of(None, "flat") == (-1, -1)


def test_shrinking_keeps_flat_colour_and_halves_steps() -> None:
    flat = torch.full((1, 4, 16, 16), 0.25)
    torch.testing.assert_close(shrink(flat, 4), torch.full((1, 4, 4, 4), 0.25))


def test_runs_lie_beside_their_model(tmp_path: Path) -> None:
    assert runs_beside(tmp_path / "m") == tmp_path / "m.runs"
