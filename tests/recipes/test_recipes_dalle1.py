"""DALL·E 1's recipe: pairs as tokens, captions spelled anew, and a folder that draws."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from opendalle.base.errors import BadConfig, BadModel
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import Part, read_model, write_model
from opendalle.clip.model import CLIP, CLIPConfig
from opendalle.codec.dvae import DiscreteVAE, DiscreteVAEConfig
from opendalle.codec.identity import IdentityCodec, IdentityCodecConfig
from opendalle.dalle1.transformer import DALLE1_PRESETS
from opendalle.data.embeddings import EmbeddingStore, write_store
from opendalle.data.emoji.fixture import build_fixture
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.pretrained.kinds import TOKENIZER, load, load_pipeline
from opendalle.recipes import run
from opendalle.recipes.dalle1 import dalle1, siblings_of
from opendalle.recipes.places import runs_beside
from opendalle.recipes.word_pairs import WordBatches, WordEncoders, WordPairsPlan
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.upsampling.network import Upsampler, UpsamplerConfig

CARD = {"data": "none", "recipe": "by hand", "licence": "none"}
TEXTS = ["a red apple on a blue ground", "an apple", "a heart beside a star"] * 4


def siblings(folder: Path) -> dict[str, Path]:
    """Write a CLIP with its tokenizer, a codec of words, an upsampler and an upscaler, all tiny."""
    torch.manual_seed(0)
    tokenizer = BytePairTokenizer.train(TEXTS, 300)
    clip_config = CLIPConfig(
        embed=16,
        vocab=tokenizer.vocab_size,
        context=12,
        text_width=16,
        text_depth=1,
        text_heads=2,
        size=32,
        patch=16,
        channels=4,
        picture_width=16,
        picture_depth=1,
        picture_heads=2,
    )
    codec_config = DiscreteVAEConfig(
        picture_size=64, picture_channels=4, vocabulary=19, width=8, code_width=8, blocks=1, patch=2
    )
    unet = UNetConfig(
        in_channels=8,
        out_channels=4,
        levels=(UNetLevel(width=32, num_blocks=1),),
        time_width=32,
        patch=8,
        middle="none",
    )
    upsampler_config = UpsamplerConfig(picture_channels=4, factor=4, unet=unet)
    clip, codec, upsampler = CLIP(clip_config), DiscreteVAE(codec_config), Upsampler(upsampler_config)
    extra = {TOKENIZER: tokenizer.to_json()}
    parts = {
        "clip": Part(to_plain(clip_config), clip.state_dict(), extra=extra),
        "codec": Part(to_plain(codec_config), codec.state_dict()),
        "upsampler": Part(to_plain(upsampler_config), upsampler.state_dict()),
        "upscaler": Part(to_plain(upsampler_config), upsampler.state_dict()),
    }
    kinds = {"clip": "clip", "codec": "codec-dvae"}
    for role, part in parts.items():
        write_model(folder / f"tiny-{role}", kind=kinds.get(role, "upsampler"), parts={role: part}, card=CARD)
    return {role: folder / f"tiny-{role}" for role in parts}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    for _ in build_fixture(tmp_path / "world"):
        pass
    return tmp_path / "world"


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    small = replace(DALLE1_PRESETS["emoji"], num_text=8, width=32, depth=3, heads=2)
    monkeypatch.setattr(sys.modules["opendalle.recipes.dalle1"], "DALLE1_PRESETS", {"emoji": small})


def test_from_pictures_to_a_model_that_draws_in_one_command(world: Path, tmp_path: Path, tiny_preset: None) -> None:
    places, out = siblings(tmp_path), tmp_path / "dalle1"
    few = {"pairs": 64, "pictures": 192, "batch_size": 16}
    steps = list(run("dalle1", data=world, out=out, show_every=192, **places, **few))
    assert {step.stage for step in steps} == {"transformer"}
    assert {"text_perplexity", "picture_perplexity"} <= set(steps[-1].losses)
    assert steps[-1].losses["picture_perplexity"] < steps[0].losses["picture_perplexity"] <= 25
    assert list((runs_beside(out) / "transformer" / "samples").glob("*.png"))
    scores = read_model(out).card["scores"]
    assert scores["held_out_pairs"] == 64 // 20
    assert scores["picture_perplexity"] == pytest.approx(np.exp(scores["picture_nats"]), rel=1e-2)
    dalle = load_pipeline(out)
    assert dalle.sizes == (64, 256)
    assert [(one.base, len(one.grid)) for one in dalle.words.stages] == [(64, 2), (256, 1)]
    (sample,) = dalle.generate("a red apple", seed=3)
    assert sample.picture.size == (256, 256)
    assert sample.recipe["model"] == "dalle1"
    assert siblings_of(out) == places
    assert load(out).parts.transformer.config.num_text == 8


def test_pairs_are_the_codecs_words_and_the_tokenizers_tokens(world: Path, tmp_path: Path) -> None:
    places = siblings(tmp_path)
    plan = WordPairsPlan(
        data=world, out=tmp_path / "m", places=places, pairs=40, scenes=0.0, styles=None, seed=1, num_text=6
    )
    assert plan.encode(lambda: False)
    encoders, store = plan.open_words()
    assert len(store) == 40
    assert store.arrays["tokens"].dtype == "int16"
    batch = next(WordBatches(store, encoders.tokenizer, 8, 0)(3))
    assert batch.tokens.shape == (8, 16)
    assert int(batch.tokens.max()) < 19
    from opendalle.data.loading import LoadingConfig, PictureBatches
    from opendalle.recipes.data import open_set

    seen = PictureBatches(open_set(world, 64, 0.0), LoadingConfig(batch_size=40, seed=1)).batch(0)
    with torch.no_grad():
        words = encoders.codec.encode_tokens(seen.pictures).flatten(1)
    assert np.array_equal(store.array("tokens"), words.numpy())
    for row, caption in enumerate(seen.captions):
        wanted = encoders.tokenizer.encode(caption)[:6]
        assert store.row("ids", row).tolist() == wanted + [0] * (6 - len(wanted))
        assert store.row("length", row) == len(wanted)


def test_captions_are_spelled_anew_and_say_the_same(tmp_path: Path) -> None:
    tokenizer = BytePairTokenizer.train(TEXTS, 300)
    ids, length = np.zeros((2, 40), dtype=np.int32), np.zeros(2, dtype=np.int32)
    texts = ["a red apple on a blue ground", "a star"]
    for row, text in enumerate(texts):
        said = tokenizer.encode(text)
        ids[row, : len(said)], length[row] = said, len(said)
    rows = {"tokens": np.arange(8, dtype=np.int16).reshape(2, 4), "ids": ids, "length": length}
    write_store(tmp_path / "store", [rows], stamps={})
    store = EmbeddingStore(tmp_path / "store", stamps={})
    plain, spelled = (WordBatches(store, tokenizer, 2, 0, dropout=drop) for drop in (0.0, 0.5))
    lengths = set()
    for position in range(6):
        one, other = next(plain(position)), next(spelled(position))
        assert torch.equal(one.tokens, other.tokens)  # the order is the same
        for row in range(2):
            said = tokenizer.decode(other.ids[row, : other.length[row]].tolist())
            assert said == tokenizer.decode(one.ids[row, : one.length[row]].tolist())
            assert said in texts
        assert (other.length >= one.length).all()
        lengths.add(tuple(other.length.tolist()))
        again = next(spelled(position))
        assert torch.equal(again.ids, other.ids)
    assert len(lengths) > 1
    with pytest.raises(BadConfig, match="dropout"):
        WordBatches(store, tokenizer, 2, 0, dropout=1.0)


def test_a_cut_caption_is_left_as_it_is(tmp_path: Path) -> None:
    """One that ends within a character cannot be spelled anew."""
    tokenizer = BytePairTokenizer.train(TEXTS, 300)
    said = tokenizer.encode("红")[:-1]
    rows = {
        "tokens": np.zeros((1, 4), dtype=np.int16),
        "ids": np.array([said], dtype=np.int32),
        "length": np.array([len(said)], dtype=np.int32),
    }
    write_store(tmp_path / "store", [rows], stamps={})
    batches = WordBatches(EmbeddingStore(tmp_path / "store", stamps={}), tokenizer, 1, 0, dropout=0.9)
    assert next(batches(0)).ids[0].tolist() == said


def test_what_is_missing_is_trained_first(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    names = [stage.name for stage in dalle1(world, out, codec_kind="dvae")]
    assert names == ["clip", "dvae", "upsampler", "transformer"]
    names = [stage.name for stage in dalle1(world, out)]
    assert names == ["clip", "vqgan", "upsampler", "transformer"]
    places = siblings(tmp_path)
    assert [stage.name for stage in dalle1(world, out, **places)] == ["transformer"]
    with pytest.raises(BadConfig, match="codec_kind"):
        dalle1(world, out, codec_kind="kl")
    with pytest.raises(BadConfig, match="pairs"):
        dalle1(world, out, pairs=0)


def test_an_upscaler_is_named_if_given_or_inherited_from_either_generation_and_none_is_trained(
    world: Path, tmp_path: Path
) -> None:
    places = siblings(tmp_path)
    named = {role: read_model(place).reference for role, place in places.items()}

    def like(kind: str, **roles: str) -> Path:
        head = Part({"siblings": {role: named[theirs] for role, theirs in roles.items()}, "settings": {}})
        return write_model(tmp_path / f"{kind}-{len(roles)}", kind=kind, parts={"pipeline": head}, card=CARD).path

    def stages(**given: Path) -> tuple[list[str], dict[str, Path]]:
        found = dalle1(world, tmp_path / "out", **given)  # type: ignore[arg-type]
        return [one.name for one in found], found[-1].build.__self__.places  # type: ignore[union-attr]

    both = {"clip": "clip", "upsampler": "upsampler"}
    one, two = like("dalle1", words="codec", upscaler="upscaler", **both), like("dalle2", upscaler="upscaler", **both)
    assert stages(like=one) == (["transformer"], places)
    assert stages(like=two, codec=places["codec"]) == (["transformer"], places)
    bare = {role: place for role, place in places.items() if role != "upscaler"}
    assert stages(like=like("dalle1", words="codec", **both)) == (["transformer"], bare)
    assert stages(like=like("dalle2", **both), codec=places["codec"], upscaler=tmp_path / "mine") == (
        ["transformer"],
        bare | {"upscaler": tmp_path / "mine"},
    )


def test_a_codec_without_words_is_refused(tmp_path: Path) -> None:
    places, config = siblings(tmp_path), IdentityCodecConfig(picture_size=8)
    part = Part(to_plain(config), IdentityCodec(config).state_dict())
    write_model(tmp_path / "grid", kind="codec-identity", parts={"codec": part}, card=CARD)
    with pytest.raises(BadModel, match="speaks in words"):
        WordEncoders(places | {"codec": tmp_path / "grid"})
    with pytest.raises(BadModel, match="a DALL·E 1 or 2"):
        siblings_of(places["clip"])
