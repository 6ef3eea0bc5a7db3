"""The captioner's recipe: from pictures to a folder that writes captions, in one command, in pieces, or from files."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opendalle.base.errors import BadConfig, BadData, BadModel
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import Part, read_model, write_model
from opendalle.clip.model import CLIP, CLIPConfig
from opendalle.dalle3.caption_network import CAPTIONER_PRESETS, KINDS, LANGUAGES, manner_of
from opendalle.dalle3.captioner import DecodingConfig
from opendalle.dalle3.sight import see
from opendalle.data.emoji.dataset import EmojiSet
from opendalle.data.emoji.descriptions import description, subject
from opendalle.data.emoji.fixture import build_fixture
from opendalle.data.emoji.truth import truth_of_record
from opendalle.data.loading import LoadingConfig, PictureBatches
from opendalle.pretrained.kinds import TOKENIZER, load, load_captioner, load_pipeline
from opendalle.recipes import run
from opendalle.recipes.caption_pairs import SIGHT, CaptionBatches, CaptionMix, Eye, SightsPlan, language_of
from opendalle.recipes.captioner import captioner
from opendalle.recipes.places import runs_beside
from opendalle.tokenizers.bpe import BytePairTokenizer

CARD = {"data": "none", "recipe": "by hand", "licence": "none"}
TEXTS = ["a red apple on a blue ground", "an apple", "a flat picture of a cat", "一个红苹果，背景是透明的"] * 4
FEW = {"draws": 60, "pictures": 64, "tune_pictures": 48, "batch_size": 16}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioner") / "world"
    for _ in build_fixture(folder):
        pass
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Write a tiny CLIP with its tokenizer."""
    torch.manual_seed(0)
    tokenizer = BytePairTokenizer.train(TEXTS, 300)
    sizes = {"text_width": 16, "text_depth": 1, "text_heads": 2, "picture_width": 16, "picture_depth": 1}
    config = CLIPConfig(
        embed=16, vocab=tokenizer.vocab_size, context=12, size=64, patch=32, channels=4, picture_heads=2, **sizes
    )
    part = Part(to_plain(config), CLIP(config).state_dict(), extra={TOKENIZER: tokenizer.to_json()})
    write_model(tmp_path / "tiny-clip", kind="clip", parts={"clip": part}, card=CARD)
    return tmp_path / "tiny-clip"


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(CAPTIONER_PRESETS["emoji"], context=24, width=16, text_depth=1, joint_depth=1, heads=2, embed=8)
    for module in ("captioner", "caption_pairs"):
        monkeypatch.setattr(sys.modules[f"opendalle.recipes.{module}"], "CAPTIONER_PRESETS", {"emoji": small})


def plan_of(data: Path, out: Path, clip: Path) -> SightsPlan:
    return SightsPlan(data=data, out=out, clip=clip, draws=24, scenes=0.5, seed=1)


def test_one_command_leaves_a_captioner_and_pieces_of_it_the_same(world: Path, tmp_path: Path, clip: Path) -> None:
    out = tmp_path / "whole"
    steps = list(run("captioner", data=world, out=out, clip=clip, **FEW))
    assert list(dict.fromkeys(step.stage for step in steps)) == ["base", "tuned"]
    assert {"contrast", "top1", "nats_original"} <= set(steps[0].losses)
    assert {f"nats_{kind}" for kind in KINDS} <= set(steps[-1].losses)
    assert "contrast" not in steps[-1].losses
    model = read_model(out)
    assert model.card["scores"]["held_out_pictures"] == 60 // 20
    writer = load_captioner(out)
    pictures = torch.rand(2, 4, 64, 64) * 2 - 1
    for kind in KINDS:
        assert len(writer.caption_many(pictures, kind=kind, decoding=DecodingConfig(longest=4))) == 2
    with pytest.raises(BadModel, match="a generation such as"):
        load_pipeline(out)
    with pytest.raises(BadModel, match="a captioner"):
        load_captioner(clip)
    base = load(tmp_path / "whole-base")
    assert set(base.networks) == {"original"}  # it was taught no other kind

    cut = tmp_path / "cut"
    walk = run("captioner", data=world, out=cut, clip=clip, max_minutes=1e-6, **FEW)
    count = len(list(walk))
    while not (cut / "model.json").exists():
        begun = runs_beside(cut) if any(runs_beside(cut).glob("*/run.json")) else None
        count += len(list(run("captioner", data=world, out=cut, clip=clip, resume=begun, max_minutes=1e-6, **FEW)))
    assert count == len(steps) == 4 + 3
    one, two = (read_model(place).part("captioner").state() for place in (out, cut))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_separate_fine_tunes_leave_a_network_for_each_kind(world: Path, tmp_path: Path, clip: Path) -> None:
    out = tmp_path / "three"
    list(run("captioner", data=world, out=out, clip=clip, separate=True, **FEW))
    assert set(read_model(out).parts) == {"captioner", "short", "descriptive", "pipeline"}
    writer = load_captioner(out)
    assert len({id(network) for network in writer.networks.values()}) == 3
    base = load_captioner(tmp_path / "three-base")
    for name, weight in base.networks["original"].state_dict().items():
        torch.testing.assert_close(writer.networks["original"].state_dict()[name], weight, atol=1e-3, rtol=1e-2)


