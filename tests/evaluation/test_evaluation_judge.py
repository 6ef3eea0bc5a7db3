"""The judge: what it costs, what it keeps apart, how it learns; and the wash it learns in."""

from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from opendalle.base.errors import BadConfig, BadData, BadPicture
from opendalle.data.emoji.lexicon import everyday_nouns
from opendalle.data.emoji.painting import SHAPES
from opendalle.evaluation import spoiling
from opendalle.evaluation.judge import (
    NONE,
    Judge,
    JudgeConfig,
    Verdict,
    fit_temperature,
    judge_emoji,
    judge_emoji_256,
)  # fmt: skip
from opendalle.evaluation.judge_batches import (
    MARGIN,
    JudgeBatches,
    JudgeBatchesConfig,
    cut_out,
    premultiplied,
    scene_vocabulary,
)
from opendalle.evaluation.judge_objective import JudgeBatch, JudgeObjective, JudgeObjectiveConfig, sharpness_wash

CONCEPTS = tuple(f"concept {index}" for index in range(1_500))
STYLES = ("3d", "flat", "noto", "twemoji")
TINY = JudgeConfig(concepts=("circle", "square", "bar"), styles=("a", "b"), size=32, widths=(16, 32), depths=(1, 1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("preset", "most"), [(judge_emoji, 60e6), (judge_emoji_256, 100e6)])
def test_presets_keep_their_budget(preset, most: float):
    judge = Judge(preset(CONCEPTS, STYLES))
    num_parameters = sum(parameter.numel() for parameter in judge.parameters())
    assert 1.5e6 < num_parameters < 2.5e6
    products = []

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        products.append(
            output.numel() * cast(torch.Tensor, module.weight)[0].numel()
        )  # each output is a sum of as many products

    for module in judge.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    judge.look(torch.zeros(1, 3, judge.config.size, judge.config.size))
    assert most / 3 < sum(products) < most


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = Judge(TINY), Judge(TINY), Judge(TINY, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.concept.weight, other.concept.weight)


def test_look_equals_forward_in_any_batch_and_resizes():
    judge = Judge(TINY)
    pictures = torch.rand(5, 3, 32, 32, generator=generator()) * 2 - 1
    whole, looked = judge(pictures), judge.look(pictures, batch=2)
    assert torch.allclose(whole.concept, looked.concept, atol=1e-5)
    large = torch.nn.functional.interpolate(pictures, (64, 64), mode="bicubic")
    assert judge.look(large).features.shape == whole.features.shape
    with pytest.raises(BadPicture, match="32x32"):
        judge(large)


def test_names_come_best_first_and_may_say_none():
    judge = Judge(TINY)
    verdict = Verdict(torch.tensor([[0.0, 3.0, 1.0, 2.0]]), torch.zeros(1, 2), torch.zeros(1, 32))
    assert judge.name(verdict, 3) == [["square", NONE, "bar"]]


def test_part_goes_there_and_back():
    judge = Judge(TINY)
    part = judge.part("float32")
    as_json = {key: list(value) if isinstance(value, tuple) else value for key, value in part.config.items()}
    back = Judge.from_part(as_json, part.state)
    pictures = torch.rand(2, 3, 32, 32, generator=generator()) * 2 - 1
    assert torch.equal(judge.look(pictures).concept, back.look(pictures).concept)
    with pytest.raises(RuntimeError):
        Judge.from_part(as_json, {"concept.weight": part.state["concept.weight"]})


@pytest.mark.parametrize(
    "wrong",
    [{"concepts": ()}, {"concepts": ("a", "a")}, {"concepts": (NONE,)}, {"size": 30}, {"kernel": 4}, {"depths": (1,)}],
)
def test_bad_configs_are_refused(wrong: dict):
    with pytest.raises(BadConfig):
        JudgeConfig(**({"concepts": ("a",), "styles": ("s",)} | wrong))


def test_temperature_is_found_again():
    logits = torch.randn(4_000, 10, generator=generator()) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator(1)).flatten()
    assert fit_temperature(logits, labels) == pytest.approx(1.0, abs=0.06)
    assert fit_temperature(logits * 3, labels) == pytest.approx(3.0, rel=0.06)


def test_calibration_is_stored_and_applied():
    judge = Judge(TINY)
    verdict = Verdict(torch.randn(50, 4, generator=generator()) * 9, torch.randn(50, 2), torch.zeros(50, 32))
    pictures = torch.zeros(1, 3, 32, 32)
    before = judge.look(pictures).concept
    concept, _ = judge.calibrate(verdict, torch.arange(50) % 3, torch.arange(50) % 2).tolist()
    assert torch.allclose(judge.look(pictures).concept, before / concept)


