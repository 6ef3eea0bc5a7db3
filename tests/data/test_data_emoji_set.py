from collections import Counter
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from opendalle.base.errors import BadConfig, BadData
from opendalle.data.emoji.captions import CaptionConfig, write_caption
from opendalle.data.emoji.colours import COLOUR_OF_NAME, colours_of_picture
from opendalle.data.emoji.compose import Composer, lay_over
from opendalle.data.emoji.dataset import EmojiSet, EmojiSetConfig, cells_of_split
from opendalle.data.emoji.holdout import SPLITS, HoldoutConfig
from opendalle.data.emoji.lexicon import Lexicon, article, chinese_name, english_name, everyday_nouns
from opendalle.data.emoji.painting import SHAPES, draw_shape, repaint
from opendalle.data.emoji.phrases import scene_chinese, scene_english
from opendalle.data.emoji.scenes import SceneMaker, count_boxes, held_out_combination, two_boxes
from opendalle.data.emoji.signs import WORDS, draw_bubble, draw_sign
from opendalle.data.emoji.sources import STYLES
from opendalle.data.emoji.truth import RELATIONS, SCENE_KINDS, Thing, Truth, truth_of_record
from opendalle.data.sets import PictureSet


def test_an_example_is_a_pure_function_of_its_generator(world):
    first, second = EmojiSet(world), EmojiSet(world)
    assert isinstance(first, PictureSet)
    list(first.iter_captions(5, np.random.default_rng(3)))  # what was read before changes nothing
    for index in range(40):
        one, two = (set_.read(index, np.random.default_rng(index)) for set_ in (first, second))
        assert one.caption == two.caption
        assert one.truth == two.truth
        np.testing.assert_array_equal(one.picture, two.picture)
        assert truth_of_record(one.truth).record() == one.truth


def test_splits_part_the_cells(world):
    cells = {split: set() for split in SPLITS}
    for split in SPLITS:
        cells[split] = {(cell.concept.hexcode, cell.style) for cell in cells_of_split(world, split, STYLES)}
    assert cells["train"] | cells["heldout-cells"] | cells["heldout-concepts"] == cells["all"]
    assert not cells["train"] & cells["heldout-cells"]
    assert len(cells["heldout-cells"]) > 0
    with pytest.raises(BadData, match="heldout-concepts"):
        EmojiSet(world, EmojiSetConfig(split="heldout-concepts"))  # everyday objects are never held out whole


def test_training_scenes_show_nothing_held_out_and_held_out_ones_do(world):
    lexicon = Lexicon(world)
    config = HoldoutConfig(**world.manifest["holdout"])
    for combinations in ("seen", "heldout"):
        maker = SceneMaker(world, lexicon, styles=STYLES, combinations=combinations)
        for number in range(20):
            for kind in ("relation", "count", "colour", "colours"):
                truth = maker.make(kind, np.random.default_rng(number))
                assert held_out_combination(truth, config) == (combinations == "heldout")
                for thing in truth.things:
                    if thing.key in world.concept_of:
                        assert truth.style not in world.concept_of[thing.key].held_out_styles


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_pictures_show_what_their_truth_says(world, kind):
    maker = SceneMaker(world, Lexicon(world), styles=STYLES)
    composer = Composer(world, 64)
    for number in range(30):
        truth = maker.make(kind, np.random.default_rng(number))
        picture = composer.draw(truth)
        if truth.background:
            assert (picture[..., 3] == 255).all()
            paint = np.array(COLOUR_OF_NAME[truth.background].rgb)
            share = (picture[..., :3] == paint).all(-1).mean()
            assert share > 0.15
        else:
            outside = np.ones((64, 64), dtype=bool)
            for thing in truth.things:
                x, y, side = thing.box
                outside[y : y + side, x : x + side] = False
            assert not picture[outside].any()
        for thing in truth.things:
            x, y, side = thing.box
            assert min(x, y) >= 0
            assert max(x, y) + side <= 64
            assert picture[y : y + side, x : x + side, 3].max() > 200
        if truth.kind in ("colour", "colours") and not truth.background:
            for thing in truth.things:
                x, y, side = thing.box
                assert thing.colour in colours_of_picture(picture[y : y + side, x : x + side])


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_hold_between_boxes_and_only_they(relation):
    (x0, y0, s0), (x1, y1, s1) = two_boxes(relation)
    across, down = (x0 + s0 / 2) - (x1 + s1 / 2), (y0 + s0 / 2) - (y1 + s1 / 2)
    step, drift = (across, down) if relation in ("left", "right") else (down, across)
    assert (step < 0) == (relation in ("left", "above"))
    assert abs(step) > 2 * abs(drift)
    assert x0 + s0 <= x1 or x1 + s1 <= x0 or y0 + s0 <= y1 or y1 + s1 <= y0


