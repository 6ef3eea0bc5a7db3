"""Several tokens a pass: the very tokens that walking draws, in fewer passes."""

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadRequest
from opendalle.base.rng import picture_generator
from opendalle.samplers import TokenOptions, fixed_point_tokens, sample_tokens

VOCABULARY, LENGTH = 7, 24


class Chain:
    """Each token hangs on the two before it; how strongly, is `pull`."""

    def __init__(self, pull: float) -> None:
        rng = picture_generator(3)
        self.table = pull * torch.randn(VOCABULARY + 1, VOCABULARY + 1, VOCABULARY, generator=rng)
        self.calls = 0

    def next_logits(self, tokens: Tensor, cache: object) -> Tensor:
        self.calls += 1
        return self._at(tokens, tokens.shape[1])

    def ahead(self, tokens: Tensor, num_settled: int, cache: object) -> Tensor:
        self.calls += 1
        return torch.stack([self._at(tokens, place) for place in range(num_settled, tokens.shape[1] + 1)], dim=1)

    def _at(self, tokens: Tensor, place: int) -> Tensor:
        nothing = torch.full((len(tokens), 2), VOCABULARY)
        two = torch.cat([nothing, tokens[:, :place]], dim=1)[:, -2:]
        return self.table[two[:, 0], two[:, 1]]


@pytest.mark.parametrize("options", [TokenOptions(), TokenOptions(temperature=0.7, top_k=4, top_p=0.9)])
@pytest.mark.parametrize("window", [1, 2, 5, 24, 99])
@pytest.mark.parametrize("given", [0, 3])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_tokens_are_those_of_the_walk(options, window, given, rows):
    chain = Chain(1.0)
    start = torch.arange(given).expand(rows, -1) % VOCABULARY
    walked = list(sample_tokens(chain.next_logits, start, LENGTH, generators=seeds(rows), options=options))
    chain.calls = 0
    found = list(fixed_point_tokens(chain.ahead, start, LENGTH, generators=seeds(rows), window=window, options=options))
    assert torch.equal(found[-1].tokens, walked[-1].tokens)
    assert chain.calls == found[-1].passes == len(found) <= LENGTH
    assert [one.step for one in found] == sorted({one.step for one in found})
    assert found[-1].step == LENGTH
    for state in found:  # whatever is settled stays
        assert torch.equal(state.tokens, walked[-1].tokens[:, : given + state.step])


def seeds(rows: int) -> list[torch.Generator]:
    return [picture_generator(11 + row) for row in range(rows)]


def test_generators_stand_where_the_walk_leaves_them():
    chain, ours, theirs = Chain(1.0), seeds(1), seeds(1)
    list(fixed_point_tokens(chain.ahead, torch.zeros(1, 0, dtype=torch.long), 9, generators=ours, window=4))
    list(sample_tokens(chain.next_logits, torch.zeros(1, 0, dtype=torch.long), 9, generators=theirs))
    assert torch.equal(ours[0].get_state(), theirs[0].get_state())


def test_the_less_tokens_hang_on_each_other_the_fewer_the_passes():
    passes = []
    for pull in (0.0, 0.3, 3.0):
        chain = Chain(pull)
        *_, last = fixed_point_tokens(
            chain.ahead, torch.zeros(1, 0, dtype=torch.long), LENGTH, generators=seeds(1), window=LENGTH
        )
        passes.append(last.passes)
    assert passes[0] == 2  # the second pass finds that all guesses were right
    assert passes[0] < passes[1] < passes[2] < LENGTH


def test_at_temperature_zero_no_chance_is_used():
    chain, generators = Chain(1.0), seeds(2)
    before = generators[0].get_state()
    options, start = TokenOptions(temperature=0), torch.zeros(2, 0, dtype=torch.long)
    *_, last = fixed_point_tokens(chain.ahead, start, 9, generators=generators, window=4, options=options)
    *_, wanted = sample_tokens(chain.next_logits, start, 9, generators=generators, options=options)
    assert torch.equal(last.tokens, wanted.tokens)
    assert torch.equal(generators[0].get_state(), before)


@pytest.mark.parametrize("wrong", [{"num_tokens": 0}, {"window": 0}, {"generators": []}])
def test_what_cannot_be_is_refused_at_once(wrong):
    asked = {"num_tokens": 3, "window": 2, "generators": seeds(1)} | wrong
    with pytest.raises(BadRequest):
        fixed_point_tokens(Chain(1.0).ahead, torch.zeros(1, 0, dtype=torch.long), **asked)
