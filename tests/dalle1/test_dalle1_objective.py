"""The loss of a caption-picture pair: against sums written down token by token, and a network that learns."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadConfig
from opendalle.dalle1.drawing import Wish, drawing
from opendalle.dalle1.gradient_scaling import GradientScaleConfig
from opendalle.dalle1.objective import Dalle1LossConfig, Dalle1Objective
from opendalle.dalle1.transformer import Dalle1Transformer, Dalle1TransformerConfig, padded_text
from opendalle.samplers import TokenOptions

TINY = Dalle1TransformerConfig(
    text_vocabulary=9,
    num_text=3,
    picture_vocabulary=6,
    grid_height=2,
    grid_width=3,
    width=16,
    depth=2,
    heads=2,
    kernel=3,
    initialisation="gpt",
)


@dataclass(frozen=True)
class Pairs:
    ids: Tensor
    length: Tensor
    tokens: Tensor


PAIRS = Pairs(
    ids=torch.tensor([[4, 5, 6], [7, 8, 0]]),
    length=torch.tensor([3, 1]),
    tokens=torch.tensor([[0, 1, 2, 3, 4, 5], [5, 5, 0, 0, 1, 1]]),
)


def network(**changed: object) -> Dalle1Transformer:
    torch.manual_seed(0)
    net = Dalle1Transformer(replace(TINY, **changed))
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return net


@pytest.mark.parametrize("has_start", [True, False])
@pytest.mark.parametrize("counts_padding", [True, False])
def test_it_is_an_eighth_of_the_caption_and_seven_of_the_picture(has_start, counts_padding):
    net = network(has_start=has_start)
    config = Dalle1LossConfig(caption_drop=0.0, counts_padding=counts_padding)
    losses = Dalle1Objective(net, config)(PAIRS, torch.Generator())
    text = padded_text(PAIRS.ids, PAIRS.length, 9)
    assert text.tolist() == [[4, 5, 6], [7, 10, 11]]
    logits = net(text, PAIRS.tokens)
    said = []
    for row, first in ((0, 0), (1, 0)):
        for place in range(first, 3):
            if not has_start and place == 0:
                continue  # nothing stands before it
            if not counts_padding and place > int(PAIRS.length[row]):
                continue
            at = place - (0 if has_start else 1)
            said.append(-logits.text[row, at].log_softmax(0)[text[row, place]])
    drawn = [-logits.picture[row, at].log_softmax(0)[PAIRS.tokens[row, at]] for row in (0, 1) for at in range(6)]
    of_text, of_picture = torch.stack(said).mean(), torch.stack(drawn).mean()
    torch.testing.assert_close(losses.total["transformer"], of_text / 8 + 7 * of_picture / 8)
    assert losses.watch["text_perplexity"] == pytest.approx(math.exp(of_text.item()), rel=1e-5)
    assert losses.watch["picture_perplexity"] == pytest.approx(math.exp(of_picture.item()), rel=1e-5)


def test_a_hidden_caption_is_the_empty_one_and_no_target():
    net, rng = network(), torch.Generator().manual_seed(1)
    hidden = torch.rand(2, generator=torch.Generator().manual_seed(1)) < 0.7
    assert hidden.any()
    losses = Dalle1Objective(net, Dalle1LossConfig(caption_drop=0.7))(PAIRS, rng)
    empty = padded_text(PAIRS.ids, PAIRS.length.masked_fill(hidden, 0), 9)
    logits = net(empty, PAIRS.tokens)
    of_picture = -logits.picture.log_softmax(-1).gather(2, PAIRS.tokens[..., None]).mean()
    assert losses.watch["picture_perplexity"] == pytest.approx(math.exp(of_picture.item()), rel=1e-5)
    kept = -logits.text.log_softmax(-1).gather(2, empty[..., None])[~hidden]
    wanted = math.exp(kept.mean().item()) if len(kept) else 1.0
    assert losses.watch["text_perplexity"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("pattern", ["paper", "dense"])
def test_it_learns_two_pairs_by_heart(pattern):
    net = network(pattern=pattern)
    objective = Dalle1Objective(net, Dalle1LossConfig(caption_drop=0.0, scales=GradientScaleConfig()))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    rng = torch.Generator().manual_seed(0)
    first = losses = None
    for _ in range(60):
        losses = objective(PAIRS, rng)
        optimiser.zero_grad()
        losses.total["transformer"].backward()
        optimiser.step()
        objective.after_step()
        first = first or losses.watch
    assert first is not None
    assert losses is not None
    assert first["picture_perplexity"] > 4
    assert losses.watch["picture_perplexity"] < 1.1
    with torch.no_grad():  # and draws the one whose caption it is told
        wish = Wish(options=TokenOptions(temperature=0))
        text = padded_text(PAIRS.ids, PAIRS.length, 9)
        states = drawing(net.eval(), text, [torch.Generator()] * 2, wish)
        assert torch.equal(list(states)[-1].tokens, PAIRS.tokens)
    assert losses.watch["text_perplexity"] < 2.2  # which of the two captions it is, nobody can know
    assert objective.scales[0].scale == pytest.approx(2 ** (13 + 0.06))


@pytest.mark.parametrize("wrong", [{"text": -1.0}, {"text": 0.0, "picture": 0.0}, {"caption_drop": 1.0}])
def test_weights_and_shares_outside_their_range_are_refused(wrong):
    with pytest.raises(BadConfig):
        Dalle1LossConfig(**wrong)
