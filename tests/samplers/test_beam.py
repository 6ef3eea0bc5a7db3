"""Beam search: exact where it can be, else a plain slow version's answer; and a cache whose rows follow the beams."""

import functools
import itertools
import math
from collections import deque

import pytest
import torch

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.rng import picture_generator
from opendalle.samplers import BeamOptions, BeamState, beam_search

VOCABULARY, LONGEST, END = 4, 4, 1


@functools.cache
def after(row: tuple[int, ...]) -> torch.Tensor:
    seed = sum((one + 1) * 7**place for place, one in enumerate(row)) % 100_003
    return 1.5 * torch.randn(VOCABULARY, generator=picture_generator(seed), dtype=torch.float64)


def by_prefix(tokens: torch.Tensor, cache: object = None) -> torch.Tensor:
    """A network whose next token depends on all before it, each prefix with logits of its own."""
    return torch.stack([after(tuple(row)) for row in tokens.tolist()])


def likelihood(start: int, sentence: tuple[int, ...]) -> float:
    total, row = 0.0, [start]
    for token in sentence:
        total += float(by_prefix(torch.tensor([row])).log_softmax(dim=1)[0, token])
        row.append(token)
    return total


def sentences() -> list[tuple[int, ...]]:
    """Every sentence that ends within LONGEST tokens, and every one that has as many without an end."""
    other = [token for token in range(VOCABULARY) if token != END]
    ended = [(*one, END) for n in range(LONGEST) for one in itertools.product(other, repeat=n)]
    return ended + list(itertools.product(other, repeat=LONGEST))


def search(starts: list[int], beams: int, power: float, cache: object = None) -> BeamState:
    states = beam_search(
        by_prefix,
        torch.tensor(starts)[:, None],
        LONGEST,
        end=END,
        options=BeamOptions(beams=beams, length_power=power),
        cache=cache,
    )
    (ended,) = deque(states, maxlen=1)
    return ended


def sentence(state: BeamState, row: int) -> tuple[int, ...]:
    return tuple(state.tokens[row, 1 : 1 + int(state.length[row])].tolist())


@pytest.mark.parametrize("power", [0.0, 0.7, 1.0, 2.0])
def test_with_enough_beams_it_finds_the_best_of_all_sentences(power: float) -> None:
    starts = list(range(3))
    found = search(starts, 3**LONGEST, power)
    for row, start in enumerate(starts):
        score = {one: likelihood(start, one) / len(one) ** power for one in sentences()}
        best = max(score, key=score.__getitem__)
        assert sentence(found, row) == best
        assert bool(found.finished[row]) == (best[-1] == END)
        assert float(found.log_likelihood[row]) == pytest.approx(likelihood(start, best), abs=1e-9)
        assert bool((found.tokens[row, 1 + len(best) :] == END).all())


def slowly(start: int, beams: int, power: float) -> tuple[int, ...]:
    """Search with lists, and to the end."""
    alive: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    best, best_score = (), -math.inf
    for step in range(1, LONGEST + 1):
        longer = []
        for total, said in alive:
            logits = by_prefix(torch.tensor([[start, *said]])).log_softmax(dim=1)[0]
            longer += [(total + float(logits[token]), (*said, token)) for token in range(VOCABULARY)]
        ended = [one for one in longer if one[1][-1] == END]
        alive = sorted((one for one in longer if one[1][-1] != END), reverse=True)[:beams]
        for total, said in ended + (alive if step == LONGEST else []):
            if total / len(said) ** power > best_score:
                best, best_score = said, total / len(said) ** power
    return best


@pytest.mark.parametrize(("beams", "power"), [(1, 0.0), (1, 1.0), (2, 0.5), (3, 1.0), (5, 2.0)])
def test_with_few_beams_it_finds_what_the_plain_version_finds(beams: int, power: float) -> None:
    starts = list(range(12))
    found = search(starts, beams, power)
    assert [sentence(found, row) for row in range(len(starts))] == [slowly(one, beams, power) for one in starts]


def test_a_row_is_searched_alike_alone_and_in_company() -> None:
    together = search([2, 3, 5, 7], 3, 1.0)
    for row, start in enumerate([2, 3, 5, 7]):
        alone = search([start], 3, 1.0)
        assert sentence(alone, 0) == sentence(together, row)
        assert float(alone.log_likelihood[0]) == float(together.log_likelihood[row])


class Rows:
    """A cache that remembers what each of its rows was told."""

    def __init__(self, rows: int) -> None:
        self.said = [[] for _ in range(rows)]

    def reorder(self, index: torch.Tensor) -> None:
        self.said = [list(self.said[one]) for one in index.tolist()]


def test_the_caches_rows_follow_the_beams() -> None:
    cache = Rows(3 * 4)

    def remembering(tokens: torch.Tensor, cache: Rows) -> torch.Tensor:
        for row, said in zip(tokens.tolist(), cache.said, strict=True):
            assert said == row[: len(said)]  # what was cached is what the row says
            said[:] = row
        return by_prefix(tokens)

    states = list(
        beam_search(
            remembering, torch.tensor([[4], [8], [9]]), LONGEST, end=END, options=BeamOptions(beams=4), cache=cache
        )
    )
    assert [state.step for state in states] == list(range(1, len(states) + 1))
    wanted = search([4, 8, 9], 4, 1.0)
    assert torch.equal(states[-1].tokens, wanted.tokens)


def test_it_ends_as_soon_as_nothing_better_can_come() -> None:
    calls = []

    def sure(tokens: torch.Tensor, cache: object) -> torch.Tensor:
        calls.append(tokens.shape[1])
        return torch.tensor([[0.0, 30.0, 0.0, 0.0]]).expand(len(tokens), -1)

    (*_, ended) = beam_search(sure, torch.zeros(2, 1, dtype=torch.long), 50, end=END)
    assert calls == [1]
    assert bool(ended.settled.all())
    assert ended.length.tolist() == [1, 1]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BadRequest, match="0 tokens"):
        beam_search(by_prefix, torch.zeros(1, 1, dtype=torch.long), 0, end=END)
    with pytest.raises(BadConfig, match="beams"):
        BeamOptions(beams=0)
    with pytest.raises(BadConfig, match="length_power"):
        BeamOptions(length_power=-1.0)
