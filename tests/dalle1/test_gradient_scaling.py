"""Gradient scales of branches: the same gradients where nothing is lost, and those that half precision loses."""

import pytest
import torch
from torch import Tensor, nn

from opendalle.base.errors import BadConfig
from opendalle.dalle1.gradient_scaling import BranchScale, GradientScaleConfig
from opendalle.dalle1.transformer import Dalle1Transformer, Dalle1TransformerConfig

CONFIG = Dalle1TransformerConfig(
    text_vocabulary=5,
    num_text=2,
    picture_vocabulary=7,
    grid_height=2,
    grid_width=2,
    width=8,
    depth=3,
    heads=2,
    norm="sandwich",
    initialisation="gpt",
)


def test_scaled_gradients_are_the_plain_ones():
    """In a precision that loses nothing, of every weight of every branch and of what lies below."""
    gradients = []
    for scales in (False, True):
        torch.manual_seed(0)
        net = Dalle1Transformer(CONFIG).double()
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        made = net.scale_gradients(GradientScaleConfig()) if scales else ()
        assert len(made) == (6 if scales else 0)  # two a layer
        logits = net(torch.tensor([[1, 2]]), torch.tensor([[3, 4, 5, 6]])).picture
        logits.square().sum().backward()
        gradients.append({name: weight.grad for name, weight in net.named_parameters()})
        assert not any(one.has_overflowed for one in made)
    for name, wanted in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], wanted, rtol=1e-12, atol=0, msg=name)


def halved(scale: BranchScale | None, size: float) -> tuple[Tensor, Tensor, Tensor]:
    """A branch in half precision beside an identity, and a gradient of a given size from above."""
    x = torch.tensor([[[0.5, -1.0]]], requires_grad=True)
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]))

    def branch(tokens: Tensor) -> Tensor:
        return tokens.half() @ layer.weight.half().T

    if scale is None:
        out = x + branch(x).float()
    else:
        scale.follow(layer)
        out = x + scale.enclose(x, branch)
    out.backward(torch.full_like(out, size))
    assert x.grad is not None
    assert layer.weight.grad is not None
    return out.detach(), x.grad, layer.weight.grad


def test_half_precision_loses_small_gradients_and_a_scale_keeps_them():
    tiny = 1e-9  # below a half's smallest number, 6e-8
    wanted_x = tiny * (torch.ones(1, 1, 2) + torch.tensor([[[0.0, 2.5]]]))  # identity, and W summed over its rows
    wanted_weight = tiny * torch.tensor([[0.5, -1.0], [0.5, -1.0]])
    out, x, weight = halved(None, tiny)
    torch.testing.assert_close(x, torch.full_like(x, tiny), rtol=1e-6, atol=0)  # the identity's alone
    assert weight.abs().max() == 0
    scale = BranchScale(GradientScaleConfig())
    again, x, weight = halved(scale, tiny)
    assert torch.equal(again, out)  # forward nothing changes
    torch.testing.assert_close(x, wanted_x, rtol=2e-2, atol=0)  # near a half's last bit
    torch.testing.assert_close(weight, wanted_weight, rtol=2e-2, atol=0)  # near a half's last bit
    assert not scale.has_overflowed


def test_what_overflows_becomes_zero_and_leaves_the_identity_alone():
    scale = BranchScale(GradientScaleConfig())
    _, x, weight = halved(scale, 30.0)  # times 8,192 is more than a half holds
    assert scale.has_overflowed
    assert torch.equal(x, torch.full_like(x, 30.0))
    assert weight.abs().max() == 0


def test_scales_creep_up_fall_at_an_overflow_and_rest():
    scale = BranchScale(GradientScaleConfig(rest=3))
    for _ in range(1000):
        scale.after_step()
    assert scale.scale == pytest.approx(2.0**14)
    seen = []
    for _ in range(5):  # an overflow at every update
        scale.has_overflowed = True
        scale.after_step()
        seen.append(scale.scale / 2**14)
    half = 2**-0.5
    assert seen == pytest.approx([half, half, half, half, half**2])
    for _ in range(40):
        scale.resting, scale.has_overflowed = 0, True
        scale.after_step()
    assert scale.scale == 2.0**7
    scale.scale = 2.0**24
    scale.after_step()
    assert scale.scale == 2.0**24


def test_of_many_replicas_the_numbers_are_many_times_as_large():
    config = GradientScaleConfig().times(16)
    assert (config.start, config.least, config.most) == (2.0**17, 2.0**11, 2.0**28)
    with pytest.raises(BadConfig):
        GradientScaleConfig(start=1.0)
