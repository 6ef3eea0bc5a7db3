"""The recipes of the codecs that speak in words: from a picture set to a model that loads and gives pictures back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import opendalle
from opendalle.clip.features import StemFeatures
from opendalle.clip.model import CLIP, CLIPConfig
from opendalle.codec.protocol import TokenCodec
from opendalle.recipes.command import main
from opendalle.recipes.dvae import dvae
from opendalle.recipes.stage import Recipe
from opendalle.recipes.vqgan import vqgan


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        (dvae, []),
        (vqgan, ["--adversarial", "0.1"]),
        (vqgan, ["--autoencoder", "codec-emoji", "--vocabulary", "8"]),
    ],
)
def test_a_folder_of_pictures_becomes_a_codec_of_words(tmp_path: Path, recipe: Recipe, more: list[str]) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(4):
        pixels = np.random.default_rng(k).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"number {k}")
    out = tmp_path / "words"
    short = ["--data", str(folder), "--out", str(out), "--pictures", "8", "--batch-size", "4", "--threads", "1"]
    main(recipe, [*short, *more])
    codec = opendalle.load(out)
    assert isinstance(codec, TokenCodec)
    pictures = torch.rand(2, 4, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = codec.encode_tokens(pictures)
    assert tokens.shape == (2, 8, 8)
    assert codec.decode_tokens(tokens).shape == pictures.shape


def test_further_training_of_the_decoder_leaves_every_word_what_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(4):
        Image.new("RGB", (64, 64), (40 * k, 90, 200 - 40 * k)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"number {k}")
    first, second = tmp_path / "first", tmp_path / "second"
    short = ["--data", str(folder), "--pictures", "8", "--batch-size", "4", "--threads", "1", "--vocabulary", "8"]
    main(vqgan, [*short, "--out", str(first), "--autoencoder", "codec-emoji"])
    main(vqgan, [*short, "--out", str(second), "--from", str(first), "--decoder-only"])
    before, after = opendalle.load(first), opendalle.load(second)
    pictures = torch.rand(2, 4, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    words = before.encode_tokens(pictures)
    assert torch.equal(after.encode_tokens(pictures), words)
    assert not torch.equal(after.decode_tokens(words), before.decode_tokens(words))


def test_stem_features_are_the_maps_before_each_halving_and_the_last() -> None:
    torch.manual_seed(0)
    config = CLIPConfig(
        embed=8, vocab=16, context=4, size=16, patch=8, channels=4, stem=(32, 64), picture_width=16,
        picture_depth=1, picture_heads=2, text_width=16, text_depth=1, text_heads=2,
    )  # fmt: skip
    clip = CLIP(config).eval()
    features, pictures = StemFeatures(clip), torch.rand(2, 4, 16, 16) * 2 - 1
    maps = features(pictures)
    assert [one.shape[2] for one in maps] == [4, 2]
    fold, convolution = list(clip.picture.patches.children())[:2]
    torch.testing.assert_close(maps[0], convolution(fold(pictures)))
