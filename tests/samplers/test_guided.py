from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.diffusion.predictions import to_denoised
from opendalle.diffusion.schedules import cosine, flow
from opendalle.samplers.guided import GuidedDenoise, join

SCHEDULE = cosine(100)
GENERATOR = torch.Generator().manual_seed(0)
X, PROMPT, EMPTY = torch.randn(3, 2, 4, 3, 3, generator=GENERATOR)
T = torch.tensor([10, 60])


class Counting:
    """A network that remembers how it was called."""

    def __init__(self, channels: int = 4) -> None:
        self.batches: list[int] = []
        self.channels = channels

    def __call__(self, x: Tensor, t: Tensor, hint: Tensor) -> Tensor:
        self.batches.append(len(x))
        output = torch.tanh(x * hint + t[:, None, None, None] / 100)
        return output if self.channels == 4 else torch.cat([output, 0.3 * hint], dim=1)


def test_scale_one_makes_a_single_pass_without_the_unconditional_half() -> None:
    network = Counting()
    said = GuidedDenoise(network, {"hint": PROMPT}, {"hint": EMPTY}, schedule=SCHEDULE)(X, T)
    assert network.batches == [2]
    torch.testing.assert_close(said.eps, network(X, T, PROMPT))
    assert GuidedDenoise(network, {"hint": PROMPT}, schedule=SCHEDULE, scale=torch.ones(2)).is_guided is False


@pytest.mark.parametrize("scale", [0.0, 2.5, torch.tensor([1.0, 4.0])], ids=str)
@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
def test_guidance_is_one_pass_and_equals_two(kind: str, scale: float | Tensor) -> None:
    network = Counting()
    denoise = GuidedDenoise(network, {"hint": PROMPT}, {"hint": EMPTY}, schedule=SCHEDULE, prediction=kind, scale=scale)
    said = denoise(X, T)
    assert network.batches == [4]
    with_prompt, without = network(X, T, PROMPT), network(X, T, EMPTY)
    size = scale[:, None, None, None] if isinstance(scale, Tensor) else scale
    expected = to_denoised(kind, without + size * (with_prompt - without), X, T, SCHEDULE)
    torch.testing.assert_close(said.x0, expected.x0)
    torch.testing.assert_close(said.eps, expected.eps)


def test_the_unconditional_pass_sees_the_same_x_t() -> None:
    """Elsewhere, guidance was found to drop the noised data along with the prompt."""
    seen: list[Tensor] = []

    def network(x: Tensor, t: Tensor, hint: Tensor) -> Tensor:
        seen.append(x)
        return x

    GuidedDenoise(network, {"hint": PROMPT}, {"hint": EMPTY}, schedule=SCHEDULE, scale=3.0)(X, T)
    assert torch.equal(seen[0][:2], X)
    assert torch.equal(seen[0][2:], X)


def test_learned_variance_comes_from_the_conditional_half() -> None:
    def log_variance(scale: float) -> Tensor | None:
        denoise = GuidedDenoise(
            Counting(8), {"hint": PROMPT}, {"hint": EMPTY}, schedule=SCHEDULE, scale=scale, learned_variance=True
        )
        return denoise(X, T).log_variance

    torch.testing.assert_close(log_variance(1.0), log_variance(5.0))


def test_the_callers_tensors_are_left_as_they_were() -> None:
    """Another implementation scales the caller's embedding in place."""
    before = X.clone(), PROMPT.clone(), EMPTY.clone()
    denoise = GuidedDenoise(
        Counting(), {"hint": PROMPT}, {"hint": EMPTY}, schedule=SCHEDULE, scale=4.0, rescale=0.5, threshold=0.9
    )
    denoise(X, T)
    for now, then in zip((X, PROMPT, EMPTY), before, strict=True):
        assert torch.equal(now, then)


def test_clipping_and_thresholding_hold_x0_in_range() -> None:
    def ask(**knobs) -> Tensor:
        return GuidedDenoise(Counting(), {"hint": 5 * PROMPT}, schedule=SCHEDULE, **knobs)(3 * X, T).x0

    assert ask().abs().max() > 1.5
    assert ask(clip=(-1.0, 1.0)).abs().max() <= 1
    assert ask(threshold=0.9).abs().max() == pytest.approx(1.0)
    assert ask(threshold=0.9, clip=(-0.5, 0.5)).abs().max() <= 0.5


def test_consistent_eps_leads_from_the_clipped_x0_to_x_t() -> None:
    knobs = {"schedule": SCHEDULE, "clip": (-0.3, 0.3), "consistent_eps": True}
    said = GuidedDenoise(Counting(), {"hint": PROMPT}, **knobs)(X, T)
    alpha, sigma = (table(T).float()[:, None, None, None] for table in (SCHEDULE.alpha, SCHEDULE.sigma))
    torch.testing.assert_close(alpha * said.x0 + sigma * said.eps, X, rtol=1e-5, atol=1e-5)


def test_rows_do_not_meet() -> None:
    """A sample guided alone equals the same sample in a batch, bytes."""

    def ask(rows: slice) -> Tensor:
        knobs = {"schedule": SCHEDULE, "scale": 3.0, "rescale": 0.7, "threshold": 0.9}
        return GuidedDenoise(Counting(), {"hint": PROMPT[rows]}, {"hint": EMPTY[rows]}, **knobs)(X[rows], T[rows]).x0

    assert torch.equal(ask(slice(0, 2))[1:], ask(slice(1, 2)))


@dataclass(frozen=True)
class Context:
    layers: tuple[Tensor, ...]
    mask: Tensor | None


def test_join_goes_into_structures() -> None:
    one, other = Context((PROMPT, X), None), Context((EMPTY, X), None)
    joined = join({"context": one, "list": [X]}, {"context": other, "list": [EMPTY]})
    assert torch.equal(joined["context"].layers[0], torch.cat([PROMPT, EMPTY]))
    assert torch.equal(joined["list"][0], torch.cat([X, EMPTY]))
    assert joined["context"].mask is None


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": X}, {"b": X}), ({"a": X}, {"a": None}), ((X,), (X, X)), ({"a": X}, {"a": X[:, :2]}), ({"a": 3}, {"a": 3})],
)
def test_unlike_conditioning_is_refused(one, other) -> None:
    with pytest.raises(BadRequest):
        join(one, other)


@pytest.mark.parametrize("wrong", [{"rescale": 2.0}, {"threshold": 0.0}, {"clip": (1.0, -1.0)}])
def test_wrong_knobs_are_refused(wrong) -> None:
    with pytest.raises(BadConfig):
        GuidedDenoise(Counting(), {"hint": PROMPT}, schedule=SCHEDULE, **wrong)


def test_guidance_without_an_unconditional_side_is_refused() -> None:
    with pytest.raises(BadRequest, match="unconditional"):
        GuidedDenoise(Counting(), {"hint": PROMPT}, schedule=SCHEDULE, scale=2.0)
    with pytest.raises(BadConfig, match="ends in noise"):
        GuidedDenoise(Counting(), {"hint": PROMPT}, schedule=flow(), prediction="eps")
