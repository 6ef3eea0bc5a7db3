import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from opendalle.base.errors import BadConfig
from opendalle.base.records import TrainStep
from opendalle.training.chance import batch_generator, chance_tensors, restore_chance, undisturbed
from opendalle.training.clock import Clock
from opendalle.training.config import AdamWConfig, TrainConfig, Upkeep
from opendalle.training.distributed import World
from opendalle.training.ema import EMA
from opendalle.training.log import duration, in_words
from opendalle.training.optimisers import load_optimiser, make_optimiser, names_to_decay, optimiser_tensors
from opendalle.training.schedule import rate_at


def test_schedule_is_the_drawn_curve() -> None:
    config = TrainConfig(pictures=1000, warmup_pictures=100, decay="linear", decay_pictures=400, final_rate=0.1)
    rates = [rate_at(pictures, config) for pictures in (0, 50, 100, 600, 800, 1000, 1100)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 0.55, 0.1, 0.1])
    cosine = TrainConfig(pictures=1000, warmup_pictures=200)
    assert [rate_at(p, cosine) for p in (200, 400, 600, 1000)] == pytest.approx(
        [1, (1 + math.cos(math.pi / 4)) / 2, 0.5, 0]
    )
    assert rate_at(999, TrainConfig(pictures=1000, decay="constant")) == 1


def test_schedule_does_not_know_the_batch_size() -> None:
    small, large = (TrainConfig(pictures=1000, warmup_pictures=100, batch_size=size) for size in (4, 64))
    assert all(rate_at(pictures, small) == rate_at(pictures, large) for pictures in range(0, 1001, 64))


class Bricks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.words.weight  # tied
        self.qkv_weight = nn.Parameter(torch.randn(12, 4))
        self.positions = nn.Parameter(torch.randn(3, 4))
        self.stem = nn.Conv2d(4, 4, 3)
        self.norm = nn.GroupNorm(2, 4)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_only_weights_decay() -> None:
    module = Bricks()
    assert names_to_decay(module) - {"frozen.weight"} == {"qkv_weight", "stem.weight"}
    optimiser = make_optimiser(module, AdamWConfig(weight_decay=0.3))
    decay = {id(one): group["weight_decay"] for group in optimiser.param_groups for one in group["params"]}
    assert len(decay) == 7
    assert decay[id(module.stem.weight)] == 0.3
    assert decay[id(module.stem.bias)] == decay[id(module.words.weight)] == decay[id(module.positions)] == 0.0
    with pytest.raises(BadConfig, match="without trainable"):
        make_optimiser(module.frozen, AdamWConfig())


def test_optimiser_memory_goes_round_by_name() -> None:
    module, twin = Bricks(), Bricks()
    twin.load_state_dict(module.state_dict())
    for one in (module, twin):  # a fused step walks weights and memory side by side: both must be laid out alike
        one.stem.weight.data = one.stem.weight.data.to(memory_format=torch.channels_last)
    optimisers = [make_optimiser(one, AdamWConfig()) for one in (module, twin)]

    def step(which: int) -> None:
        one = (module, twin)[which]
        one.stem(torch.ones(1, 4, 3, 3)).sum().backward()
        optimisers[which].step()
        optimisers[which].zero_grad()

    step(0)
    twin.load_state_dict(module.state_dict())
    tensors = optimiser_tensors(optimisers[0], module)
    assert set(tensors) == {f"{k}/stem.{p}" for k in ("step", "exp_avg", "exp_avg_sq") for p in ("weight", "bias")}
    load_optimiser(
        optimisers[1], twin, {name: one.clone(memory_format=torch.contiguous_format) for name, one in tensors.items()}
    )
    step(0)
    step(1)
    assert torch.equal(module.stem.weight, twin.stem.weight)
    with pytest.raises(BadConfig, match="that of this network"):
        load_optimiser(optimisers[1], twin, {"exp_avg/gone.weight": torch.ones(1)})


