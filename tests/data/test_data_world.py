import numpy as np
import pytest

from opendalle.base.errors import BadConfig, BadData
from opendalle.data.emoji.artwork import render_svg, svg_of_icon
from opendalle.data.emoji.build import build_world, shrink, write_world
from opendalle.data.emoji.catalogue import Words, plain_hexcode
from opendalle.data.emoji.colours import COLOUR_NAMES, COLOURS, colours_of_picture, name_pixels
from opendalle.data.emoji.holdout import (
    HoldoutConfig,
    chance,
    concept_held_out,
    count_object_held_out,
    held_out_styles,
    relation_pair_held_out,
)
from opendalle.data.emoji.sources import SOURCES, STYLES, source_of_style
from opendalle.data.emoji.world import World, concept_of_record, record_of_concept


def _word(hexcode: str, family: str = "", is_variant: bool = False) -> Words:
    return Words(
        hexcode=hexcode,
        family=family or hexcode,
        is_variant=is_variant,
        names={"en": hexcode.lower()},
        keywords={"en": (), "zh": ()},
        group="objects",
        subgroup="tool",
    )


def _disc(colour, side=256):
    y, x = np.mgrid[:side, :side] - side / 2 + 0.5
    picture = np.zeros((side, side, 4), dtype=np.uint8)
    picture[np.hypot(x, y) < side * 0.4] = (*colour, 255)
    return picture


def test_a_world_reads_back_what_was_drawn(world):
    assert len(world.concepts) == 24
    assert world.sprites.shape == (96, 64, 64, 4)
    for concept in world.concepts:
        assert concept_of_record(record_of_concept(concept)) == concept
        for style in concept.rows:
            small, large = world.sprite(concept.hexcode, style), world.sprite(concept.hexcode, style, 256)
            assert large.shape == (256, 256, 4)
            np.testing.assert_array_equal(small, shrink(large, 64))


def test_building_twice_gives_the_same_stamp(tmp_path):
    draws = {style: lambda hexcode: _disc((200, 30, 30)) for style in STYLES}
    stamps = []
    for name in ("one", "two"):
        *_, last = write_world([_word("1F528")], draws, tmp_path / name, holdout=HoldoutConfig(), sources=[])
        assert last.folder == tmp_path / name
        stamps.append(World(last.folder).stamp)
    assert stamps[0] == stamps[1]


def test_near_duplicate_variants_are_left_out_and_real_ones_stay(tmp_path):
    words = [_word("A"), _word("B", family="A", is_variant=True), _word("C", family="A", is_variant=True)]
    colour = {"A": (200, 30, 30), "B": (200, 32, 30), "C": (30, 30, 200)}
    draws = {style: lambda hexcode: _disc(colour[hexcode]) for style in STYLES}
    *_, last = write_world(words, draws, tmp_path / "w", holdout=HoldoutConfig(), sources=[])
    assert [concept.hexcode for concept in World(last.folder).concepts] == ["A", "C"]


def test_a_failed_build_leaves_nothing(tmp_path):
    def broken(hexcode):
        raise RuntimeError("no ink")

    with pytest.raises(RuntimeError):
        list(write_world([_word("A")], {"flat": broken}, tmp_path / "w", holdout=HoldoutConfig(), sources=[]))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadData):
        list(write_world([], {}, tmp_path, holdout=HoldoutConfig(), sources=[]))


def test_missing_folders_are_told(tmp_path):
    with pytest.raises(BadData, match="opendalle data emoji"):
        World(tmp_path)
    with pytest.raises(BadData):
        list(build_world(tmp_path, tmp_path / "out"))


def test_icons_are_mirrored_and_given_margin():
    icon = {"body": '<path fill="#f00" d="M0 0h8v16H0z"/>', "width": 16, "height": 16}
    plain, mirrored = render_svg(svg_of_icon(icon, 0.0)), render_svg(svg_of_icon(icon | {"hFlip": True}, 0.0))
    np.testing.assert_array_equal(plain[:, ::-1], mirrored)
    assert plain[128, 0, 3] == 255
    assert render_svg(svg_of_icon(icon, 0.1))[128, 0, 3] == 0


def test_clear_pixels_never_bleed_when_shrinking():
    picture = np.zeros((256, 256, 4), dtype=np.uint8)
    picture[..., 1] = 255  # clear pixels carry a hidden green
    picture[64:192, 64:192] = (255, 0, 0, 255)
    small = shrink(picture, 64)
    assert small[small[..., 3] > 8][:, 1].max() <= 4


def test_every_paint_is_named_by_its_own_colour():
    paints = np.array([colour.rgb for colour in COLOURS], dtype=np.uint8)
    assert [COLOUR_NAMES[index] for index in name_pixels(paints)] == list(COLOUR_NAMES)
    assert colours_of_picture(_disc((58, 168, 78))) == ["green"]
    assert colours_of_picture(np.zeros((8, 8, 4), dtype=np.uint8)) == []


def test_hexcodes_meet_whatever_their_spelling():
    assert plain_hexcode("0023-fe0f-20e3") == "0023-20E3"


def test_hold_outs_keep_their_shares_and_two_styles():
    config = HoldoutConfig()
    names = [f"{number:05X}" for number in range(5000)]
    held = sum(concept_held_out(name, config) for name in names) / 5000
    assert 0.065 < held < 0.095
    cells = [held_out_styles(name, STYLES, config) for name in names]
    assert 0.043 < sum(map(len, cells)) / 20000 < 0.057
    assert all(len(STYLES) - len(styles) >= 2 for styles in cells)
    assert held_out_styles("1F34E", ("3d", "flat"), HoldoutConfig(cells=0.5)) == ()
    assert not any(count_object_held_out(1, name, config) for name in names)


def test_hold_outs_are_the_same_for_ever():
    assert chance("salt", "a", "b") == 0.37960577231406034
    assert chance("salt", "a", "b") != chance("salt", "ab")
    config = HoldoutConfig(relation_pairs=0.5)
    for other in map(str, range(20)):
        assert relation_pair_held_out("left", "x", other, config) == relation_pair_held_out("right", other, "x", config)
        assert relation_pair_held_out("above", "x", other, config) == relation_pair_held_out(
            "below", other, "x", config
        )
    with pytest.raises(BadConfig):
        HoldoutConfig(cells=0.9)


def test_every_style_has_a_free_licence():
    assert {source_of_style(style).licence for style in STYLES} <= {"MIT", "Apache-2.0", "CC-BY-4.0"}
    assert len({source.folder for source in SOURCES}) == len(SOURCES)
    with pytest.raises(KeyError):
        source_of_style("oil")
