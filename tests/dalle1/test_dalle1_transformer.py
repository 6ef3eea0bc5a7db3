"""DALL·E 1's transformer: who reads whom, what a cache changes (nothing), and how many weights there are."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from opendalle.base.errors import BadConfig, BadModel, BadRequest
from opendalle.checkpoint.configs import from_plain, to_plain
from opendalle.dalle1.transformer import (
    DALLE1_PRESETS,
    Dalle1Transformer,
    Dalle1TransformerConfig,
    padded_text,
)

TINY = Dalle1TransformerConfig(
    text_vocabulary=11,
    num_text=4,
    picture_vocabulary=13,
    grid_height=3,
    grid_width=4,
    width=16,
    depth=4,
    heads=2,
    kernel=3,
    initialisation="gpt",
)
PATTERNS = ["paper", "dense", "row", "column", "convolution"]


def network(seed: int = 0, **changed: object) -> Dalle1Transformer:
    torch.manual_seed(seed)
    made = Dalle1Transformer(replace(TINY, **changed)).double().eval()
    with torch.no_grad():
        for weight in made.parameters():  # fresh read-outs are zero
            weight.add_(0.3 * torch.randn_like(weight))
    return made


def inputs(rows: int = 2, cells: int = 12) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    text = torch.randint(11, (rows, 4), generator=rng)
    return padded_text(text, torch.tensor([4, 2, 0, 3][:rows]), 11), torch.randint(13, (rows, cells), generator=rng)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("has_start", [True, False])
def test_no_token_knows_what_comes_later(pattern, has_start):
    net = network(pattern=pattern, has_start=has_start)
    text, tokens = inputs(1)
    before = net(text, tokens)
    assert before.text.shape == (1, 4 if has_start else 3, 15)
    assert before.picture.shape == (1, 12, 13)
    for place in range(12):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % 13
        after = net(text, other)
        torch.testing.assert_close(after.picture[:, : place + 1], before.picture[:, : place + 1], rtol=0, atol=1e-12)
        assert torch.equal(after.text, before.text)  # the caption never sees the picture
        if place < 11:
            assert (after.picture[:, place + 1] - before.picture[:, place + 1]).abs().max() > 1e-6
    for place in range(4):
        other = text.clone()
        other[0, place] = (other[0, place] + 1) % 11
        after = net(other, tokens)
        known = place + 1 if has_start else place
        torch.testing.assert_close(after.text[:, :known], before.text[:, :known], rtol=0, atol=1e-12)
        assert ((after.picture - before.picture).abs().amax(dim=(0, 2)) > 1e-9).all()  # every word hears the caption


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("has_start", [True, False])
@pytest.mark.parametrize("norm", ["pre", "sandwich"])
@torch.no_grad()
def test_with_a_cache_it_says_the_same_of_different_captions_in_one_batch(pattern, has_start, norm):
    net = network(pattern=pattern, has_start=has_start, norm=norm, ties_embeddings=has_start)
    text, tokens = inputs(4)
    whole = net(text, tokens).picture
    cache = net.new_cache(4)
    found, start = [net.read(text, cache)[:, None]], 0
    for piece in (1, 1, 3, 1, 5):
        found.append(net.advance(tokens[:, start : start + piece], cache))
        start += piece
    torch.testing.assert_close(torch.cat(found, dim=1), whole, rtol=0, atol=1e-10)
    cache.rewind(net.config.num_read + 2)  # and once more from the third word on
    torch.testing.assert_close(net.advance(tokens[:, 2:7], cache), whole[:, 3:8], rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_cache_is_kept_in_what_the_network_computes_in():
    net = network().float()
    assert net.new_cache(1).keys.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = net.new_cache(2)
        assert cache.keys.dtype == torch.bfloat16
        text, tokens = inputs()
        first = net.read(text, cache)
        rest = net.advance(tokens[:, :5], cache)
    wanted = net(text, tokens).picture[:, :6]
    torch.testing.assert_close(torch.cat([first[:, None], rest], dim=1).float(), wanted, rtol=0, atol=0.5)


def test_a_part_of_a_picture_is_the_beginning_of_the_whole():
    net = network()
    text, tokens = inputs()
    whole = net(text, tokens).picture
    for cells in (0, 1, 4, 7, 11):
        torch.testing.assert_close(net(text, tokens[:, :cells]).picture, whole[:, : cells + 1], rtol=0, atol=1e-12)


def test_every_place_has_a_padding_token_of_its_own():
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 8], [1, 2, 3, 4]])
    assert padded_text(ids, torch.tensor([4, 2, 0]), 11).tolist() == [[5, 6, 7, 8], [5, 6, 13, 14], [11, 12, 13, 14]]


def test_rows_and_columns_say_where_a_word_stands():
    """Two words of equal row and column are alike to the network, all others differ."""
    net = network()
    states = net._word_states(torch.zeros(1, 12, dtype=torch.long), 0)[0]
    wanted = net.words.weight[0] + net.rows.weight[[0] * 4 + [1] * 4 + [2] * 4] + net.columns.weight[[0, 1, 2, 3] * 3]
    torch.testing.assert_close(states, wanted)
    torch.testing.assert_close(net._word_states(torch.zeros(1, 5, dtype=torch.long), 6)[0], wanted[6:11])


def test_presets_have_as_many_weights_as_they_should():
    def count(config: Dalle1TransformerConfig) -> int:
        with torch.device("meta"):
            return sum(weight.numel() for weight in Dalle1Transformer(config).parameters())

    paper = DALLE1_PRESETS["paper"]
    width, vocabulary = paper.width, paper.num_text_tokens + paper.picture_vocabulary
    layer = 12 * width**2 + 13 * width  # four projections, two of four times the width, biases and norms
    wanted = 64 * layer + 2 * width + 2 * vocabulary * width + (256 + 32 + 32 + 1) * width
    assert count(paper) == wanted == 12_293_828_224
    assert {name: count(config) for name, config in DALLE1_PRESETS.items() if name != "paper"} == {
        "emoji": 5_827_776,
        "small": 63_110_656,
    }
    assert paper.num_text + paper.num_cells == 1280


def test_open_points_are_part_of_the_config_and_of_its_json():
    config = replace(TINY, has_start=False, edge="cut", ties_embeddings=True, norm="sandwich")
    assert from_plain(Dalle1TransformerConfig, to_plain(config)) == config
    net = network(ties_embeddings=True)
    assert net.words_out is None
    text, tokens = inputs()
    before = net(text, tokens[:, :1]).picture
    with torch.no_grad():
        net.words.weight[7] *= 2  # a word that was not read: its logit alone doubles
    assert 7 not in tokens[:, :1]
    after = net(text, tokens[:, :1]).picture
    factor = torch.ones(13, dtype=torch.float64).index_fill(0, torch.tensor(7), 2.0)
    torch.testing.assert_close(after, before * factor)


def test_fresh_weights_have_the_spread_of_their_rule():
    torch.manual_seed(0)
    config = replace(TINY, width=256, depth=2, heads=4)
    for rule, std, last in (("gpt", 0.02, 0.01), ("sparse-transformer", 0.125 / 16, 0.125 / 32 / 2)):
        weights = dict(Dalle1Transformer(replace(config, initialisation=rule)).layers[0].named_parameters())
        assert weights["mlp.up.weight"].std().item() == pytest.approx(std, rel=0.02)
        assert weights["mlp.down.weight"].std().item() == pytest.approx(last, rel=0.02)


@pytest.mark.parametrize("wrong", [{"num_text": 0}, {"heads": 3}, {"kernel": 4}, {"dropout": 1.0}, {"depth": 0}])
def test_shapes_that_cannot_be_are_refused(wrong):
    with pytest.raises(BadConfig):
        replace(TINY, **wrong)


@pytest.mark.parametrize("wrong", [{"pattern": "diagonal"}, {"edge": "x"}, {"norm": "post"}, {"initialisation": "x"}])
def test_words_that_are_unknown_are_refused(wrong):
    with pytest.raises(BadModel):
        from_plain(Dalle1TransformerConfig, to_plain(TINY) | wrong)


def test_tokens_that_do_not_fit_are_refused():
    net = network()
    text, tokens = inputs()
    for pair in ((text[:, :3], tokens), (text, torch.cat([tokens, tokens], dim=1))):
        with pytest.raises(BadRequest):
            net(*pair)