def test_average_is_the_formula_and_swaps_bit_for_bit() -> None:
    module = Bricks()
    ema = EMA({"net": module}, halflife=100, rampup=0.5)
    assert ema.decay_at(1000, 100) == pytest.approx(0.5)
    assert ema.decay_at(100, 100) == pytest.approx(0.25), "early on the half-life is half of what was seen"
    start, head = module.stem.weight.detach().clone(), module.words.weight.detach().clone()
    with torch.no_grad():
        module.stem.weight += 1
        module.words.weight += 4
    ema.update(1000, 100)
    live = {name: one.detach().clone() for name, one in module.state_dict().items()}
    state = ema.state("net")
    assert torch.allclose(state["stem.weight"], start + 0.5)
    assert torch.allclose(state["words.weight"], head + 2)
    assert torch.equal(state["head.weight"], state["words.weight"]), "tied weights stay tied"
    assert all(torch.equal(one, live[name]) for name, one in module.state_dict().items())
    fresh = EMA({"net": Bricks()}, halflife=100)
    fresh.load("net", state)
    assert all(torch.equal(one, state[name]) for name, one in fresh.averages["net"].items())


def test_chance_is_a_function_of_seed_position_and_rank() -> None:
    def draw(*args: int) -> float:
        return float(torch.rand((), generator=batch_generator(*args)))

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(seed, position, rank) for seed in (0, 1) for position in (0, 1) for rank in (0, 1)}) == 8


def test_process_wide_chance_is_written_down_and_left_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.randn(())), float(np.random.normal()), random.gauss(0, 1)  # noqa: NPY002

    with undisturbed():
        draw()
        states = chance_tensors()
        first = [draw() for _ in range(3)]
        restore_chance(states)
        with undisturbed():
            draw()
        assert [draw() for _ in range(3)] == first


def test_clock_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = Clock(total=1000, seen=0)
    now[0] = 10.0  # compiling
    assert clock.tick(100) == (10.0, None)
    now[0] = 12.0
    speed, left = clock.tick(200)
    assert (round(speed, 3), left) == (16.667, 16.0)
    assert [duration(one) for one in (0.2, 59, 61, 7500)] == ["1 s", "59 s", "2 min", "2 h 05 min"]
    step = TrainStep(
        step=2, pictures=200, losses={"net": 0.5}, learning_rate=1e-3, gradient_norm=1.0, pictures_per_second=16.7,
        seconds_left=16.0, saved="runs/a/step-000000002",
    )  # fmt: skip
    assert in_words(step, 1000) == "200/1,000 pictures  net 0.5  rate 1.00e-03  16.7/s  16 s left  saved step-000000002"


@pytest.mark.parametrize(
    "bad",
    [
        {"pictures": -1}, {"batch_size": 0}, {"accumulate": 0}, {"seed": -1}, {"warmup_pictures": 101},
        {"decay": "steps"}, {"decay_pictures": 101}, {"final_rate": 2.0}, {"clip": -1.0}, {"ema_halflife": -1},
        {"ema_rampup": 0.0}, {"precision": "float16"},
    ],
)  # fmt: skip
def test_bad_configs_are_refused(bad: dict) -> None:
    with pytest.raises(BadConfig, match=next(iter(bad))):
        TrainConfig(**{"pictures": 100, **bad})


@pytest.mark.parametrize(
    "bad", [{"learning_rate": 0.0}, {"beta1": 1.0}, {"beta2": -1.0}, {"eps": 0.0}, {"weight_decay": -0.1}]
)
def test_bad_optimisers_are_refused(bad: dict) -> None:
    with pytest.raises(BadConfig, match=next(iter(bad))):
        AdamWConfig(**bad)


@pytest.mark.parametrize(
    "bad", [{"save_every": -1}, {"save_minutes": -1.0}, {"keep": 0}, {"show_every": -1}, {"max_minutes": 0.0}]
)
def test_bad_upkeep_is_refused(bad: dict) -> None:
    with pytest.raises(BadConfig, match=next(iter(bad))):
        Upkeep(**bad)


def test_slices_of_all_processes_are_the_batch_in_order() -> None:
    batch = list(range(12))
    for size in (1, 2, 3, 4):
        assert [one for rank in range(size) for one in World(rank=rank, size=size).slice(batch)] == batch
    with pytest.raises(BadConfig, match="a multiple of 5"):
        World(rank=0, size=5).slice(batch)
    with pytest.raises(BadConfig, match="rank 2 of 2"):
        World(rank=2, size=2)