def test_captions_are_those_of_the_pictures_that_were_seen(world: Path, tmp_path: Path, clip: Path) -> None:
    plan = plan_of(world, tmp_path / "m", clip)
    assert plan.look(lambda: False)
    store, eye, source = plan.open(), Eye(clip), plan.source()
    assert isinstance(source, EmojiSet)
    batch = PictureBatches(source, LoadingConfig(batch_size=24, seed=1)).batch(0)
    with torch.no_grad():
        seen = see(eye.clip, batch.pictures, "patches")
    np.testing.assert_allclose(store.array(SIGHT), seen.numpy(), atol=2e-3)
    mix = CaptionMix(kinds={"short": 0.5, "descriptive": 0.5})
    writes, manners = plan.writes(mix.kinds), set()
    for draw, truth in enumerate(batch.truths):
        for seed in range(2):
            said = writes(draw, mix, np.random.default_rng(seed))
            assert said.truth == truth
            rows = [(kind, language) for kind in KINDS for language in LANGUAGES]
            (kind, language) = next(one for one in rows if manner_of(*one) == said.manner)
            manners.add((kind, language))
            rng = np.random.default_rng(seed)
            rng.random(2)  # kind and language were drawn first
            write = subject if kind == "short" else description
            assert said.text == write(truth_of_record(truth), source.lexicon, language, rng)
    assert manners == {(kind, language) for kind in KINDS[1:] for language in LANGUAGES}


def test_batches_depend_on_their_position_alone(world: Path, tmp_path: Path, clip: Path) -> None:
    plan = plan_of(world, tmp_path / "m", clip)
    plan.look(lambda: False)
    mix = CaptionMix(kinds={"original": 1.0, "short": 1.0})
    store, tokenizer = plan.open(), Eye(clip).tokenizer
    made = [CaptionBatches(store, plan.writes(mix.kinds), tokenizer, 16, mix, 8, 3, rows=range(20)) for _ in range(2)]
    walk = made[0](0)
    in_order = [next(walk) for _ in range(6)]
    for position in (5, 2):
        again = next(made[1](position))
        assert torch.equal(again.ids, in_order[position].ids)
        assert torch.equal(again.sight, in_order[position].sight)
        assert torch.equal(again.manner, in_order[position].manner)
    seen = torch.cat([batch.sight for batch in in_order[:5]])[:20].flatten(1).half()
    kept = torch.from_numpy(store.array(SIGHT))[:20].flatten(1)
    assert sorted(seen.sum(1).tolist()) == sorted(kept.sum(1).tolist())  # an epoch: each once, none that is held out


def test_a_folder_brings_its_own_better_captions(tmp_path: Path, clip: Path) -> None:
    data = tmp_path / "pictures"
    data.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 0, 0)).save(data / f"{number}.png")
        (data / f"{number}.txt").write_text(f"IMG {number}")
    kinds = {"short": 1.0, "descriptive": 1.0}
    with pytest.raises(BadData, match=r"without short captions.*NAME\.short\.txt"):
        plan_of(data, tmp_path / "m", clip).writes(kinds)
    (data / "1.short.txt").write_text("a dark red square")
    (data / "1.descriptive.txt").write_text("一个深红色的正方形占满画面\n")
    writes = plan_of(data, tmp_path / "m", clip).writes(kinds)
    said = {writes(draw, CaptionMix(kinds=kinds), np.random.default_rng(draw)) for draw in range(40)}
    assert {(one.text, one.manner) for one in said} == {
        ("IMG 0", manner_of("original", "en")),  # pictures without a better one keep what they have
        ("IMG 2", manner_of("original", "en")),
        ("a dark red square", manner_of("short", "en")),
        ("一个深红色的正方形占满画面", manner_of("descriptive", "zh")),
    }
    steps = list(run("captioner", data=data, out=tmp_path / "m", clip=clip, **FEW))
    assert [step.stage for step in steps].count("tuned") == 3
    (data / "1.short.txt").write_bytes(b"\xff")
    with pytest.raises(BadData, match="not UTF-8"):
        plan_of(data, tmp_path / "m", clip).writes(kinds)


def test_what_cannot_be_is_refused(world: Path, tmp_path: Path, clip: Path) -> None:
    with pytest.raises(BadConfig, match="draws"):
        captioner(world, tmp_path / "m", clip=clip, draws=0)
    for wrong in ({"kinds": {"long": 1.0}}, {"kinds": {"short": 0.0}}, {"kinds": {"short": 1.0}, "languages": {}}):
        with pytest.raises(BadConfig):
            CaptionMix(**wrong)
    assert [language_of(text) for text in ("a cat", "一只猫", "cat 猫")] == ["en", "zh", "zh"]
    part = Part({}, {"a": torch.zeros(1)})
    write_model(tmp_path / "other", kind="judge", parts={"judge": part}, card=CARD)
    with pytest.raises(BadModel, match="a CLIP"):
        Eye(tmp_path / "other")