def toy_batch(num: int, seed: int) -> JudgeBatch:
    """Circles, squares and bars of any colour; style b has a dark middle."""
    draw = generator(seed)
    concept, style = torch.randint(3, (num,), generator=draw), torch.randint(2, (num,), generator=draw)
    across = torch.linspace(-1, 1, 32)
    y, x = torch.meshgrid(across, across, indexing="ij")
    shapes = torch.stack([x**2 + y**2 < 0.5, (x.abs() < 0.6) & (y.abs() < 0.6), (x.abs() < 0.9) & (y.abs() < 0.2)])
    alpha = shapes[concept].float()[:, None]
    colour = torch.rand(num, 3, 1, 1, generator=draw) * 0.5 + 0.5
    middle = 1 - ((x.abs() < 0.2) & (y.abs() < 0.2)).float() * style[:, None, None, None]
    return JudgeBatch(pictures=torch.cat([alpha * colour * middle, alpha], dim=1) * 2 - 1, concept=concept, style=style)


def test_the_objective_teaches():
    judge, batch = Judge(TINY), toy_batch(12, 0)
    light = JudgeObjectiveConfig(soften_share=0, noise_share=0, jpeg_share=0, scale=(1, 1), shift=0, none_share=0)
    objective = JudgeObjective(judge, light)
    assert list(objective.groups) == ["judge"]
    optimiser = torch.optim.AdamW(judge.parameters(), lr=3e-3)
    watched = []
    for _ in range(60):  # the same pictures on the same grounds: they can be learned by heart
        losses = objective(batch, generator())
        optimiser.zero_grad()
        losses.total["judge"].backward()
        optimiser.step()
        watched.append(losses.watch)
    assert watched[-1]["top1"] == 1.0
    assert watched[-1]["style_top1"] > 0.8
    assert watched[-1]["concept"] < 0.6 * watched[0]["concept"]


def test_all_chance_comes_from_the_generator():
    objective = JudgeObjective(Judge(TINY))
    first, again, other = (objective(toy_batch(16, 0), generator(seed)).watch["concept"] for seed in (1, 1, 2))
    assert first == again != other


def test_reconstructions_are_mixed_in_at_their_share():
    batch = toy_batch(400, 0)
    codec = JudgeBatch(
        pictures=batch.pictures,
        concept=batch.concept,
        style=batch.style,
        reconstructions=torch.ones_like(batch.pictures),
    )
    plain = JudgeObjectiveConfig(soften_share=0, noise_share=0, jpeg_share=0, scale=(1, 1), shift=0, codec_share=0.25)
    washed = JudgeObjective(Judge(TINY), plain).wash(codec, generator())
    white = (washed > 0.999).all(dim=(1, 2, 3)).float().mean().item()
    assert white == pytest.approx(0.25, abs=0.06)


def test_the_sharpness_wash_never_softens():
    assert sharpness_wash().soften_share == 0


def test_unknown_classes_and_sizes_are_refused():
    objective, batch = JudgeObjective(Judge(TINY)), toy_batch(4, 0)
    with pytest.raises(BadData, match="0 to 2"):
        objective(JudgeBatch(pictures=batch.pictures, concept=batch.concept + 9, style=batch.style), generator())
    with pytest.raises(BadData, match="32 px"):
        objective(
            JudgeBatch(pictures=batch.pictures[..., :16, :16], concept=batch.concept, style=batch.style), generator()
        )


def test_composite_equals_straight_alpha_blending():
    rgba = torch.rand(3, 4, 5, 5, generator=generator())
    premultiplied_ = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1) * 2 - 1
    ground = torch.rand(3, 3, generator=generator(1))
    wanted = rgba[:, :3] * rgba[:, 3:] + ground[:, :, None, None] * (1 - rgba[:, 3:])
    assert torch.allclose(spoiling.composite(premultiplied_, ground), wanted * 2 - 1, atol=1e-6)


def test_placing_at_scale_one_changes_nothing_and_outside_is_transparent():
    pictures = torch.rand(2, 4, 16, 16, generator=generator()) * 2 - 1
    assert torch.allclose(spoiling.place(pictures, generator(), (1, 1), 0), pictures, atol=1e-5)
    small = spoiling.place(pictures, generator(), (0.4, 0.4), 0)
    assert torch.all(small[:, :, 0] == -1)


def test_cosine_basis_is_orthonormal_and_fine_rounding_keeps_the_picture():
    basis = spoiling.cosine_basis()
    assert torch.allclose(basis @ basis.T, torch.eye(8), atol=1e-6)
    pictures = (torch.rand(2, 3, 16, 16, generator=generator()) * 2 - 1) * 0.8
    slight = (spoiling.jpeg_like(pictures, generator(), 0.101) - pictures).abs().mean()
    strong = (spoiling.jpeg_like(pictures, generator(), 4.0) - pictures).abs().mean()
    assert slight < 0.05 < strong


def test_spoilers_stay_in_range():
    pictures = torch.rand(6, 3, 32, 32, generator=generator()) * 2 - 1
    for spoiled in (
        spoiling.soften(pictures, generator(), 0.3),
        spoiling.add_noise(pictures, generator(), 0.5),
        spoiling.jpeg_like(pictures, generator(), 3.0),
        spoiling.nothing_pictures(pictures, generator()),
    ):
        assert spoiled.shape == pictures.shape
        assert spoiled.min() >= -1
        assert spoiled.max() <= 1


