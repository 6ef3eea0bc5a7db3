"""CLIP against another library's on random weights, against the papers' sizes, and its doors."""

import dataclasses
import json
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from transformers import CLIPConfig as TheirConfig
from transformers import CLIPModel

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.clip import CLIP, PRESETS, CLIPConfig

TINY = CLIPConfig(
    embed=24,
    vocab=99,
    context=11,
    text_width=32,
    text_depth=2,
    text_heads=4,
    size=24,
    patch=8,
    channels=3,
    picture_width=40,
    picture_depth=3,
    picture_heads=2,
    activation="quick_gelu",
    pixel_mean=(0.48, 0.46, 0.41),
    pixel_std=(0.27, 0.26, 0.28),
)


def packed(lengths: list[int], context: int = 11, end: int = 98) -> tuple[torch.Tensor, torch.Tensor]:
    """Random captions of the given lengths, end token last."""
    ids = torch.randint(3, end, (len(lengths), context), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(context) < torch.tensor(lengths)[:, None]
    ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = end
    return ids * mask, mask


def from_theirs(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Map that library's names to ours; its query, key and value projections become one."""
    ours = {
        "log_scale": theirs["logit_scale"],
        "text.tokens.weight": theirs["text_model.embeddings.token_embedding.weight"],
        "text.positions.table": theirs["text_model.embeddings.position_embedding.weight"],
        "text.project.weight": theirs["text_projection.weight"],
        "picture.class_token": theirs["vision_model.embeddings.class_embedding"],
        "picture.positions.table": theirs["vision_model.embeddings.position_embedding.weight"],
        "picture.patches.weight": theirs["vision_model.embeddings.patch_embedding.weight"].flatten(1),
        "picture.project.weight": theirs["visual_projection.weight"],
    }
    for end in ("weight", "bias"):
        ours[f"text.transformer.norm.{end}"] = theirs[f"text_model.final_layer_norm.{end}"]
        ours[f"picture.norm_in.{end}"] = theirs[f"vision_model.pre_layrnorm.{end}"]
        ours[f"picture.norm_out.{end}"] = theirs[f"vision_model.post_layernorm.{end}"]
        for tower, model, depth in (("text", "text_model", 2), ("picture", "vision_model", 3)):
            for layer in range(depth):
                block, layer_name = f"{tower}.transformer.blocks.{layer}", f"{model}.encoder.layers.{layer}"
                parts = [theirs[f"{layer_name}.self_attn.{which}_proj.{end}"] for which in "qkv"]
                ours[f"{block}.attention.qkv.{end}"] = torch.cat(parts)
                ours[f"{block}.attention.out.{end}"] = theirs[f"{layer_name}.self_attn.out_proj.{end}"]
                ours[f"{block}.norm1.{end}"] = theirs[f"{layer_name}.layer_norm1.{end}"]
                ours[f"{block}.norm2.{end}"] = theirs[f"{layer_name}.layer_norm2.{end}"]
                ours[f"{block}.mlp.up.{end}"] = theirs[f"{layer_name}.mlp.fc1.{end}"]
                ours[f"{block}.mlp.down.{end}"] = theirs[f"{layer_name}.mlp.fc2.{end}"]
    return ours


def test_equals_another_library_on_the_same_random_weights() -> None:
    torch.manual_seed(0)
    shared = {"hidden_act": "quick_gelu", "initializer_factor": 4.0}
    theirs = CLIPModel(
        TheirConfig(
            text_config=shared
            | {
                "vocab_size": 99,
                "hidden_size": 32,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "max_position_embeddings": 11,
                "eos_token_id": 98,
            },
            vision_config=shared
            | {
                "hidden_size": 40,
                "intermediate_size": 160,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 24,
                "patch_size": 8,
            },
            projection_dim=24,
        )
    ).eval()
    ours = CLIP(TINY).eval()
    ours.load_state_dict(from_theirs(theirs.state_dict()), strict=True)
    ids, mask = packed([11, 3, 6, 2])
    pictures = torch.rand(4, 3, 24, 24) * 2 - 1
    mean, std = torch.tensor(TINY.pixel_mean)[:, None, None], torch.tensor(TINY.pixel_std)[:, None, None]
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=mask.long(), pixel_values=((pictures + 1) / 2 - mean) / std)
        text, picture = ours.encode_text(ids, mask), ours.encode_pictures(pictures)
        raw = ours.encode_pictures(pictures, unit=False)
        logits = ours.scale * picture @ text.pooled.T
    torch.testing.assert_close(text.pooled, wanted.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(picture, wanted.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(raw / raw.norm(dim=-1, keepdim=True), picture, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits, wanted.logits_per_image, atol=1e-4, rtol=0)  # the scale is 14
    states = wanted.text_model_output.last_hidden_state
    torch.testing.assert_close(text.states[mask], states[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("preset", "text", "picture"),
    [("vit-l-14", 123_650_304, 303_966_208), ("paper", 354_032_640, 632_307_200)],
)
def test_presets_have_the_papers_sizes(preset: str, text: int, picture: int) -> None:
    with torch.device("meta"):
        clip = CLIP(PRESETS[preset])
    assert sum(p.numel() for p in clip.text.parameters()) == text
    assert sum(p.numel() for p in clip.picture.parameters()) == picture
    assert sum(p.numel() for p in clip.parameters()) == text + picture + 1  # and the scale


def test_openai_count() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in CLIP(PRESETS["vit-l-14"]).parameters()) == 427_616_513


def test_emoji_preset_is_small() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in CLIP(PRESETS["emoji"]).parameters()) < 12_000_000


def test_padding_and_what_follows_the_end_change_nothing() -> None:
    clip = CLIP(TINY).eval()
    ids, mask = packed([5, 7])
    with torch.no_grad():
        whole = clip.encode_text(ids, mask)
        short = clip.encode_text(ids[:, :7], mask[:, :7])
        rubbish = clip.encode_text(torch.where(mask, ids, 50), mask)
    torch.testing.assert_close(short.pooled, whole.pooled, atol=1e-6, rtol=0)
    torch.testing.assert_close(short.states, whole.states[:, :7], atol=2e-6, rtol=0)  # unit variance, not unit length
    torch.testing.assert_close(rubbish.pooled, whole.pooled, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("pool", "channels"), [("mean", 4), ("class", 4), ("mean", 3)])
def test_every_parameter_learns(pool: str, channels: int) -> None:
    config = dataclasses.replace(TINY, pool=pool, channels=channels, pixel_mean=(), pixel_std=())
    clip = CLIP(config)
    ids, mask = packed([11, 4])
    similarity = clip.encode_pictures(torch.randn(2, channels, 24, 24)) @ clip.encode_text(ids, mask).pooled.T
    (clip.scale * similarity[0, 1]).backward()
    assert all(p.grad is not None for p in clip.parameters())


def test_config_comes_back_from_json() -> None:
    assert CLIPConfig(**json.loads(json.dumps(dataclasses.asdict(TINY)))) == TINY


def test_scale_is_bounded() -> None:
    clip = CLIP(TINY)
    assert clip.scale.item() == pytest.approx(1 / 0.07)
    clip.log_scale.data.fill_(9.0)
    assert clip.scale.item() == 100.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"embed": 0},
        {"vocab": 0},
        {"context": 1},
        {"patch": 7},
        {"channels": 1},
        {"pool": "max"},
        {"text_heads": 5},
        {"picture_width": 41},
        {"eps": 0.0},
        {"pixel_std": (0.0, 1.0, 1.0)},
        {"pixel_mean": ()},
    ],
)
def test_a_bad_config_is_told(wrong: dict) -> None:
    with pytest.raises((BadConfig, TypeCheckError)):  # the shape hook is quicker with closed sets of words
        dataclasses.replace(TINY, **wrong)


