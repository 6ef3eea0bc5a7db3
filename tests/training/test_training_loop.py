from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from opendalle.base.errors import BadConfig, BadData, BadModel
from opendalle.base.protocols import Losses
from opendalle.checkpoint.folder import Part, write_model
from opendalle.checkpoint.run import RunFolder
from opendalle.training.batches import move_to
from opendalle.training.config import AdamWConfig, TrainConfig, Upkeep
from opendalle.training.diverged import Diverged
from opendalle.training.ema import EMA
from opendalle.training.loop import train
from opendalle.training.precision import autocast_dtype, is_bfloat16_fast
from opendalle.training.start import open_run, warm_start


class Plain:
    """One linear layer without chance."""

    def __init__(self) -> None:
        self.net = nn.Linear(4, 1)
        nn.init.constant_(self.net.weight, 0.5)
        nn.init.zeros_(self.net.bias)
        self.groups = {"net": self.net}

    def __call__(self, batch: Tensor, rng: Generator) -> Losses:
        return Losses(total={"net": (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()})


class OwnBackward(Plain):
    """The same loss, with a backward pass of its own."""

    def backward(self, batch: Tensor, rng: Generator) -> Losses:
        losses = self(batch, rng)
        losses.total["net"].backward()
        return Losses(total={"net": losses.total["net"].detach()})


def test_the_loop_equals_a_plain_one(batches: Callable) -> None:
    config = TrainConfig(
        pictures=80, batch_size=8, accumulate=2, decay="constant", clip=0.5, precision="float32"
    )  # auto is bfloat16 on some processors
    ours, plain = Plain(), Plain()
    steps = list(train(ours, batches, config))
    optimiser = torch.optim.AdamW(plain.net.parameters(), lr=3e-4, betas=(0.9, 0.99), weight_decay=0.01)
    optimiser.param_groups[0]["params"] = [plain.net.weight]
    optimiser.add_param_group({"params": [plain.net.bias], "weight_decay": 0.0})
    feed = batches(0)
    for step in steps:
        loss = torch.stack([plain(next(feed), Generator()).total["net"] for _ in range(2)]).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(plain.net.parameters(), 0.5)
        optimiser.step()
        optimiser.zero_grad()
        assert step.losses["net"] == pytest.approx(loss.item(), rel=1e-5)
        assert step.gradient_norm == pytest.approx(norm.item(), rel=1e-5)
    assert torch.allclose(ours.net.weight, plain.net.weight, atol=1e-6)
    assert torch.allclose(ours.net.bias, plain.net.bias, atol=1e-6)


def test_accumulation_and_an_own_backward_equal_one_large_batch(batches: Callable) -> None:
    def large(position: int) -> Iterator[Tensor]:
        feed = batches(2 * position)
        while True:
            yield torch.cat([next(feed), next(feed)])

    once = TrainConfig(pictures=80, batch_size=16)
    twice = TrainConfig(pictures=80, batch_size=8, accumulate=2)
    one, two, three = Plain(), Plain(), OwnBackward()
    list(train(one, large, once))
    list(train(two, batches, twice))
    list(train(three, batches, twice))
    assert torch.allclose(one.net.weight, two.net.weight, atol=1e-6)
    assert torch.equal(two.net.weight, three.net.weight)


def test_hooks_and_groups(objective: Callable, batches: Callable) -> None:
    config = TrainConfig(
        pictures=24, batch_size=8, decay="constant", group_optimisers={"far": AdamWConfig(learning_rate=1e-9)}
    )
    one = objective()
    near, far = one.near.layers[0].weight.clone(), one.far.layers[0].weight.clone()
    steps = list(train(one, batches, config))
    assert one.told == [(0, 24), (8, 24), (16, 24)]
    assert one.teacher.item() != 0
    assert set(steps[0].losses) == {"near", "far", "mean"}
    assert (one.near.layers[0].weight - near).abs().max().item() > 1e-4
    assert (one.far.layers[0].weight - far).abs().max().item() < 1e-7
    unknown = TrainConfig(pictures=8, batch_size=8, group_optimisers={"prior": AdamWConfig()})
    with pytest.raises(BadConfig, match="near, far"):
        next(train(one, batches, unknown))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_before_it_spoils_the_weights(
    batches: Callable, tmp_path: Path, where: str
) -> None:
    class Breaks(Plain):
        def __call__(self, batch: Tensor, rng: Generator) -> Losses:
            losses = super().__call__(batch, rng)
            if float(batch[0, 0]) == 1000:
                total = losses.total["net"]
                poison = total * float("nan") if where == "loss" else (total - total.detach()).clamp(min=0).sqrt()
                losses = Losses(total={"net": poison})
            return losses

    def broken(position: int) -> Iterator[Tensor]:
        for k, batch in enumerate(batches(position)):
            yield torch.full_like(batch, 1000.0) if k == 3 else batch

    one = Breaks()
    run = RunFolder.create(tmp_path, {})
    steps = train(one, broken, TrainConfig(pictures=80, batch_size=8), run, upkeep=Upkeep(save_every=8))
    with pytest.raises(Diverged, match="at step 4") as error:
        list(steps)
    assert ("net = nan" if where == "loss" else "gradient norm = ") in error.value.came
    assert "step-000000003" in error.value.todo
    assert "Last finite values: net" in error.value.todo
    assert torch.equal(one.net.weight, run.load().tensors["weights.net"]["weight"])


def test_show_sees_averages_and_disturbs_nothing(objective: Callable, batches: Callable) -> None:
    config = TrainConfig(pictures=80, batch_size=8, ema_halflife=40)
    weights, shown = [], []
    for every in (0, 16):
        one = objective()
        ema = EMA(one.groups, config.ema_halflife, config.ema_rampup)

        def show(pictures: int, one: Any = one, ema: EMA = ema) -> None:
            shown.append(pictures)
            one.near.eval()
            torch.rand(3)  # a careless caller draws from the process's own generator

        torch.manual_seed(3)
        list(train(one, batches, config, upkeep=Upkeep(show_every=every), ema=ema, show=show))
        weights.append(one.near.layers[0].weight.detach().clone())
        with ema.applied():
            assert not torch.equal(one.near.layers[0].weight, weights[-1])
            assert torch.equal(one.near.layers[0].weight, ema.state("near")["layers.0.weight"])
    assert torch.equal(*weights)
    assert shown == [80, 16, 32, 48, 64, 80]


def test_tensorboard_on_request(objective: Callable, batches: Callable, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = TrainConfig(pictures=16, batch_size=8)
    list(train(objective(), batches, config, RunFolder.create(tmp_path, {}), upkeep=Upkeep(tensorboard=True)))
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_batches_that_end_are_refused(objective: Callable) -> None:
    with pytest.raises(BadData, match="ended before batch 0"):
        next(train(objective(), lambda position: iter([]), TrainConfig(pictures=8, batch_size=8)))


def test_warm_start_takes_weights_only_where_they_fit(objective: Callable, tmp_path: Path) -> None:
    one, other = objective(), objective()
    nn.init.zeros_(one.near.layers[0].weight)
    card = {"data": "d", "recipe": "r", "licence": "MIT"}
    parts = {group: Part({}, module.state_dict()) for group, module in one.groups.items()}
    model = write_model(tmp_path / "model", kind="sum", parts=parts, card=card)
    warm_start(other.groups, model)
    assert torch.equal(other.near.layers[0].weight, one.near.layers[0].weight)
    with pytest.raises(BadModel, match="no part 'a-near'"):
        warm_start(other.groups, model, rename=lambda group: f"a-{group}")


def test_batches_are_moved_however_they_are_wrapped() -> None:
    meta = torch.device("meta")
    moved = move_to({"a": (torch.ones(1), [torch.ones(1)]), "captions": ["red"], "n": 3}, meta)
    assert moved["a"][0].device == moved["a"][1][0].device == meta
    assert moved["captions"] == ["red"]
    losses = move_to(Losses(total={"x": torch.ones(())}), meta)
    assert losses.total["x"].device == meta


def test_bfloat16_is_taken_only_where_it_is_fast(monkeypatch: pytest.MonkeyPatch, batches: Callable) -> None:
    cpu = torch.device("cpu")
    kinds = (
        ({}, False),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": True, "avx512_fp16": True, "amx_bf16": True}, True),
        ({"avx512_bf16": True, "avx512_fp16": True, "amx_bf16": False}, False),
    )
    for has, fast in kinds:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert is_bfloat16_fast(cpu) is fast
        assert autocast_dtype("auto", cpu) == (torch.bfloat16 if fast else None)
    assert autocast_dtype("float32", cpu) is None
    seen = []

    class Spy(Plain):
        def __call__(self, batch: Tensor, rng: Generator) -> Losses:
            seen.append(self.net(batch).dtype)
            return super().__call__(batch, rng)

    list(train(Spy(), batches, TrainConfig(pictures=8, batch_size=8, precision="bfloat16")))
    assert seen == [torch.bfloat16]


def test_a_run_is_begun_once_and_gone_on_with_only_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no run in"):
        open_run(tmp_path / "run", {}, resume=True)
    open_run(tmp_path / "run", {"recipe": "circles"}).close()
    assert open_run(tmp_path / "run", {}, resume=True).about == {"recipe": "circles"}
