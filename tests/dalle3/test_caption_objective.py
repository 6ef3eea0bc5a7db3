"""The captioner's objective: against sums written out, and what it watches."""

import math
from dataclasses import replace

import pytest
import torch

from opendalle.base.errors import BadConfig
from opendalle.clip.losses import Known
from opendalle.dalle3.caption_network import CaptionNetwork, CaptionNetworkConfig, manner_of
from opendalle.dalle3.caption_objective import CaptionBatch, CaptionLossConfig, CaptionObjective

TINY = CaptionNetworkConfig(
    vocabulary=20,
    context=8,
    sight_tokens=3,
    sight_width=5,
    width=16,
    text_depth=1,
    joint_depth=1,
    heads=2,
    embed=8,
)
LENGTHS = (4, 8, 2, 6)
MANNERS = [manner_of("original", "en"), manner_of("short", "zh"), manner_of("short", "en"), manner_of("original", "zh")]


@pytest.fixture
def network() -> CaptionNetwork:
    torch.manual_seed(0)
    return CaptionNetwork(TINY)


@pytest.fixture
def batch() -> CaptionBatch:
    torch.manual_seed(1)
    ids, mask = torch.randint(3, 20, (4, 8)), torch.arange(8) < torch.tensor(LENGTHS)[:, None]
    ids[:, 0] = 1
    for row, length in enumerate(LENGTHS):
        ids[row, length - 1], ids[row, length:] = 2, 0
    return CaptionBatch(sight=torch.randn(4, 3, 5), ids=ids, mask=mask, manner=torch.tensor(MANNERS))


def written_out(network: CaptionNetwork, batch: CaptionBatch) -> list[list[float]]:
    """Nats of every token of every caption, each asked for by itself."""
    rows = []
    for row, length in enumerate(LENGTHS):
        one = slice(row, row + 1)
        nats = []
        for place in range(1, length):
            logits = network(batch.sight[one], batch.ids[one, :place], batch.manner[one])[0, -1].detach()
            nats.append(-float(logits.log_softmax(dim=0)[batch.ids[row, place]]))
        rows.append(nats)
    return rows


def test_the_loss_is_the_mean_over_all_tokens_and_twice_that_beside_the_contrast(
    network: CaptionNetwork, batch: CaptionBatch
) -> None:
    rows, rng = written_out(network, batch), torch.Generator()
    mean = sum(map(sum, rows)) / sum(map(len, rows))
    tuned = CaptionObjective(network, CaptionLossConfig(contrast=0.0, caption=1.0))(batch, rng)
    assert tuned.total["captioner"].item() == pytest.approx(mean, abs=1e-5)
    assert "contrast" not in tuned.watch
    kinds = {"original": rows[0] + rows[3], "short": rows[1] + rows[2]}
    for kind, nats in kinds.items():
        assert tuned.watch[f"nats_{kind}"] == pytest.approx(sum(nats) / len(nats), abs=1e-5)
    assert tuned.watch["nats_descriptive"] == pytest.approx(mean, abs=1e-5)  # none in the batch: all stand for it
    both = CaptionObjective(network, CaptionLossConfig())(batch, rng)
    seen, states = network.look(batch.sight), network.read(batch.ids, batch.manner)
    pictures, texts = network.picture_vector(seen), network.text_vector(states, batch.mask)
    logits = (pictures @ texts.T) / 0.07
    contrast = -(logits.log_softmax(dim=1).diag().mean() + logits.log_softmax(dim=0).diag().mean()) / 2
    assert both.total["captioner"].item() == pytest.approx(contrast.item() + 2 * mean, abs=1e-4)
    assert both.watch["contrast"] == pytest.approx(contrast.item(), abs=1e-4)
    right = (logits.argmax(dim=1) == torch.arange(4)).float().mean()
    assert both.watch["top1"] == pytest.approx(float(right))


def test_padding_changes_nothing(network: CaptionNetwork, batch: CaptionBatch) -> None:
    objective = CaptionObjective(network, CaptionLossConfig())
    some = CaptionBatch(
        sight=batch.sight[[0, 2]], ids=batch.ids[[0, 2]], mask=batch.mask[[0, 2]], manner=batch.manner[[0, 2]]
    )
    other = replace(some, ids=torch.where(some.mask, some.ids, 9))
    one, two = (objective(each, torch.Generator()).total["captioner"] for each in (some, other))
    assert one.item() == two.item()


def test_a_caption_that_is_true_of_two_pictures_tells_neither_from_the_other(
    network: CaptionNetwork, batch: CaptionBatch
) -> None:
    unknown = torch.full((4, 1), -1)
    known = Known(captions=torch.tensor([5, 5, 5, 5]), concepts=unknown[:, 0], aspects=unknown, said=unknown)
    told = CaptionObjective(network, CaptionLossConfig())(replace(batch, known=known), torch.Generator()).watch
    assert told["top1"] == 1
    assert told["contrast"] == pytest.approx(0, abs=1e-6)


def test_captions_and_contrast_are_learned(network: CaptionNetwork, batch: CaptionBatch) -> None:
    objective = CaptionObjective(network, CaptionLossConfig(kinds=("original", "short")))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(60):
        losses = objective(batch, torch.Generator())
        optimiser.zero_grad()
        losses.total["captioner"].backward()
        optimiser.step()
        objective.after_step()
    assert set(losses.watch) == {"nats_original", "nats_short", "contrast", "top1"}
    assert max(losses.watch["nats_original"], losses.watch["nats_short"]) < 0.5
    assert losses.watch["top1"] == 1
    with torch.no_grad():
        network.log_scale.fill_(9.0)
    objective.after_step()
    assert network.log_scale.item() == pytest.approx(math.log(100))


def test_wrong_weights_are_refused() -> None:
    for wrong in ({"contrast": -1.0}, {"contrast": 0.0, "caption": 0.0}, {"kinds": ("long",)}):
        with pytest.raises(BadConfig):
            CaptionLossConfig(**wrong)
