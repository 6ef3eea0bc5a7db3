"""A world of four drawings in two styles, and a judge that compares crops with them: both exact, nothing trained."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from opendalle.data.emoji.world import World
from opendalle.evaluation.judge import Judge, JudgeConfig, Verdict
from opendalle.evaluation.judge_batches import judge_concepts

# Everyday things by the hexcodes that scenes know, each a silhouette that no other has.
THINGS = {"1F34E": ("red apple", (220, 40, 40)), "1F697": ("automobile", (40, 90, 220)),
          "1F3E0": ("house", (50, 160, 70)), "2B50": ("star", (250, 210, 50))}  # fmt: skip
STYLES = ("3d", "flat")


def silhouette(key: str, colour: tuple[int, int, int], style: str, size: int) -> Image.Image:
    """Draw one thing; the flat style has a slit, so that styles can be told apart."""
    image = Image.new("RGBA", (size, size))
    pen, s = ImageDraw.Draw(image), size / 64
    scale = [value * s for value in (6, 6, 58, 58)]
    if key == "1F34E":
        pen.ellipse(scale, fill=colour)
    elif key == "1F697":
        pen.rectangle([4 * s, 24 * s, 60 * s, 44 * s], fill=colour)
    elif key == "1F3E0":
        pen.polygon([(32 * s, 4 * s), (60 * s, 58 * s), (4 * s, 58 * s)], fill=colour)
    else:
        pen.rectangle([22 * s, 4 * s, 42 * s, 60 * s], fill=colour)
        pen.rectangle([4 * s, 22 * s, 60 * s, 42 * s], fill=colour)
    if style == "flat":
        pen.rectangle([30 * s, 28 * s, 34 * s, 40 * s], fill=tuple(value // 2 for value in colour))
    return image


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("world")
    records, sprites = [], []
    for key, (name, colour) in THINGS.items():
        rows = {}
        for style in STYLES:
            rows[style] = len(sprites)
            sprites.append(np.asarray(silhouette(key, colour, style, 64)))
            large = folder / "sprites-256" / style / f"{key}.png"
            large.parent.mkdir(parents=True, exist_ok=True)
            silhouette(key, colour, style, 256).save(large)
        records.append(
            {
                "hexcode": key,
                "family": key,
                "names": {"en": name, "zh": name},
                "keywords": {"en": [], "zh": []},
                "group": "objects",
                "subgroup": "tool",
                "rows": rows,
                "colours": {style: ["red"] for style in STYLES},
                "held_out": False,
                "held_out_styles": ["flat"] if key in ("2B50", "1F697") else [],
            }
        )
    (folder / "concepts.json").write_text(json.dumps(records))
    np.save(folder / "sprites-64.npy", np.stack(sprites))
    holdout = {"concepts": 0.0, "cells": 0.0, "object_colours": 0.1, "relation_pairs": 0.1, "count_objects": 0.1}
    manifest = {"format": 1, "styles": list(STYLES), "stamp": "test", "holdout": holdout | {"salt": "test"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return World(folder)


class ComparingJudge(Judge):
    """Names a picture by the silhouette it is most like, wherever it stands and whatever its colour."""

    def __init__(self, world: World) -> None:
        super().__init__(JudgeConfig(concepts=judge_concepts(world), styles=STYLES, widths=(4, 4), depths=(0, 0)))
        templates = [outline(rgb_on_white(world.sprite(key, "3d"))) for key in THINGS]
        self.templates = torch.stack(templates)

    def look(self, pictures: torch.Tensor, batch: int = 64) -> Verdict:
        logits = torch.full((len(pictures), len(self.config.concepts) + 1), -20.0)
        logits[:, -1] = -5.0  # what is like nothing it knows is nothing
        styles = torch.zeros(len(pictures), 2)
        for row, picture in enumerate(pictures):
            own = outline(picture)
            logits[row, : len(THINGS)] = -40 * (self.templates - own).abs().mean(dim=(1, 2))
            middle = picture[:, picture.shape[1] // 2, picture.shape[2] // 2]
            edge = picture[:, picture.shape[1] // 2, int(picture.shape[2] * 0.59)]
            styles[row, 1] = 40 * ((middle - edge).abs().mean() - 0.1)
        features = torch.cat([logits[:, : len(THINGS)], styles], dim=1)
        return Verdict(logits, styles, features)


def rgb_on_white(sprite: np.ndarray) -> torch.Tensor:
    values = torch.from_numpy(sprite.astype(np.float32) / 255)
    return (values[..., :3] * values[..., 3:] + 1 - values[..., 3:]).permute(2, 0, 1) * 2 - 1


def outline(picture: torch.Tensor) -> torch.Tensor:
    """Where a picture differs from its corner, stretched over 16x16."""
    mask = ((picture - picture[:, :1, :1]).abs().amax(dim=0) > 0.2).float()
    rows, columns = mask.amax(dim=1).nonzero().flatten(), mask.amax(dim=0).nonzero().flatten()
    if len(rows) == 0:
        return torch.zeros(16, 16)
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = box.shape
    side = max(height, width)  # keep the proportions: a bar is not a square
    square = torch.zeros(side, side)
    square[(side - height) // 2 : (side - height) // 2 + height, (side - width) // 2 : (side - width) // 2 + width] = (
        box
    )
    return torch.nn.functional.interpolate(square[None, None], (16, 16), mode="area")[0, 0]


@pytest.fixture(scope="session")
def comparing_judge(world: World) -> ComparingJudge:
    return ComparingJudge(world)
