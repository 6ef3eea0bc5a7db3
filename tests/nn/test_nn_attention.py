"""The attention and the transformer equal slow plain versions and other people's blocks."""

import math
from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.embeddings import get_timestep_embedding
from jaxtyping import TypeCheckError
from torch import nn

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.nn.attention import Attention, attention_mask
from opendalle.nn.embeddings import LearnedPositions, TimeEmbedding, sinusoid
from opendalle.nn.transformer import Transformer, TransformerConfig


def plain_attention(attention: Any, tokens: torch.Tensor, context: torch.Tensor, mask: torch.Tensor):
    """Attention one row, one head, one query at a time."""
    rows, num_tokens, width = tokens.shape
    per_head = width // attention.heads
    queries, keys, values = attention.qkv(tokens).chunk(3, dim=-1)
    context_keys, context_values = attention.context_kv(context).chunk(2, dim=-1)
    keys, values = torch.cat([context_keys, keys], 1), torch.cat([context_values, values], 1)
    mixed = torch.zeros_like(tokens)
    for row in range(rows):
        for head in range(attention.heads):
            part = slice(head * per_head, (head + 1) * per_head)
            for query in range(num_tokens):
                scores = keys[row, :, part] @ queries[row, query, part] / math.sqrt(per_head)
                scores[~mask[row, 0, query]] = -math.inf
                mixed[row, query, part] = scores.softmax(0) @ values[row, :, part]
    return attention.out(mixed)