def test_wrong_inputs_are_told() -> None:
    clip = CLIP(TINY)
    with pytest.raises(BadRequest, match="3 x 24 x 24"):
        clip.encode_pictures(torch.zeros(1, 4, 24, 24))
    with pytest.raises(BadRequest, match="at most 11"):
        clip.encode_text(torch.zeros(1, 12, dtype=torch.int64), torch.ones(1, 12, dtype=torch.bool))


STEMMED = dataclasses.replace(TINY, stem=(32, 64), pool="mean")


def test_a_convolutional_stem_gives_one_token_a_patch_row_by_row() -> None:
    torch.manual_seed(0)
    stem: Any = CLIP(dataclasses.replace(STEMMED, stem=(32,))).picture.patches
    x = torch.randn(2, 3, 24, 24)
    folded = torch.nn.functional.pixel_unshuffle(x, 8)
    grid = torch.nn.functional.conv2d(folded, stem[1].weight, stem[1].bias, padding=1)
    grid = torch.nn.functional.silu(torch.nn.functional.group_norm(grid, 32, stem[2].weight, stem[2].bias))
    tokens = stem(x)
    assert tokens.shape == (2, 9, 40)
    for row in range(3):
        for column in range(3):
            wanted = grid[:, :, row, column] @ stem[4].weight[:, :, 0, 0].T + stem[4].bias
            torch.testing.assert_close(tokens[:, 3 * row + column], wanted, atol=1e-5, rtol=0)


def test_a_stem_halves_the_grid_between_its_widths_and_learns() -> None:
    torch.manual_seed(0)
    clip = CLIP(CLIPConfig(**json.loads(json.dumps(dataclasses.asdict(STEMMED)))))
    assert clip.config == STEMMED
    x = torch.randn(2, 3, 24, 24)
    assert clip.picture.patches(x).shape == (2, 9, 40)
    clip.encode_pictures(x).square().mul(torch.arange(24)).sum().backward()
    assert all(one.grad is not None for one in clip.picture.patches.parameters())


@pytest.mark.parametrize("stem", [(30,), (32, 32, 32, 32, 32), (0,)])
def test_a_stem_that_does_not_fit_is_refused(stem: tuple[int, ...]) -> None:
    with pytest.raises(BadConfig, match="stem"):
        dataclasses.replace(TINY, stem=stem)
