"""DALL·E 3's last stage: pairs of any shape with every caption, blends, kept states, and a folder that loads."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opendalle.base.errors import BadConfig
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import Part, read_model, write_model
from opendalle.codec.identity import IdentityCodec, IdentityCodecConfig
from opendalle.dalle3.denoiser import DenoiserConfig
from opendalle.dalle3.pipeline import Dalle3
from opendalle.dalle3.text_encoder import TextEncoder, TextEncoderConfig
from opendalle.dalle3.transformer import LatentTransformerConfig
from opendalle.data.blending import OWN, BlendingConfig
from opendalle.data.embeddings import EmbeddingStore, Ragged, join_rows, write_store
from opendalle.data.emoji.dataset import EmojiSet
from opendalle.data.emoji.fixture import build_fixture
from opendalle.data.emoji.oracle import Oracle
from opendalle.data.loading import batch_of
from opendalle.data.sets import Example
from opendalle.data.voices import VoicedSet
from opendalle.pretrained.kinds import TOKENIZER, load_pipeline
from opendalle.recipes import run
from opendalle.recipes.dalle3 import ORACLE, dalle3
from opendalle.recipes.grid_pairs import GridBatches, StoredCaptions, encode_grids
from opendalle.tokenizers import ByteTokenizer

CARD = {"data": "none", "recipe": "by hand", "licence": "none"}
SHAPES = [(2, 2), (2, 4)]


def siblings(folder: Path) -> dict[str, Path]:
    """Write a text encoder and a codec, tiny."""
    torch.manual_seed(0)
    text_config = TextEncoderConfig(vocabulary=384, width=8, depth=1, heads=2, head_width=4, hidden=8)
    codec_config = IdentityCodecConfig(picture_size=64, picture_channels=4)
    text, codec = TextEncoder(text_config), IdentityCodec(codec_config)
    extra = {TOKENIZER: ByteTokenizer().to_json()}
    parts = {
        "text": ("text-encoder", Part(to_plain(text_config), text.state_dict(), extra=extra)),
        "codec": ("codec-identity", Part(to_plain(codec_config), codec.state_dict())),
    }
    for role, (kind, part) in parts.items():
        write_model(folder / f"tiny-{role}", kind=kind, parts={role: part}, card=CARD)
    return {role: folder / f"tiny-{role}" for role in parts}


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    body = LatentTransformerConfig(channels=4, text_width=8, patch=16, width=16, depth=1, heads=2, shares_keys=True)
    presets = {"emoji": DenoiserConfig(transformer=body)}
    monkeypatch.setattr(sys.modules["opendalle.recipes.dalle3"], "DENOISER_PRESETS", presets)


class Doubling:
    """Stand in for a codec: every second pixel."""

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures[:, :, ::2, ::2]


class HasDoubling:
    codec: Any = Doubling()


def example(number: int, shape: tuple[int, int]) -> Example:
    picture = np.full((shape[0] * 2, shape[1] * 2, 4), number, dtype=np.uint8)
    picture[..., 3] = 255
    others = {"descriptive/en": f"a long {number} 长"} if number % 3 else {}
    return Example(picture=picture, caption="" if number == 1 else f"own {number}", others=others)


def example_store(place: Path, count: int = 12) -> EmbeddingStore:
    """Twelve grids, every third of them wide."""
    pieces = []
    for first in range(0, count, 3):
        for shape, numbers in ((SHAPES[0], (first, first + 1)), (SHAPES[1], (first + 2,))):
            batch = batch_of([example(number, shape) for number in numbers], 4, 0)
            pieces.append(encode_grids(batch, HasDoubling(), voices=["descriptive/en"]))
    write_store(place, [join_rows(pieces[:3]), join_rows(pieces[3:])], stamps={})
    return EmbeddingStore(place, stamps={})


def texts(batch: Any) -> list[str]:
    kept = zip(batch.captions.ids, batch.captions.mask, strict=True)
    return [ByteTokenizer().decode(ids[mask].tolist()) for ids, mask in kept]


def test_grids_of_two_shapes_and_all_captions_come_back(tmp_path: Path) -> None:
    store = example_store(tmp_path / "store")
    said = StoredCaptions(store)
    assert set(said.voices) == {OWN, "descriptive/en"}
    assert (said.kinds, said.languages) == (("descriptive",), ("en",))
    for row in range(12):
        told = example(row, SHAPES[row % 3 == 2])
        assert said.text(row, OWN) == told.caption
        assert said.text(row, "descriptive/en") == told.others.get("descriptive/en", "")
        assert said.all()[said.number(row, "descriptive/en")] == told.others.get("descriptive/en", "")
    batches = GridBatches(store, ByteTokenizer(), 20, 2, seed=1)
    seen = set()
    for position in range(40):
        batch = batches.batch(position)
        shape = tuple(batch.grid.shape[2:])
        rows = [round((float(one[0, 0, 0]) + 1) * 127.5) for one in batch.grid]
        assert all(SHAPES[row % 3 == 2] == shape for row in rows)
        assert texts(batch) == [said.text(row, OWN) or said.text(row, "descriptive/en") for row in rows]
        assert batch.shares["grid 2x2"] == (shape == SHAPES[0])
        seen |= set(rows)
    assert seen == set(range(12))
    assert batches.shares == pytest.approx({"grid 2x2": 2 / 3, "grid 4x2": 1 / 3}, abs=1e-3)


def test_batches_are_a_function_of_seed_and_position_and_the_blend_is_kept(tmp_path: Path) -> None:
    store = example_store(tmp_path / "store")
    asked = {"blending": BlendingConfig(share=0.5)}
    batches = GridBatches(store, ByteTokenizer(), 20, 4, 1, **asked)
    feed: Iterator[Any] = GridBatches(store, ByteTokenizer(), 20, 4, 1, **asked)(30)
    for position in range(30, 36):
        one, other = next(feed), batches.batch(position)
        assert torch.equal(one.grid, other.grid)
        assert texts(one) == texts(other)
        assert one.shares == other.shares
    anew = np.mean([batches.batch(position).shares["written anew"] for position in range(300)])
    # Rows 0, 3, ... have no other caption, row 1 no own one: (7 x 0.5 + 1) of 12.
    assert abs(anew - 4.5 / 12) < 0.05
    other = GridBatches(store, ByteTokenizer(), 20, 4, 2, **asked)
    assert [texts(other.batch(position)) for position in range(5)] != [
        texts(batches.batch(position)) for position in range(5)
    ]


def test_a_voiced_set_tells_all_that_a_source_knows(tmp_path: Path) -> None:
    for _ in build_fixture(tmp_path / "world"):
        pass
    pictures = EmojiSet(str(tmp_path / "world"))
    voiced = VoicedSet(pictures, Oracle(pictures.lexicon))
    one = voiced.read(0, np.random.default_rng(4))
    plain = pictures.read(0, np.random.default_rng(4))
    assert one.caption == plain.caption
    assert np.array_equal(one.picture, plain.picture)
    assert set(one.others) == {"short/en", "short/zh", "descriptive/en", "descriptive/zh"}
    assert len(one.others["descriptive/en"]) > len(one.others["short/en"])


def world_of(tmp_path: Path) -> Path:
    for _ in build_fixture(tmp_path / "world"):
        pass
    return tmp_path / "world"


@pytest.mark.parametrize("keep_states", [False, True])
def test_the_denoiser_is_trained_and_its_folder_loads(
    tmp_path: Path, tiny_preset: None, monkeypatch: pytest.MonkeyPatch, keep_states: bool
) -> None:
    places = siblings(tmp_path)
    asked: dict[str, Any] = {
        "data": world_of(tmp_path),
        **places,
        "captions": ORACLE,
        "shapes": "square=2,wide=1,tall=1",
        "pairs": 16,
        "pictures": 24,
        "batch_size": 8,
        "copies": 2,
        "keep_states": keep_states,
        "context": 48,
    }
    monkeypatch.setattr(sys.modules["opendalle.recipes.data"], "PIECE", 4)
    steps = list(run("dalle3", out=tmp_path / "dalle3", **asked))
    assert steps[-1].pictures == 24
    assert {"denoiser", "simple", "hidden", "written anew"} <= set(steps[-1].losses)
    model = read_model(tmp_path / "dalle3")
    assert model.kind == "dalle3"
    assert sum(model.card["recipe"]["shapes"].values()) == pytest.approx(1.0)
    dalle = load_pipeline(tmp_path / "dalle3")
    assert isinstance(dalle, Dalle3)
    assert dalle.config.context == 48
    trained = {f"grid {columns}x{rows}" for rows, columns in ((64, 64), *dalle.config.shapes)}
    assert trained == set(model.card["recipe"]["shapes"])
    assert dalle.config.shapes
    for rows, columns in dalle.config.shapes:
        (sample,) = dalle.generate("a red apple", width=columns, height=rows, steps=2)
        assert sample.picture.size == (columns, rows)
        assert "made" not in sample.recipe  # drawn as such


def test_a_resumed_run_is_the_run_in_one_piece(tmp_path: Path, tiny_preset: None) -> None:
    places, folder = siblings(tmp_path), tmp_path / "pictures"
    folder.mkdir()
    for number, size in enumerate([(64, 64), (112, 64), (70, 64), (64, 112), (50, 50), (224, 128)]):
        Image.new("RGB", size, (40 * number, 90, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
    asked: dict[str, Any] = {"data": folder, **places, "shapes": "own", "pairs": 6, "pictures": 20, "batch_size": 4}
    asked |= {"copies": 2, "context": 16}
    list(run("dalle3", out=tmp_path / "whole", **asked))
    feed = run("dalle3", out=tmp_path / "cut", max_minutes=1e-9, **asked)
    assert len(list(feed)) == 1
    assert not (tmp_path / "cut").exists()
    list(run("dalle3", out=tmp_path / "cut", resume=tmp_path / "cut.runs", **asked))
    whole, cut = (read_model(tmp_path / name).part("denoiser").state() for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize(
    "bad", [{"pairs": 0}, {"preset": "huge"}, {"shapes": "round"}, {"blend": 2.0}, {"shapes": "square=much"}]
)
def test_wrong_settings_are_refused(tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        dalle3(tmp_path, tmp_path / "out", text=tmp_path, codec=tmp_path, **bad)


def test_ragged_rows_join() -> None:
    one, other = Ragged.of([np.zeros((2, 3)), np.ones((1, 3))]), Ragged.of([np.ones((4, 3))])
    joined = join_rows([{"a": one, "b": np.zeros((2, 1))}, {"a": other, "b": np.ones((1, 1))}])
    assert isinstance(joined["a"], Ragged)
    assert joined["a"].lengths.tolist() == [2, 1, 4]
    assert joined["a"].values.shape == (7, 3)
    assert isinstance(joined["b"], np.ndarray)
    assert joined["b"].shape == (3, 1)