def test_attention_equals_the_plain_version() -> None:
    torch.manual_seed(0)
    attention = Attention(16, 4, context_width=6)
    tokens, context = torch.randn(2, 5, 16), torch.randn(2, 3, 6)
    mask = torch.rand(2, 1, 5, 8) > 0.3
    mask[..., 3:] |= torch.eye(5, dtype=torch.bool)
    got = attention(tokens, mask=mask, context=attention.project_context(context))
    torch.testing.assert_close(got, plain_attention(attention, tokens, context, mask), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_block_equals_the_one_karlo_was_published_with(is_causal: bool) -> None:
    torch.manual_seed(1)
    theirs: Any = BasicTransformerBlock(32, 4, 8, activation_fn="gelu", attention_bias=True).eval()
    ours: Any = Transformer(TransformerConfig(width=32, depth=1, heads=4, is_causal=is_causal, final_norm=False)).eval()
    block = ours.blocks[0]
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
        for mine, linears in (
            (block.attention.qkv, [theirs.attn1.to_q, theirs.attn1.to_k, theirs.attn1.to_v]),
            (block.attention.out, [theirs.attn1.to_out[0]]),
            (block.mlp.up, [theirs.ff.net[0].proj]),
            (block.mlp.down, [theirs.ff.net[2]]),
            (block.norm1, [theirs.norm1]),
            (block.norm2, [theirs.norm3]),
        ):
            mine.weight.copy_(torch.cat([linear.weight for linear in linears]))
            mine.bias.copy_(torch.cat([linear.bias for linear in linears]))
    tokens = torch.randn(2, 7, 32)
    bias = torch.full((7, 7), -10000.0).triu(1).expand(8, 7, 7) if is_causal else None
    torch.testing.assert_close(ours(tokens), theirs(tokens, attention_mask=bias), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_padded", [False, True])
def test_cached_tokens_give_what_the_whole_sequence_gives(is_padded: bool) -> None:
    torch.manual_seed(2)
    network = Transformer(TransformerConfig(width=16, depth=3, heads=2, is_causal=True)).eval()
    tokens, real = torch.randn(2, 9, 16), torch.ones(2, 9, dtype=torch.bool)
    real[0, 2:4] = not is_padded
    cut = (lambda n: real[:, :n]) if is_padded else (lambda n: None)
    with torch.no_grad():
        whole = network(tokens, mask=cut(9))
        cache = network.new_cache(2, 9)
        first = network(tokens[:, :5], mask=cut(5), cache=cache)
        network(tokens[:, 5:8], mask=cut(8), cache=cache)
        cache.rewind(5)  # asking again changes nothing
        middle = network(tokens[:, 5:8], mask=cut(8), cache=cache)
        last = network(tokens[:, 8:], mask=cut(9), cache=cache)
    torch.testing.assert_close(torch.cat([first, middle, last], 1), whole, atol=1e-5, rtol=1e-5)
    with pytest.raises(BadRequest, match="10 tokens"):
        network(tokens[:, :1], cache=cache)


def test_padding_and_later_tokens_are_never_seen() -> None:
    torch.manual_seed(3)
    network = Transformer(TransformerConfig(width=16, depth=2, heads=2, is_causal=True)).eval()
    tokens, real = torch.randn(1, 6, 16), torch.tensor([[True, False, True, True, True, True]])
    changed = tokens.clone()
    changed[:, 1] += 5.0  # padding
    changed[:, 5] += 5.0  # the future of all others
    before, after = network(tokens, mask=real), network(changed, mask=real)
    torch.testing.assert_close(before[:, [0, 2, 3, 4]], after[:, [0, 2, 3, 4]], atol=0, rtol=0)
    nothing = network(tokens, mask=torch.zeros(1, 6, dtype=torch.bool))
    assert nothing.isfinite().all()  # a caption that is all padding is no NaN


def test_mask_is_causal_from_the_last_queries() -> None:
    mask = attention_mask(None, 2, 4, is_causal=True, device=torch.device("cpu"))
    assert mask[0, 0].tolist() == [[True, True, True, False], [True, True, True, True]]


def test_condition_starts_as_identity_and_then_matters() -> None:
    torch.manual_seed(4)
    config = TransformerConfig(width=16, depth=2, heads=2, condition_width=5, final_norm=False)
    network: Any = Transformer(config)
    tokens, condition = torch.randn(2, 3, 16), torch.randn(2, 5)
    torch.testing.assert_close(network(tokens, condition=condition), tokens)
    nn.init.normal_(network.blocks[0].modulation.weight)
    assert not torch.allclose(network(tokens, condition=condition), network(tokens, condition=-condition))


def test_quick_gelu_is_openais() -> None:
    network: Any = Transformer(TransformerConfig(width=4, depth=1, heads=1, activation="quick_gelu"))
    mlp, tokens = network.blocks[0].mlp, torch.randn(1, 2, 4)
    hidden = mlp.up(tokens)
    torch.testing.assert_close(mlp(tokens), mlp.down(hidden * torch.sigmoid(1.702 * hidden)))


def test_sinusoid_equals_diffusers() -> None:
    t = torch.tensor([0, 1, 17, 999])
    expected = get_timestep_embedding(t, 64, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(sinusoid(t, 64), expected, atol=1e-6, rtol=1e-5)
    assert TimeEmbedding(64, 16)(t).shape == (4, 16)


def test_positions_start_where_asked() -> None:
    positions = LearnedPositions(6, 4)
    torch.testing.assert_close(positions(torch.zeros(1, 2, 4), start=3)[0], positions.table[3:5])


@pytest.mark.parametrize(
    "bad",
    [{"heads": 3}, {"depth": 0}, {"mlp_ratio": 0.0}, {"activation": "relu"}, {"norm_eps": 0.0}, {"dropout": 1.0},
     {"condition_width": 0}],
)  # fmt: skip
def test_bad_configs_are_refused(bad: dict) -> None:
    with pytest.raises((BadConfig, TypeCheckError)):  # the shape hook is quicker with closed sets of words
        TransformerConfig(**{"width": 16, "depth": 1, "heads": 2} | bad)


def test_odd_sinusoid_is_refused() -> None:
    with pytest.raises(BadConfig, match="sinusoid_width 3"):
        TimeEmbedding(3, 4)


def test_a_context_before_causal_tokens_is_seen_alike_handed_in_or_cached() -> None:
    torch.manual_seed(0)
    config = TransformerConfig(width=16, depth=2, heads=2, is_causal=True, context_width=8)
    transformer = Transformer(config).eval().requires_grad_(False)
    states, tokens = torch.randn(3, 5, 8), torch.randn(3, 6, 16)
    context = transformer.prepare_context(states)
    whole = transformer(tokens, context=context)
    for length in range(1, 6):  # no token sees a later one
        torch.testing.assert_close(transformer(tokens[:, :length], context=context), whole[:, :length])
    cache = transformer.new_cache(3, 5 + 6)
    context.fill(cache)
    pieces = [transformer(piece, cache=cache) for piece in tokens.split([1, 3, 1, 1], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 5])
    padded = transformer(tokens, context=transformer.prepare_context(states, real))
    torch.testing.assert_close(
        padded[1:2], transformer(tokens[1:2], context=transformer.prepare_context(states[1:2, :3]))
    )


def test_rows_of_a_cache_change_places() -> None:
    torch.manual_seed(0)
    transformer = (
        Transformer(TransformerConfig(width=16, depth=2, heads=2, is_causal=True)).eval().requires_grad_(False)
    )
    begun, more, order = torch.randn(3, 4, 16), torch.randn(3, 2, 16), torch.tensor([2, 2, 0])
    cache = transformer.new_cache(3, 6)
    transformer(begun, cache=cache)
    cache.reorder(order)
    wanted = transformer(torch.cat([begun[order], more], dim=1))[:, 4:]
    torch.testing.assert_close(transformer(more, cache=cache), wanted)
    begun[:, 0] = begun[:1, 0]  # alike in all rows: that token may stay where it is
    cache = transformer.new_cache(3, 6)
    transformer(begun, cache=cache)
    cache.reorder(order, first=1)
    wanted = transformer(torch.cat([begun[order], more], dim=1))[:, 4:]
    torch.testing.assert_close(transformer(more, cache=cache), wanted)