@pytest.mark.parametrize("kind", ["pair", "colours", "size"])
def test_things_stand_from_left_to_right_as_they_are_told(world, kind):
    maker, lexicon = SceneMaker(world, Lexicon(world), styles=STYLES), Lexicon(world)
    for number in range(40):
        truth = maker.make(kind, np.random.default_rng(number))
        first, second = truth.things
        assert first.box[0] + first.box[2] <= second.box[0]
        for say, name in ((scene_english, "en"), (scene_chinese, "zh")):
            told = say(truth, lexicon, np.random.default_rng(number))
            places = [told.index(getattr(lexicon.noun(thing.key), name)) for thing in truth.things]
            assert places == sorted(places)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_counted_things_do_not_touch(count):
    boxes = count_boxes(count)
    taken = np.zeros((64, 64), dtype=int)
    for x, y, side in boxes:
        taken[y : y + side, x : x + side] += 1
    assert len(boxes) == count
    assert taken.max() == 1


def test_the_same_truth_at_256_px_is_the_picture_at_64_enlarged(world):
    maker = SceneMaker(world, Lexicon(world), styles=STYLES)
    for number, kind in enumerate(SCENE_KINDS):
        truth = maker.make(kind, np.random.default_rng(number))
        small, large = Composer(world, 64).draw(truth), Composer(world, 256).draw(truth)
        flat = large.reshape(64, 4, 64, 4, 4).astype(float)
        weight = flat[..., 3:]
        mean = (flat[..., :3] * weight).sum((1, 3)) / np.maximum(weight.sum((1, 3)), 1)
        lit = small[..., 3] > 250
        assert np.abs(mean - small[..., :3])[lit].mean() < 9
        assert np.abs(weight.mean((1, 3))[..., 0] - small[..., 3]).mean() < 5


def test_laying_over_equals_the_plain_formula():
    rng = np.random.default_rng(0)
    below, above = rng.integers(0, 256, (2, 16, 16, 4), dtype=np.uint8)
    for alpha in (None, 255):
        under = below.copy()
        if alpha:
            under[..., 3] = alpha
        a, b = above[..., 3:] / 255, under[..., 3:] / 255
        out = a + b * (1 - a)
        colour = (above[..., :3] * a + under[..., :3] * b * (1 - a)) / np.maximum(out, 1e-9)
        lay_over(under, above)
        assert np.abs(under[..., :3] - colour)[out[..., 0] > 0.05].max() <= 1
        assert np.abs(under[..., 3:] - out * 255).max() <= 1


def test_shapes_and_repainted_drawings_have_their_colour():
    for name in SHAPES:
        for style in STYLES:
            for colour in COLOUR_OF_NAME:
                assert colours_of_picture(draw_shape(name, colour, style, 20), 0.1)[0] == colour, (name, style, colour)
    red = draw_shape("ball", "red", "3d", 48)
    for colour in COLOUR_OF_NAME:
        painted = repaint(red, colour)
        assert colours_of_picture(painted)[0] == colour
        np.testing.assert_array_equal(painted[..., 3], red[..., 3])


def test_signs_carry_their_word():
    for word in WORDS:
        assert draw_sign(word, "white", 64)[..., 3].max() == 255
    one, other = draw_bubble("hi", 44), draw_bubble("wow", 44)
    assert (one != other).any()