def test_batches_are_a_function_of_position(world):
    config = JudgeBatchesConfig(batch=8, num_shapes=2, num_painted=0)
    batches = JudgeBatches(world, config)
    stream = batches(0)
    run = [next(stream) for _ in range(4)]
    resumed = next(JudgeBatches(world, config)(3))
    assert torch.equal(run[3].pictures, resumed.pictures)
    assert torch.equal(run[3].concept, resumed.concept)
    assert len(batches) == -(-(8 + 2 * len(SHAPES)) // 8)


def test_batches_visit_every_cell_once_an_epoch_held_out_ones_too(world):
    batches = JudgeBatches(world, JudgeBatchesConfig(batch=4, num_shapes=0, num_painted=0))
    epoch = [batches.read(position) for position in range(2)]
    cells = {(int(c), int(s)) for batch in epoch for c, s in zip(batch.concept, batch.style, strict=True)}
    assert cells == {(concept, style) for concept in range(4) for style in range(2)}


def test_everyday_things_are_shown_in_other_paint_too(world):
    plain = JudgeBatches(world, JudgeBatchesConfig(batch=1, num_shapes=0, num_painted=0, small=0.0))
    painted = JudgeBatches(world, JudgeBatchesConfig(batch=1, num_shapes=0, num_painted=3, small=0.0))
    paintable = {key for key, noun in everyday_nouns().items() if noun.paintable}
    keys = [plain.concepts[int(plain.read(position).concept)] for position in range(len(plain))]
    assert len(painted) == len(plain) + 3 * sum(key in paintable for key in keys) > len(plain)
    own = {batch.pictures.numpy().tobytes() for batch in (plain.read(position) for position in range(len(plain)))}
    shown = [painted.read(position).pictures.numpy().tobytes() for position in range(len(painted))]
    assert sum(one in own for one in shown) < len(painted)
    assert len(set(shown)) > len(own)


def test_batches_carry_reconstructions(world):
    config = JudgeBatchesConfig(batch=4, small=0.0)
    batches = JudgeBatches(world, config, reconstruct=lambda pictures: pictures * 0.5)
    batch = batches.read(0)
    assert torch.allclose(batch.reconstructions, batch.pictures * 0.5)


def test_small_things_are_the_same_drawings_enlarged_from_few_pixels(world):
    seen = []

    def watch(pictures):
        seen.append(pictures)
        return pictures

    large = JudgeBatches(world, JudgeBatchesConfig(batch=8, num_shapes=0, num_painted=0, small=0.0)).read(0)
    small = JudgeBatches(world, JudgeBatchesConfig(batch=8, num_shapes=0, num_painted=0, small=1.0), watch).read(0)
    assert torch.equal(large.concept, small.concept)
    assert torch.equal(small.pictures, small.reconstructions)
    solid = (seen[0][:, 3] > -1).flatten(1).float().mean(dim=1)
    assert solid.max() < 0.5  # on the picture that a codec would see they are small
    (scene,) = seen
    assert scene.shape == large.pictures.shape
    margin = 1 / (1 + 2 * MARGIN)  # cut out with a margin: a little smaller than alone
    shrunk = F.interpolate(large.pictures + 1, scale_factor=margin, mode="bilinear", antialias=True)
    frame = [(64 - shrunk.shape[-1]) // 2, -(-(64 - shrunk.shape[-1]) // 2)]
    likeness = (F.pad(shrunk, frame + frame) - 1 - small.pictures).abs().mean()
    assert likeness < 0.25 * (large.pictures.roll(1, 0) - small.pictures).abs().mean()


def test_cutting_out_a_thing_that_fills_its_picture_changes_nothing():
    pictures = torch.rand(2, 4, 64, 64) * 2 - 1
    cut = cut_out(pictures, [(0, 0, 64), (10, 20, 25)])
    assert torch.equal(cut[0], pictures[0])
    margin = round(MARGIN * 25)
    piece = pictures[1:, :, 20 - margin : 45 + margin, 10 - margin : 35 + margin]
    wanted = F.interpolate(piece, (64, 64), mode="bicubic").clamp(-1, 1)
    torch.testing.assert_close(cut[1:], wanted)


def test_premultiplied_clears_the_colour_of_nothing():
    picture = np.full((1, 2, 2, 4), 255, dtype=np.uint8)
    picture[0, 0, 0, 3] = 0
    values = premultiplied(picture)
    assert torch.all(values[0, :, 0, 0] == -1)
    assert torch.all(values[0, :, 1, 1] == 1)


def test_vocabulary_is_what_the_world_has(world):
    assert set(scene_vocabulary(world)) == {"1F34E", "1F697", "1F3E0", "2B50", *SHAPES}
