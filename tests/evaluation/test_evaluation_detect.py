"""Detectors on scenes drawn here, where every answer is known; parts of them against slow plain versions."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from evaluation_fixture import THINGS, ComparingJudge, silhouette
from PIL import Image, ImageDraw

from opendalle.base.errors import BadConfig, BadData
from opendalle.data.emoji.colours import COLOURS
from opendalle.data.emoji.truth import Thing, Truth
from opendalle.evaluation import regions
from opendalle.evaluation.colours import COLOUR_NAMES, colour_name, colour_shares, lab, name_colours
from opendalle.evaluation.detect import DetectConfig, Detection, Found, detect, match, relations
from opendalle.evaluation.marking import counterfactuals, mark_scene

VOCABULARY = tuple(THINGS)
APPLE, CAR, HOUSE, STAR = VOCABULARY
RED, BLUE, GREEN = (222, 48, 44), (44, 108, 224), (58, 168, 78)


def scene(*things: tuple[str, int, int, int, tuple[int, int, int]], background=None, size: int = 256) -> Image.Image:
    """Paste silhouettes (key, x, y, side, colour) on a plain or transparent ground."""
    picture = Image.new("RGBA", (size, size), (0, 0, 0, 0) if background is None else (*background, 255))
    for key, x, y, side, colour in things:
        picture.alpha_composite(silhouette(key, colour, "3d", side), (x, y))
    return picture


def truth(kind: str, *things: Thing, background=None, relation=None) -> Truth:
    return Truth(kind=kind, style="3d", things=things, background=background, relation=relation)


def thing(key: str, colour: str | None = None, size: str | None = None) -> Thing:
    return Thing(key=key, box=(0, 0, 32), colour=colour, size=size)


def found(box, name: str = "a", colours=None, confidence: float = 0.9) -> Found:
    return Found(box, 0.1, {name: confidence}, colours or {})


# -- colours


def test_lab_of_known_colours():
    wanted = {(255, 255, 255): (100, 0, 0), (0, 0, 0): (0, 0, 0), (255, 0, 0): (53.24, 80.09, 67.20),
              (0, 0, 255): (32.30, 79.19, -107.86)}  # fmt: skip
    values = lab(np.array(list(wanted), dtype=np.uint8))
    assert np.allclose(values, list(wanted.values()), atol=0.05)


def test_every_paint_of_the_world_has_its_own_word():
    assert {colour.name: colour_name(colour.rgb) for colour in COLOURS} == {name: name for name in COLOUR_NAMES}


def test_between_two_words_it_abstains():
    red, orange = np.array((224, 48, 44)), np.array((248, 140, 28))
    path = np.array([red + (orange - red) * t for t in np.linspace(0, 1, 60)]).astype(np.uint8)
    named = name_colours(path, abstain=4.0)
    assert named[0] == COLOUR_NAMES.index("red")
    assert named[-1] == COLOUR_NAMES.index("orange")
    assert (named == -1).any()
    assert (name_colours(path, abstain=0.0) >= 0).all()


def test_shares_add_up():
    pixels = np.array([RED] * 3 + [BLUE], dtype=np.uint8)
    assert colour_shares(pixels) == {"red": 0.75, "blue": 0.25}
    assert colour_shares(pixels[:0]) == {}


# -- regions


def slow_label(mask: np.ndarray) -> np.ndarray:
    labels, count = np.zeros(mask.shape, dtype=np.int64), 0
    for start in itertools.product(*map(range, mask.shape)):
        if mask[start] and not labels[start]:
            count, stack = count + 1, [start]
            labels[start] = count
            while stack:
                row, column = stack.pop()
                for other in itertools.product((row - 1, row, row + 1), (column - 1, column, column + 1)):
                    inside = all(0 <= place < side for place, side in zip(other, mask.shape, strict=True))
                    if inside and mask[other] and not labels[other]:
                        labels[other] = count
                        stack.append(other)
    return labels


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_labels_equal_flood_fill(share: float):
    mask = np.random.default_rng(3).random((24, 31)) < share
    labels, count = regions.label(mask)
    slow = slow_label(mask)
    assert count == slow.max()
    assert np.array_equal(labels, slow)


def test_labels_of_nothing_and_everything():
    assert regions.label(np.zeros((4, 4), dtype=bool))[1] == 0
    assert regions.label(np.ones((4, 4), dtype=bool))[1] == 1


def test_grow_and_depth_equal_their_definitions():
    mask = np.random.default_rng(1).random((12, 14)) < 0.7
    rows, columns = np.indices(mask.shape)
    down, along = np.nonzero(mask)
    near = np.abs(down[:, None] - rows.reshape(1, -1))
    far = np.maximum(near, np.abs(along[:, None] - columns.reshape(1, -1))).min(axis=0)
    assert np.array_equal(regions.grow(mask, 2), far.reshape(mask.shape) <= 2)
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    deep = [0 if not mask[p] else np.abs(outside - p).max(axis=1).min() for p in np.ndindex(mask.shape)]
    assert np.array_equal(regions.depth(mask), np.array(deep).reshape(mask.shape))


def test_two_touching_discs_are_cut_and_one_is_not():
    rows, columns = np.indices((40, 80))
    left, right = ((rows - 20) ** 2 + (columns - place) ** 2 < 17**2 for place in (20, 52))
    pieces = regions.split_at_waist(left | right, 50)
    assert len(pieces) == 2
    assert not (pieces[0] & pieces[1]).any()
    assert np.array_equal(pieces[0] | pieces[1], left | right)
    assert len(regions.split_at_waist(left, 50)) == 1


def test_backdrop_reads_colour_or_transparency():
    blue = np.asarray(scene((APPLE, 60, 60, 100, RED), background=BLUE))
    assert regions.backdrop(blue, 8).rgb == BLUE
    clear = np.asarray(scene((APPLE, 60, 60, 100, RED)))
    assert regions.backdrop(clear, 8).rgb is None
    assert np.array_equal(regions.foreground(clear, regions.backdrop(clear, 8)), clear[..., 3] >= 128)


# -- detection


@pytest.mark.parametrize("background", [None, (255, 255, 255), GREEN])
@pytest.mark.parametrize("size", [64, 256])
def test_two_things_are_found_named_placed_and_coloured(comparing_judge: ComparingJudge, background, size: int):
    scale = size // 64
    picture = scene(
        (APPLE, 2 * scale, 18 * scale, 26 * scale, RED), (HOUSE, 34 * scale, 16 * scale, 28 * scale, BLUE),
        background=background, size=size,
    )  # fmt: skip
    seen = detect(picture, comparing_judge, VOCABULARY)
    assert seen.background == {None: "transparent", (255, 255, 255): "white", GREEN: "green"}[background]
    assert len(seen.things) == 2
    apple, house = match(seen, (APPLE, HOUSE))
    assert apple.has_colour("red")
    assert house.has_colour("blue")
    assert not apple.has_colour("blue")
    assert relations(apple, house) == {"left"}
    assert relations(house, apple) == {"right"}


@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_counting(comparing_judge: ComparingJudge, num: int):
    places = [(10, 10), (140, 12), (12, 140), (142, 138)][:num]
    picture = scene(*((CAR, x, y, 100, BLUE) for x, y in places), background=(255, 255, 255))
    seen = detect(picture, comparing_judge, VOCABULARY)
    assert seen.count(CAR) == num
    assert seen.count(APPLE) == 0


def test_touching_things_are_cut_where_the_judge_is_surer(comparing_judge: ComparingJudge):
    picture = scene((APPLE, 20, 80, 100, RED), (APPLE, 99, 80, 100, RED), background=(255, 255, 255))
    assert detect(picture, comparing_judge, VOCABULARY).count(APPLE) == 2


def test_specks_are_nothing(comparing_judge: ComparingJudge):
    picture = scene((APPLE, 60, 60, 120, RED), background=(255, 255, 255))
    ImageDraw.Draw(picture).point([(10, 10), (240, 20)], fill=(0, 0, 0, 255))
    assert len(detect(picture, comparing_judge, VOCABULARY).things) == 1
    assert detect(scene(background=RED), comparing_judge, VOCABULARY).things == ()


def test_an_unknown_vocabulary_is_refused(comparing_judge: ComparingJudge):
    with pytest.raises(BadData, match="nobody"):
        detect(scene(), comparing_judge, ("nobody",))
    with pytest.raises(BadConfig):
        DetectConfig(smallest=2)


# -- relations, colours of things, marks


@pytest.mark.parametrize(
    ("box", "wanted"),
    [((0.0, 0.4, 0.2, 0.6), {"left"}), ((0.8, 0.4, 1.0, 0.6), {"right"}), ((0.4, 0.0, 0.6, 0.2), {"above"}),
     ((0.4, 0.8, 0.6, 1.0), {"below"}), ((0.0, 0.0, 0.2, 0.2), {"left", "above"}), ((0.41, 0.4, 0.61, 0.6), set())],
)  # fmt: skip
def test_relations_by_box_centres(box, wanted):
    assert relations(found(box), found((0.4, 0.4, 0.6, 0.6))) == wanted


def test_outlines_and_glints_do_not_make_a_colour():
    assert found((0, 0, 1, 1), colours={"white": 0.4, "red": 0.35}).has_colour("red")
    assert not found((0, 0, 1, 1), colours={"black": 0.9, "red": 0.05}).has_colour("red")
    assert found((0, 0, 1, 1), colours={"black": 0.9, "red": 0.05}).has_colour("black")
    assert not found((0, 0, 1, 1)).has_colour("red")


def test_one_thing_serves_one_wish():
    one = Detection("white", 1.0, (found((0, 0, 0.5, 0.5), APPLE),))
    assert match(one, (APPLE, APPLE)) == (one.things[0], None)
    assert match(one, (APPLE,), confidence=0.95) == (None,)


def test_marks_see_each_skill_alone():
    apple = found((0.0, 0.4, 0.2, 0.6), APPLE, {"red": 1.0})
    house = found((0.6, 0.4, 1.0, 0.8), HOUSE, {"blue": 1.0})
    seen = Detection("white", 1.0, (apple, house))
    asked = truth("colours", thing(APPLE, "red"), thing(HOUSE, "blue"), background="white", relation="left")
    assert mark_scene(asked, seen).asked() == {"background": True, "objects": True, "relation": True, "binding": True}
    for skill, other in counterfactuals(asked).items():
        marked = mark_scene(other, seen)
        assert marked.asked()[skill] is False
        assert sum(not passed for passed in marked.asked().values()) == 1
    assert set(counterfactuals(asked)) == {"background", "relation", "binding"}
    missing = mark_scene(asked, Detection("white", 1.0, (apple,)))
    assert not missing.all_right
    assert (missing.objects, missing.relation, missing.binding) == (False, False, False)
    sizes = truth("size", thing(APPLE, size="small"), thing(HOUSE, size="big"))
    assert mark_scene(sizes, seen).size is True
    assert mark_scene(sizes, seen).transparent is True  # transparent pictures are shown on white
    assert mark_scene(sizes, replace(seen, background="green")).transparent is False


def test_a_count_must_be_exact():
    three = Detection("white", 1.0, tuple(found((0, 0, 0.1, 0.1), CAR) for _ in range(3)))
    for asked, wanted in ((2, False), (3, True), (4, False)):
        assert mark_scene(truth("count", *[thing(CAR)] * asked), three).count is wanted
    assert mark_scene(truth("count", *[thing(CAR)] * 4), three).thing is True
    for other in counterfactuals(truth("count", *[thing(CAR)] * 3)).values():
        assert mark_scene(other, three).count is False


def test_a_sign_has_no_objects():
    asked = truth("sign", Thing(key="sign", box=(0, 0, 64), colour="red", word="stop"))
    assert mark_scene(asked, Detection("transparent", 1.0, ())).asked() == {"transparent": True}
