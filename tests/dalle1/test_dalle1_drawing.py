"""Drawing words: with a cache and without, guided and not, round what is known, and what likelihoods say."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadRequest
from opendalle.base.rng import picture_generator
from opendalle.dalle1.drawing import (
    UNKNOWN,
    CaptionLogits,
    Wish,
    candidate_generators,
    drawing,
    empty_text,
    fit_of_known,
    known_words,
    log_likelihood,
    read_captions,
    text_log_likelihood,
)
from opendalle.dalle1.transformer import Dalle1Transformer, Dalle1TransformerConfig, padded_text
from opendalle.samplers import TokenOptions, sample_tokens
from opendalle.tokenizers.bpe import BytePairTokenizer

CONFIG = Dalle1TransformerConfig(
    text_vocabulary=11,
    num_text=4,
    picture_vocabulary=7,
    grid_height=3,
    grid_width=4,
    width=16,
    depth=4,
    heads=2,
    kernel=3,
    initialisation="gpt",
)
PATTERNS = ["paper", "dense", "row", "column", "convolution"]
TEXT = padded_text(torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [7, 0, 0, 0]]), torch.tensor([4, 2, 1]), 11)


def network(**changed: object) -> Dalle1Transformer:
    torch.manual_seed(0)
    net = Dalle1Transformer(replace(CONFIG, **changed)).double().eval().requires_grad_(False)
    for weight in net.parameters():
        weight.add_(0.4 * torch.randn_like(weight))
    return net


def seeds(rows: Sequence[int]) -> list[torch.Generator]:
    return [picture_generator(40 + row) for row in rows]


def drawn(net: Dalle1Transformer, text: Tensor, wish: Wish, rows: Sequence[int] = (0, 1, 2), known=None) -> Tensor:
    return list(drawing(net, text, seeds(rows), wish, known))[-1].tokens


def uncached(net: Dalle1Transformer, text: Tensor, guidance: float, generators: list[torch.Generator]) -> Tensor:
    """Draw with nothing but whole passes, guidance written out."""

    def next_logits(tokens: Tensor, cache: object) -> Tensor:
        with_caption = net(text, tokens).picture[:, -1].log_softmax(-1)
        without = net(empty_text(net, len(text)), tokens).picture[:, -1].log_softmax(-1)
        return without + guidance * (with_caption - without)

    start = torch.zeros(len(text), 0, dtype=torch.long)
    return list(sample_tokens(next_logits, start, 12, generators=generators))[-1].tokens


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_cache_changes_nothing_with_guidance_and_without(pattern, guidance):
    """Three captions in one batch; each alone; and every logit on the way."""
    net = network(pattern=pattern, has_start=pattern != "row")
    together = drawn(net, TEXT, Wish(guidance=guidance))
    assert torch.equal(together, uncached(net, TEXT, guidance, seeds([0, 1, 2])))
    for row in range(3):
        assert torch.equal(drawn(net, TEXT[row : row + 1], Wish(guidance=guidance), [row])[0], together[row])
    logits = CaptionLogits(net, TEXT, guidance)
    cache = logits.new_cache()
    for length in range(12):
        so_far = together[:, :length]
        torch.testing.assert_close(logits(so_far, cache), logits(so_far, None), rtol=0, atol=1e-9)


def test_guidance_neither_cancels_nor_touches_the_caption():
    """Two faults of a known implementation: a null pass that eats the caption, and one that reads its cache."""
    net, text = network(), TEXT.clone()
    plain, guided = (drawn(net, text, Wish(guidance=scale)) for scale in (1.0, 8.0))
    assert torch.equal(text, TEXT)
    assert not torch.equal(plain, guided)
    assert torch.equal(drawn(net, text, Wish(guidance=torch.tensor([1.0, 8.0, 1.0])))[1], guided[1])
    assert torch.equal(drawn(net, text, Wish(guidance=torch.tensor([1.0, 8.0, 1.0])))[::2], plain[::2])


@pytest.mark.parametrize("pattern", ["paper", "dense"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("lookahead", [2, 4, 12, 50])
def test_several_words_a_pass_are_the_same_words(pattern, guidance, lookahead):
    net = network(pattern=pattern)
    options = TokenOptions(temperature=0.8, top_k=5)
    walked = drawn(net, TEXT, Wish(guidance=guidance, options=options))
    states = list(drawing(net, TEXT, seeds(range(3)), Wish(guidance=guidance, options=options, lookahead=lookahead)))
    assert torch.equal(states[-1].tokens, walked)
    assert states[-1].passes <= 12
    one = list(drawing(net, TEXT[:1], seeds([0]), Wish(guidance=guidance, options=options, lookahead=lookahead)))
    assert torch.equal(one[-1].tokens, walked[:1])


KNOWN_CELLS = {
    "top": [1] * 4 + [0] * 8,
    "bottom": [0] * 8 + [1] * 4,
    "left": [1, 1, 0, 0] * 3,
    "hole": [1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1],
    "all": [1] * 12,
}


@pytest.mark.parametrize("side", list(KNOWN_CELLS))
@pytest.mark.parametrize("lookahead", [1, 5])
def test_known_words_stay_and_the_rest_is_drawn_after_them(side, lookahead):
    net = network()
    cells = torch.tensor([KNOWN_CELLS[side]], dtype=torch.bool).expand(3, -1)
    words = torch.randint(7, (3, 12), generator=picture_generator(5))
    known = known_words(words, cells)
    assert (known == UNKNOWN).sum() == 3 * KNOWN_CELLS[side].count(0)
    result = drawn(net, TEXT, Wish(guidance=2.0, lookahead=lookahead), known=known)
    assert torch.equal(result[cells], words[cells])
    if side == "all":
        return
    assert torch.equal(result, drawn(net, TEXT, Wish(guidance=2.0), known=known))  # lookahead changes nothing
    # Every drawn word has the probability that the network gives it after all words before it, known ones included.
    logits = CaptionLogits(net, TEXT, 2.0)
    generators = seeds(range(3))
    for place in range(int(cells[0].long().cumprod(0).sum()), 12):
        said = logits(result[:, :place], None).double().softmax(1)
        even = torch.tensor([torch.rand((), generator=one, dtype=torch.float64) for one in generators])
        if not cells[0, place]:
            below = torch.stack([row[:word].sum() for row, word in zip(said, result[:, place], strict=True)])
            above = below + said.gather(1, result[:, place : place + 1])[:, 0]
            assert ((below - 1e-9 <= even) & (even <= above + 1e-9)).all()


def test_words_of_another_number_are_refused():
    with pytest.raises(BadRequest):
        drawing(network(), TEXT, seeds(range(3)), Wish(), torch.zeros(3, 11, dtype=torch.long))


def test_likelihoods_are_those_of_the_walk_and_sum_to_one():
    net = network()
    tokens = torch.randint(7, (3, 12), generator=picture_generator(2))
    found = log_likelihood(net, TEXT, tokens)
    logits = CaptionLogits(net, TEXT)
    cache = logits.new_cache()
    for place in range(12):
        said = logits(tokens[:, :place], cache).log_softmax(1).gather(1, tokens[:, place : place + 1])[:, 0]
        torch.testing.assert_close(found[:, place].double(), said, rtol=0, atol=1e-5)
    small = network(grid_height=1, grid_width=3, picture_vocabulary=4)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    total = log_likelihood(small, TEXT[:1].expand(64, -1), every).sum(1).double().exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("has_start", [True, False])
def test_likelihoods_of_captions_sum_to_one(has_start):
    net = network(text_vocabulary=2, num_text=3, has_start=has_start)  # tokens 0 and 1, then three padding tokens
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)
    said = text_log_likelihood(net, every)
    assert said.shape == (125, 3)
    total = said.sum(1).double().exp().sum().item()
    assert total == pytest.approx(1 if has_start else 5, abs=1e-4)  # without a start nothing is said of the first


def test_the_best_candidate_round_known_words_is_the_one_that_they_follow():
    likelihood = torch.tensor([[-1.0, -2.0, -4.0, -8.0], [-1.0, -3.0, -5.0, -7.0]])
    known = torch.tensor([[3, UNKNOWN, 2, UNKNOWN], [UNKNOWN, 1, UNKNOWN, 4]])
    assert fit_of_known(likelihood, known).tolist() == [-4.0, -10.0]  # the very first word hangs on nothing drawn


def test_candidates_have_chances_of_their_own_the_first_the_pictures():
    alone, several = candidate_generators(7, 1), candidate_generators(7, 4)
    assert torch.equal(alone[0].get_state(), several[0].get_state())
    assert torch.equal(several[0].get_state(), picture_generator(7).get_state())
    assert len({int(one.initial_seed()) for one in several}) == 4
    assert [one.initial_seed() for one in candidate_generators(7, 3)] == [one.initial_seed() for one in several[:3]]


def test_captions_are_read_to_the_last_place_that_there_is():
    tokenizer = BytePairTokenizer.train(["a red apple"] * 3, 262)
    net = network(text_vocabulary=tokenizer.vocab_size, num_text=5)
    text = read_captions(tokenizer, ["", "a", "a red apple and more"], net)
    assert torch.equal(text[:1], empty_text(net, 1))
    assert text[1].tolist() == [*tokenizer.encode("a"), *range(tokenizer.vocab_size + 1, tokenizer.vocab_size + 5)]
    assert text[2].tolist() == tokenizer.encode("a red apple and more")[:5]