def test_articles():
    told = {
        "red apple": "a red apple",
        "apple": "an apple",
        "french fries": "french fries",
        "bus": "a bus",
        "pair of scissors": "a pair of scissors",
        "grinning face with smiling eyes": "a grinning face with smiling eyes",
        "unicorn": "a unicorn",
        "hourglass": "an hourglass",
        "3d drawing": "a 3d drawing",
        "8 ball": "an 8 ball",
        "mount fuji": "mount fuji",
    }
    assert {phrase: article(phrase) for phrase in told} == told
    assert english_name("person: beard") == "person with beard"
    assert english_name("keycap: 4") == "keycap 4"
    assert chinese_name("按键: 4") == "按键4"


def _captions(world, truth, count=150, **config):
    settings = CaptionConfig(**config)
    return {write_caption(truth, Lexicon(world), settings, np.random.default_rng(n)) for n in range(count)}


def test_captions_name_what_is_asked_and_nothing_else(world):
    apple = Thing(key="1F34E", box=(0, 0, 64))
    clear = Truth(kind="single", style="3d", things=(apple,))
    said = _captions(world, clear, languages={"en": 1.0}, style_named=0.0, transparent_named=0.0, voices={"short": 1.0})
    assert said <= {"an apple", "apple", "a red apple", "red apple"}
    on_blue = replace(clear, kind="plain", background="blue")
    for caption in _captions(world, on_blue):
        assert "blue" in caption.lower() or "蓝" in caption
        assert "transparent" not in caption.lower()
    for caption in _captions(world, clear, style_named=1.0, voices={"short": 0.5, "descriptive": 0.5}):
        assert "3d" in caption.lower()
    for caption in _captions(world, clear, style_named=0.0):
        assert "3d" not in caption.lower()
        assert "background" not in caption.lower() or "transparent" in caption.lower()


def test_scene_sentences_in_both_languages(world):
    cat, tree = Thing(key="1F408", box=(0, 16, 32)), Thing(key="1F333", box=(32, 16, 32))
    truth = Truth(kind="relation", style="flat", things=(cat, tree), relation="left")
    quiet = MappingProxyType({"style_named": 0.0, "transparent_named": 0.0, "voices": {"short": 1.0}})
    english = _captions(world, truth, languages={"en": 1.0}, **quiet)
    assert "a cat to the left of a tree" in english
    assert "a tree to the right of a cat" in english
    assert not any("above" in caption or "tree to the left" in caption for caption in english)
    chinese = _captions(world, truth, languages={"zh": 1.0}, **quiet)
    assert "猫在树的左边" in chinese
    assert "树在猫的右边" in chinese
    apples = Truth(kind="count", style="flat", things=(Thing(key="1F34E", box=(0, 0, 20)),) * 3)
    assert _captions(world, apples, languages={"zh": 1.0}, **quiet) == {"三个苹果", "3个苹果"}
    assert "three apples" in _captions(world, apples, languages={"en": 1.0}, **quiet)


def test_the_mixture_is_kept_and_words_come_in_many_voices(world):
    emoji = EmojiSet(world)
    kinds = Counter(emoji.truth(0, np.random.default_rng(n)).kind for n in range(900))
    assert 0.40 < kinds["single"] / 900 < 0.50
    assert 0.11 < kinds["plain"] / 900 < 0.19
    captions = list(emoji.iter_captions(300, np.random.default_rng(0)))
    chinese = sum(any("一" <= letter <= "鿿" for letter in caption) for caption in captions) / 300
    assert 0.22 < chinese < 0.42
    assert captions == list(emoji.iter_captions(300, np.random.default_rng(0)))


def test_bad_settings_are_refused(world):
    for wrong in (
        {"split": "test"},
        {"size": 65},
        {"styles": ()},
        {"kinds": {"poem": 1.0}},
        {"kinds": {"single": 0.0}},
    ):
        with pytest.raises(BadConfig):
            EmojiSetConfig(**wrong)
    with pytest.raises(BadConfig):
        CaptionConfig(languages={"tlh": 1.0})
    with pytest.raises(BadData, match="oil"):
        EmojiSet(world, EmojiSetConfig(styles=("oil",)))


def test_everyday_nouns_are_complete():
    nouns = everyday_nouns()
    assert len(nouns) > 100
    assert len({noun.en for noun in nouns.values()}) == len(nouns)
    assert sum(noun.paintable for noun in nouns.values()) > 30
    assert all(noun.plural and noun.zh and len(noun.measure) == 1 for noun in nouns.values())
