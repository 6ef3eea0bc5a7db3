"""Layers computed strip by strip against the same layers at once, in double precision: the difference is rounding."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from opendalle.base.errors import BadConfig
from opendalle.nn.residual import ResidualBlock
from opendalle.nn.strips import Moments, Strips, norm_of
from opendalle.nn.unet import UNet, UNetConfig, UNetLevel

ROUNDING = {"atol": 1e-11, "rtol": 1e-11}


def exact(network: nn.Module, seed: int = 0) -> Any:
    """Every weight in double precision, and none at zero."""
    rng = torch.Generator().manual_seed(seed)
    for weight in network.double().parameters():
        nn.init.normal_(weight, std=0.3, generator=rng)
    return network.eval().requires_grad_(False)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unet(**change: Any) -> UNetConfig:
    levels = (UNetLevel(width=8, num_blocks=1), UNetLevel(width=16, num_blocks=2))
    shape: dict[str, Any] = {"in_channels": 5, "out_channels": 4, "levels": levels, "time_width": 8}
    return UNetConfig(**{**shape, "norm_groups": 4, "middle": "residual", **change})


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"patch": 2, "norm": "cell"},
        {"conditioning": "add", "middle": "none"},
        {"num_learned_steps": 30},
    ],
    ids=["plain", "folded", "added", "learned"],
)
@pytest.mark.parametrize("max_bytes", [1, 7000])
def test_a_unet_by_strips_is_the_unet(change: dict[str, Any], max_bytes: int) -> None:
    network, x, t = exact(UNet(unet(**change))), noise(2, 5, 20, 12), torch.tensor([3, 29])
    whole = network(x, t)
    torch.testing.assert_close(Strips(max_bytes=max_bytes).unet(network, x, t), whole, **ROUNDING)


class Memory(TorchDispatchMode):
    """The most bytes that tensors made inside held at a time: whole sheets, and all else."""

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.given = {one.untyped_storage()._cdata for one in given}
        self.live: dict[int, tuple[StorageWeakRef, bool, int]] = {}
        self.sheets = self.strips = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.live = {key: one for key, one in self.live.items() if not one[0].expired()}
        for one in tree_leaves(out):
            if isinstance(one, Tensor) and (storage := one.untyped_storage())._cdata not in self.given:
                is_sheet = func is torch.ops.aten.empty.memory_format
                self.live.setdefault(storage._cdata, (StorageWeakRef(storage), is_sheet, storage.nbytes()))
        held = [[size for _, is_sheet, size in self.live.values() if is_sheet is wanted] for wanted in (True, False)]
        self.sheets, self.strips = (
            max(most, sum(now)) for most, now in zip((self.sheets, self.strips), held, strict=True)
        )
        return out


def test_strips_take_the_memory_they_are_given_whatever_the_height() -> None:
    network, allowed, t = exact(UNet(unet())), 1 << 15, torch.tensor([3])
    found = []
    for height in (64, 160):
        x = noise(1, 5, height, 16)
        given = [x, *network.parameters()]
        with Memory(*given) as memory:
            Strips(max_bytes=allowed).unet(network, x, t)
        with Memory(*given) as whole, torch.no_grad():
            network(x, t)
        grid = x[0, 0].numel() * 8  # bytes of one channel of the finest grid
        assert memory.sheets < 1.01 * grid * (8 + 8 + 16 + 8)  # handed over twice, come, drawn
        assert memory.strips < 9 * allowed
        assert whole.strips > 1.6 * memory.sheets
        found.append(memory.strips)
    assert found[1] < 1.1 * found[0]


def test_strips_are_short_where_little_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, seen = exact(UNet(unet())), noise(1, 5, 32, 8), list[tuple[int, ...]]()
    monkeypatch.setattr(ResidualBlock, "forward", None)  # it would see the whole: nothing may call it
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[1:])))
    allowed = 4096
    Strips(max_bytes=allowed).unet(network, x, torch.tensor([3]))
    for channels, rows, width in seen:  # two rows beside a strip, or two of the coarser level when it is doubled
        assert rows <= max(2, allowed // (8 * channels * width)) + 4


def test_moments_of_strips_are_those_of_the_whole() -> None:
    x, moments = 1e3 + noise(1, 3, 17, 5), Moments()
    for part in x.split(4, dim=2):
        moments.add(part)
    variance, mean = torch.var_mean(x[0], dim=(1, 2), correction=0)
    torch.testing.assert_close(moments.mean, mean, **ROUNDING)
    torch.testing.assert_close(moments.squares / moments.count, variance, atol=1e-9, rtol=1e-9)


def test_a_norm_reads_two_grids_as_one_and_groups_may_lie_across() -> None:
    norm, one, other = exact(nn.GroupNorm(2, 8)), noise(1, 3, 6, 4), 5 + 3 * noise(1, 5, 6, 4, seed=2)
    both, strips = torch.cat([one, other], dim=1), Strips()
    part = norm_of(norm, [strips.sheet_of(one), strips.sheet_of(other)])(both[:, :, 2:4])
    torch.testing.assert_close(part, norm(both)[:, :, 2:4], **ROUNDING)


def test_half_precision_stays_and_is_as_near_as_the_whole() -> None:
    network, x, t = exact(UNet(unet())), noise(1, 5, 16, 16), torch.tensor([3])
    truth = network(x, t)
    half, x = network.bfloat16(), x.bfloat16()
    drawn = Strips(max_bytes=500).unet(half, x, t)
    assert drawn.dtype == torch.bfloat16
    errors = [(one.double() - truth).square().mean().sqrt() for one in (drawn, half(x, t))]
    assert errors[0] < 1.3 * errors[1]


def test_what_would_look_at_everything_is_refused() -> None:
    with pytest.raises(BadConfig, match="attention"):
        Strips().unet(UNet(unet(middle="attention", head_width=8)), torch.zeros(1, 5, 8, 8), torch.tensor([0]))
    with pytest.raises(BadConfig, match="max_bytes"):
        Strips(max_bytes=0)
