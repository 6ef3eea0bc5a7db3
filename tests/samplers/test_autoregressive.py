"""Tokens drawn one by one: against plain softmax draws, against transformers' filters, and alone as in company."""

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.rng import picture_generator
from opendalle.samplers import GuidedLogits, TokenOptions, sample_tokens
from opendalle.samplers.autoregressive import draw_token, keep_likeliest


def some_logits(rows: int, vocabulary: int = 12, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(rows, vocabulary, generator=picture_generator(seed))


def bigram(tokens: torch.Tensor, cache: object) -> torch.Tensor:
    """A network whose next token depends on the last one; the first on nothing."""
    table = some_logits(13, 12, seed=4)
    last = tokens[:, -1] if tokens.shape[1] else torch.full((len(tokens),), 12)
    return table[last]


@pytest.mark.parametrize(("k", "p"), [(None, 1.0), (3, 1.0), (None, 0.7), (5, 0.8), (40, 0.01)])
def test_the_likeliest_are_those_that_transformers_keeps(k: int | None, p: float) -> None:
    logits = some_logits(20)
    theirs = TemperatureLogitsWarper(0.8)(None, logits)
    if k is not None:
        theirs = TopKLogitsWarper(k)(None, theirs)
    if p < 1:
        theirs = TopPLogitsWarper(p)(None, theirs)
    torch.testing.assert_close(keep_likeliest(logits / 0.8, k, p), theirs)


def test_tokens_come_as_often_as_they_should() -> None:
    logits = torch.tensor([[0.3, -float("inf"), 1.2, -0.7, 0.0]])
    generator, count = picture_generator(1), 40_000
    drawn = draw_token(logits.expand(count, -1), [generator] * count, TokenOptions(temperature=0.5))
    share = torch.bincount(drawn, minlength=5) / count
    wanted = (logits[0] / 0.5).softmax(dim=0)
    assert share[1] == 0
    assert ((share - wanted).abs() < 4 * (wanted / count).sqrt() + 1e-9).all()


def test_a_row_draws_the_same_alone_and_in_company() -> None:
    def walk(seeds: list[int]) -> torch.Tensor:
        start = torch.zeros(len(seeds), 0, dtype=torch.long)
        states = list(sample_tokens(bigram, start, 9, generators=[picture_generator(seed) for seed in seeds]))
        assert [state.step for state in states] == list(range(1, 10))
        return states[-1].tokens

    together = walk([5, 6, 7])
    assert torch.equal(together, torch.cat([walk([seed]) for seed in (5, 6, 7)]))
    assert not torch.equal(together[0], together[1])


def test_temperature_zero_takes_the_likeliest_and_no_chance() -> None:
    generator = picture_generator(0)
    before = generator.get_state()
    *_, ended = sample_tokens(
        bigram, torch.tensor([[2, 3]]), 4, generators=[generator], options=TokenOptions(temperature=0)
    )
    tokens = [2, 3]
    for _ in range(4):
        tokens.append(int(bigram(torch.tensor([tokens]), None).argmax()))
    assert ended.tokens.tolist() == [tokens]
    assert torch.equal(generator.get_state(), before)


def test_guidance_raises_the_odds_of_what_the_prompt_adds() -> None:
    conditional, unconditional = some_logits(3, seed=1), some_logits(3, seed=2)

    def both(tokens: torch.Tensor, cache: object) -> torch.Tensor:
        assert len(tokens) == 6
        return torch.cat([conditional, unconditional])

    tokens = torch.zeros(3, 1, dtype=torch.long)
    guided = GuidedLogits(both, 3.0)(tokens, None).log_softmax(dim=1)
    p, q = conditional.softmax(dim=1), unconditional.softmax(dim=1)
    wanted = p**3 / q**2  # p (p / q)^(scale - 1)
    torch.testing.assert_close(guided.exp(), wanted / wanted.sum(dim=1, keepdim=True))
    torch.testing.assert_close(GuidedLogits(both, torch.ones(3))(tokens, None), conditional)


def test_what_cannot_be_drawn_is_refused() -> None:
    start = torch.zeros(2, 0, dtype=torch.long)
    with pytest.raises(BadRequest, match="one a row"):
        sample_tokens(bigram, start, 1, generators=[picture_generator(0)])
    with pytest.raises(BadRequest, match="at least one"):
        sample_tokens(bigram, start, 0, generators=[picture_generator(0)] * 2)
    for wrong in ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}):
        with pytest.raises(BadConfig):
            TokenOptions(**wrong)
