"""Captions on shelves beside a set, and blends of them with the set's own."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from opendalle.base.errors import BadConfig, BadData
from opendalle.data.blending import OWN, BlendedSet, BlendingConfig
from opendalle.data.caption_shelf import CaptionLine, CaptionShelf, Shard, ShelfConfig, ShelfWriter
from opendalle.data.emoji.captions import CaptionConfig
from opendalle.data.emoji.dataset import EmojiSet, EmojiSetConfig
from opendalle.data.emoji.oracle import Oracle
from opendalle.data.fixed import FixedSet
from opendalle.data.folder import FolderSet, FolderSetConfig
from opendalle.data.loading import LoadingConfig, PictureBatches
from opendalle.data.sets import Example

WRITER = {"captioner": {"name": "one", "sha256": "a" * 64}, "seed": 0}


class Numbered:
    """Ten pictures, picture i captioned `own i`, number 7 without a caption."""

    def __init__(self, count=10, stamp="s"):
        self.count, self.stamp = count, stamp

    def __len__(self):
        return self.count

    def name(self, index):
        return f"folder/{index}.png"

    def read(self, index, rng):
        shade = int(rng.random() * 256)
        picture = np.full((4, 4, 4), shade, dtype=np.uint8)
        return Example(picture=picture, caption="" if index == 7 else f"own {index}")


def lines_of(pictures, rows, config):
    lines = []
    for row in rows:
        if row == 3:
            lines.append(CaptionLine(name=pictures.name(row), error="no picture"))
            continue
        for kind, language in config.voices:
            text = f"{kind} {language} {row} 猫\n\u2028"
            lines.append(CaptionLine(name=pictures.name(row), kind=kind, language=language, text=text, score=-row / 2))
    return lines


def written(folder, pictures, config):
    writer = ShelfWriter(folder, pictures, config, WRITER)
    for piece in writer.missing():
        writer.write(piece, lines_of(pictures, writer.rows(piece), config))
    return CaptionShelf(folder, pictures)


CONFIG = ShelfConfig(languages=("en", "zh"), piece=3)


def test_a_shelf_gives_back_what_was_written(tmp_path):
    pictures = Numbered()
    shelf = written(tmp_path / "captions", pictures, CONFIG)
    assert (len(shelf), shelf.num_errors, shelf.kinds, shelf.languages) == (
        10,
        1,
        ("short", "descriptive"),
        ("en", "zh"),
    )
    for row in range(10):
        expected = [line for line in lines_of(pictures, [row], CONFIG) if line.error is None]
        assert list(shelf.lines(row)) == expected
    rng = np.random.default_rng(0)
    example = pictures.read(4, rng)
    assert shelf.caption(4, example, "short", "zh", rng) == "short zh 4 猫\n\u2028"
    assert shelf.caption(3, example, "short", "zh", rng) is None
    other = written(tmp_path / "again", pictures, CONFIG)
    assert other.stamp == shelf.stamp


def test_shards_together_are_what_one_process_writes(tmp_path):
    pictures = Numbered()
    written(tmp_path / "alone", pictures, CONFIG)
    for shard in (2, 1, 3):  # each on a machine of its own
        writer = ShelfWriter(tmp_path / f"shard{shard}", pictures, CONFIG, WRITER)
        for piece in writer.missing(Shard(number=shard, count=3)):
            writer.write(piece, lines_of(pictures, writer.rows(piece), CONFIG))
    (tmp_path / "merged").mkdir()
    for path in tmp_path.glob("shard*/*"):
        (tmp_path / "merged" / path.name).write_bytes(path.read_bytes())
    alone, merged = (
        {path.name: path.read_bytes() for path in (tmp_path / one).iterdir()} for one in ("alone", "merged")
    )
    assert alone == merged
    CaptionShelf(tmp_path / "merged", pictures)


def test_any_program_can_read_a_piece(tmp_path):
    written(tmp_path / "captions", Numbered(), CONFIG)
    rows = [
        json.loads(line)
        for path in sorted((tmp_path / "captions").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").split("\n")
        if line
    ]
    assert len(rows) == 9 * 4 + 1
    assert rows[0] == {
        "name": "folder/0.png",
        "kind": "short",
        "language": "en",
        "text": "short en 0 猫\n\u2028",
        "score": 0.0,
    }


def test_a_shelf_refuses_other_sets_captioners_and_settings(tmp_path):
    folder, pictures = tmp_path / "captions", Numbered()
    shelf = written(folder, pictures, CONFIG)
    assert len(CaptionShelf(folder, Numbered(count=8))) == len(shelf)  # the beginning of the set
    for stranger in (Numbered(stamp="t"), Numbered(count=11)):
        with pytest.raises(BadData, match="captions of 10 pictures"):
            CaptionShelf(folder, stranger)
    other = {**WRITER, "captioner": {"name": "one", "sha256": "b" * 64}}
    for config, writer in ((CONFIG, other), (replace(CONFIG, piece=4), WRITER), (ShelfConfig(piece=3), WRITER)):
        with pytest.raises(BadData, match="begun with"):
            ShelfWriter(folder, pictures, config, writer)
    with pytest.raises(BadData, match=r"about\.json"):
        CaptionShelf(tmp_path / "nowhere", pictures)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadData, match="a file"):
        ShelfWriter(tmp_path / "file", pictures, CONFIG, WRITER)


@pytest.mark.parametrize("damage", ["missing", "cut", "half a line", "another's", "twice", "order"])
def test_a_damaged_shelf_is_refused(tmp_path, damage):
    pictures = Numbered()
    written(tmp_path / "captions", pictures, CONFIG)
    path = sorted((tmp_path / "captions").glob("*.jsonl"))[2]
    lines = path.read_bytes().splitlines(keepends=True)
    if damage == "missing":
        path.unlink()
    else:
        changed = {
            "cut": lines[:-1],
            "half a line": [*lines[:-1], lines[-1][:20]],
            "another's": [lines[0].replace(b"/6.png", b"/5.png"), *lines[1:]],
            "twice": [*lines, lines[-1]],
            "order": [lines[1], lines[0], *lines[2:]],
        }[damage]
        path.write_bytes(b"".join(changed))
    with pytest.raises(BadData, match="data caption" if damage == "missing" else "write it again"):
        CaptionShelf(tmp_path / "captions", pictures)


@pytest.mark.parametrize("wrong", [{"kinds": ()}, {"kinds": ("long",)}, {"languages": ("en", "en")}, {"piece": 0}])
def test_wrong_shelves_are_refused(wrong):
    with pytest.raises(BadConfig):
        ShelfConfig(**wrong)
    with pytest.raises(BadConfig):
        Shard(number=3, count=2)


def test_a_fixed_set_shows_what_a_run_sees(world):
    emoji = EmojiSet(world)
    fixed = FixedSet(emoji, count=40, seed=5, stamp=emoji.stamp)
    batch = PictureBatches(emoji, LoadingConfig(batch_size=40, seed=5)).batch(0)
    backwards = [fixed.read(index, np.random.default_rng(index)) for index in reversed(range(40))][::-1]
    assert [one.caption for one in backwards] == batch.captions
    assert [one.truth for one in backwards] == batch.truths
    assert len({fixed.name(index) for index in range(40)}) == 40
    larger = EmojiSet(world, EmojiSetConfig(size=128, captions=CaptionConfig(style_named=1.0)))
    assert larger.stamp == emoji.stamp  # what is shown is the same
    assert EmojiSet(world, EmojiSetConfig(kinds={"pair": 1.0})).stamp != emoji.stamp
    assert FixedSet(emoji, count=9, seed=6, stamp=emoji.stamp).stamp != fixed.stamp


def test_a_folder_is_known_by_its_pictures_not_by_its_captions(tmp_path):
    for name in ("b", "a"):
        Image.new("RGB", (8, 6), "red").save(tmp_path / f"{name}.png")
    config = FolderSetConfig(size=4, crop="whole", bare=True)
    bare = FolderSet(tmp_path, config)
    assert [bare.name(index) for index in range(2)] == ["a.png", "b.png"]
    example = bare.read(0, np.random.default_rng(0))
    assert example.caption == ""
    assert [int(row[0, 3]) for row in example.picture] == [255, 255, 255, 0]  # 8x6 fitted whole: 4x3 and a clear line
    (tmp_path / "a.txt").write_text("one\ntwo")
    assert FolderSet(tmp_path, config).stamp == bare.stamp
    with pytest.raises(BadData, match="without a caption file"):
        FolderSet(tmp_path, FolderSetConfig(size=4))
    Image.new("RGB", (9, 9), "blue").save(tmp_path / "b.png")
    assert FolderSet(tmp_path, config).stamp != bare.stamp


def blended(tmp_path, **config):
    pictures = Numbered()
    return BlendedSet(pictures, written(tmp_path / "captions", pictures, CONFIG), BlendingConfig(**config))


def seen(pictures, batch_size, count, seed=3, ranks=1):
    """Captions by position, however they are batched."""
    found = {}
    for rank in range(ranks):
        batches = PictureBatches(pictures, LoadingConfig(batch_size=batch_size, seed=seed, rank=rank, num_ranks=ranks))
        for number in range(count // batch_size):
            batch = batches.batch(number)
            rows = range(number * batch_size + rank, (number + 1) * batch_size, ranks)
            found |= dict(
                zip(
                    rows,
                    zip(batch.captions, batch.voices, batch.pictures[:, 0, 0, 0].tolist(), strict=True),
                    strict=True,
                )
            )
    return [found[position] for position in range(count)]


def test_a_blend_depends_on_seed_and_position_alone(tmp_path):
    pictures = blended(tmp_path, share=0.7, kinds={"short": 1, "descriptive": 3})
    whole = seen(pictures, 40, 120)
    assert whole == seen(pictures, 8, 120) == seen(pictures, 12, 120, ranks=3)
    assert whole != seen(pictures, 40, 120, seed=4)
    plain = seen(Numbered(), 40, 120)
    assert [one[2] for one in whole] == [one[2] for one in plain]  # the very pictures that an unblended set shows
    for (text, voice, _), (own, _, _) in zip(whole, plain, strict=True):
        assert text.startswith(voice) if voice else text == own


def test_blends_of_one_seed_agree_wherever_they_can(tmp_path):
    some, more = (seen(blended(tmp_path, share=share), 40, 200) for share in (0.4, 0.8))
    assert all(after == before for before, after in zip(some, more, strict=True) if before[1] is not None)
    assert sum(one[1] is not None for one in more) > sum(one[1] is not None for one in some)


def test_the_realised_share_is_the_one_asked_for_and_is_told_beforehand(tmp_path):
    pictures = blended(tmp_path, share=0.8, kinds={"short": 1, "descriptive": 3}, languages={"zh": 1.0})
    tally = pictures.tally(seed=3, first=0, count=2000)
    assert tally[OWN] == pytest.approx(0.2, abs=0.03)
    assert tally["short"] == pytest.approx(0.2, abs=0.03)
    assert sum(tally.values()) == pytest.approx(1.0)
    captions = seen(pictures, 40, 400)
    early, rewritten = pictures.tally(seed=3, first=0, count=400), sum(one[1] is not None for one in captions)
    # Picture 7 always gets new words, picture 3 never does: each is a tenth of all.
    assert rewritten / 400 == pytest.approx(1 - early[OWN], abs=0.1)
    assert {text.split()[1] for text, voice, _ in captions if voice} == {"zh"}
    batch = PictureBatches(pictures, LoadingConfig(batch_size=100, seed=3)).batch(0)
    assert batch.rewritten == sum(voice is not None for voice in batch.voices) / 100 > 0.5


@pytest.mark.parametrize(("share", "voices"), [(0.0, {None}), (1.0, {"descriptive"})])
def test_the_ends_of_a_blend(tmp_path, share, voices):
    captions = seen(blended(tmp_path, share=share), 40, 80)
    by_picture = {text.split()[-1 if voice is None else 2]: voice for text, voice, _ in captions}
    bare, unreadable = by_picture.pop("7"), by_picture.pop("3")
    assert set(by_picture.values()) == voices
    assert bare == "descriptive"  # it has no words of its own
    assert unreadable is None  # nobody else has words for it


@pytest.mark.parametrize(
    "wrong", [{"share": 1.5}, {"kinds": {}}, {"kinds": {"short": -1.0}}, {"languages": {"en": 0.0}}]
)
def test_wrong_blends_are_refused(wrong):
    with pytest.raises(BadConfig):
        BlendingConfig(**wrong)


def test_a_source_must_have_what_is_asked_of_it(world):
    emoji = EmojiSet(world)
    for wrong in ({"kinds": {"terse": 1.0}}, {"languages": {"de": 1.0}}):
        with pytest.raises(BadConfig, match="some of"):
            BlendedSet(emoji, Oracle(emoji.lexicon), BlendingConfig(**wrong))


def test_the_oracle_tells_the_truth_of_every_picture(world):
    emoji = EmojiSet(world)
    pictures = BlendedSet(emoji, Oracle(emoji.lexicon), BlendingConfig(share=1.0, languages={"en": 1.0}))
    for index in range(len(emoji)):
        own, told = (one.read(index, np.random.default_rng(index)) for one in (emoji, pictures))
        assert (told.truth, told.voice) == (own.truth, "descriptive")
        assert (told.picture == own.picture).all()
        assert own.truth is not None
        assert (own.truth["background"] or "transparent") in told.caption
        assert all(thing["word"] is None or f'"{thing["word"]}"' in told.caption for thing in own.truth["things"])
