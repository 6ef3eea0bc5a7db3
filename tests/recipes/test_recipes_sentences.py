"""The text encoder and the rewriter, trained for a few steps at a tiny size: folders, resume, what stays as it is."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from opendalle.base.errors import BadConfig, BadModel, BadRequest
from opendalle.checkpoint.folder import read_model
from opendalle.data.emoji.fixture import build_fixture
from opendalle.pretrained.kinds import load
from opendalle.pretrained.texts import load_reader, load_rewriter
from opendalle.recipes import sentence_texts
from opendalle.recipes import sentences as room
from opendalle.recipes.places import runs_beside
from opendalle.recipes.sentence_texts import FolderTexts, SentenceBatches, open_texts
from opendalle.recipes.sentences import sentences
from opendalle.recipes.stage import Passage, embark
from opendalle.tokenizers import ByteTokenizer
from opendalle.training.config import Upkeep

SMALL = {"width": 16, "depth": 1, "heads": 2, "head_width": 8, "hidden": 16}
TINY = {"pictures": 12, "batch_size": 4, "clip": None}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "fixture"
    for _ in build_fixture(folder):
        pass
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEXT_ENCODER_PRESETS", "TEXT_DECODER_PRESETS"):
        monkeypatch.setattr(room, name, {"emoji": replace(getattr(room, name)["emoji"], **SMALL)})
    monkeypatch.setattr(sentence_texts, "POOL", 2)


@pytest.fixture
def train(world: Path, tmp_path: Path) -> Callable[..., Path]:
    def run(name: str, *, passage: dict | None = None, data: Path = world, **settings: object) -> Path:
        out = tmp_path / name
        asked = Passage(runs=runs_beside(out), **(passage or {}))
        list(embark(sentences, {"data": data, "out": out, **TINY, **settings}, asked))
        return out

    return run


def folder_of_pictures(place: Path, *, described: bool) -> Path:
    place.mkdir()
    for k, colour in enumerate(("red", "blue", "green")):
        Image.new("RGB", (8, 8), colour).save(place / f"{k}.png")
        (place / f"{k}.txt").write_text(f"a {colour} tile\n一块{k}号砖\n", encoding="utf-8")
        if described and k:
            (place / f"{k}.descriptive.txt").write_text(f"a plain {colour} tile, lit evenly.\n", encoding="utf-8")
    return place


def weights(model: Path, part: str) -> dict[str, torch.Tensor]:
    return read_model(model).part(part).state()


def equal(one: Path, other: Path, part: str) -> bool:
    return all(torch.equal(tensor, weights(other, part)[name]) for name, tensor in weights(one, part).items())


def test_both_halves_are_written_and_name_each_other(train: Callable[..., Path], tmp_path: Path) -> None:
    out = train("rewriter-a")
    text = tmp_path / "text-a"
    one = load_rewriter(out)
    assert one.name == "rewriter-a"
    assert one.rewrite(["a cat"], seeds=[1]) == one.rewrite(["a cat"], seeds=[1])
    assert load(out).write("a cat", 0) == one.write("a cat", 0)
    said = load_reader(text, 20).read(["a cat", "一只猫"])
    assert said.states.shape == (2, 20, 16)
    ids, mask = (torch.from_numpy(part) for part in ByteTokenizer().pack(["a cat", "一只猫"], 20))
    torch.testing.assert_close(said.states, one.network.encoder(ids, mask).states)
    for wrong, loader in ((out, lambda place: load_reader(place, 20)), (text, load_rewriter)):
        with pytest.raises(BadModel, match=wrong.name):
            loader(wrong)
    train("rewriter-a", text="text-b")  # nothing is left to do
    assert not (tmp_path / "text-b").exists()
    with pytest.raises(BadRequest, match="text-a"):  # somebody's encoder lies there
        train("rewriter-b", text="text-a", seed=5)


def test_a_resume_ends_at_the_same_weights(train: Callable[..., Path], tmp_path: Path) -> None:
    whole, cut = train("rewriter-whole"), Upkeep(max_minutes=1e-9)
    out = train("rewriter-cut", passage={"upkeep": cut})
    assert not out.exists()
    train("rewriter-cut", passage={"upkeep": cut, "resume": True})
    assert train("rewriter-cut", passage={"resume": True}).exists()
    assert equal(whole, out, "rewriter")
    assert equal(tmp_path / "text-whole", tmp_path / "text-cut", "text")


def test_a_run_that_was_killed_between_the_two_folders_ends(train: Callable[..., Path], tmp_path: Path) -> None:
    out, text = train("rewriter-a"), tmp_path / "text-a"
    sha256, weighed = read_model(text).sha256, weights(out, "rewriter")
    shutil.rmtree(out)
    train("rewriter-a", passage={"resume": True})
    assert read_model(text).sha256 == sha256
    assert all(torch.equal(tensor, weights(out, "rewriter")[name]) for name, tensor in weighed.items())
    shutil.rmtree(out)
    shutil.rmtree(text)
    (text / "else").mkdir(parents=True)
    with pytest.raises(BadModel, match=r"model\.json"):
        train("rewriter-a", passage={"resume": True})


def test_a_kept_encoder_stays_and_a_warm_start_brings_its_own(train: Callable[..., Path], tmp_path: Path) -> None:
    first, text = train("rewriter-first"), tmp_path / "text-first"
    sha256 = read_model(text).sha256
    out = train("rewriter-second", encoder=text, pictures=8)
    assert not (tmp_path / "text-second").exists()
    assert (read_model(text).sha256 == sha256 == load(out) and False) or read_model(text).sha256 == sha256
    assert read_model(out).part("pipeline").config["siblings"]["text"] == {"name": "text-first", "sha256": sha256}
    assert not equal(first, out, "rewriter")

    warm = train("rewriter-third", passage={"warm": first}, learning_rate=1e-9)
    for part, one, other in (("rewriter", first, warm), ("text", text, tmp_path / "text-third")):
        for name, tensor in weights(one, part).items():
            torch.testing.assert_close(weights(other, part)[name], tensor, rtol=0.02, atol=0.02)


def test_a_folder_trains_both_where_captions_are_described(train: Callable[..., Path], tmp_path: Path) -> None:
    data = folder_of_pictures(tmp_path / "described", described=True)
    found = FolderTexts(data)
    assert sorted({(pair.short, pair.full) for kinds in found.pairs for pair in kinds}) == [
        ("a blue tile", "a plain blue tile, lit evenly."),
        ("a green tile", "a plain green tile, lit evenly."),
    ]
    assert load_rewriter(train("rewriter-d", data=data)).write("a red tile", 1)
    (data / "2.descriptive.txt").write_text("another\n", encoding="utf-8")
    assert FolderTexts(data).stamp != found.stamp


def test_a_folder_of_plain_captions_trains_the_encoder_alone(train: Callable[..., Path], tmp_path: Path) -> None:
    data = folder_of_pictures(tmp_path / "plain", described=False)
    out = train("text-plain", data=data)
    assert load_reader(out, 8).read(["x"]).states.shape == (1, 8, 16)
    warm = train("text-warm", data=data, passage={"warm": out}, learning_rate=1e-9)
    for name, tensor in weights(out, "text").items():
        torch.testing.assert_close(weights(warm, "text")[name], tensor, rtol=0.02, atol=0.02)
    with pytest.raises(BadRequest, match="descriptive"):
        train("rewriter-plain", data=data, encoder=out)
    with pytest.raises(BadConfig, match="plain name"):
        train("rewriter-plain", text="a/b")


def test_batches_are_a_function_of_their_position(world: Path) -> None:
    batches = SentenceBatches(
        texts=open_texts(world, 0),
        tokenizer=ByteTokenizer(),
        teacher=None,
        batch_size=4,
        num_holed=2,
        context=64,
        longest=300,
        seed=1,
    )
    told = list(islice(batches(0), 5))
    for position in range(5):
        again = next(batches(position))
        for one, other in ((again.pairs, told[position].pairs), (again.holes, told[position].holes)):
            assert one is not None
            assert other is not None
            assert torch.equal(one.ids, other.ids)
            assert torch.equal(one.written, other.written)
    texts = {json.dumps(one.pairs.written[row].tolist()) for one in told if one.pairs for row in range(4)}
    assert len(texts) == 20
