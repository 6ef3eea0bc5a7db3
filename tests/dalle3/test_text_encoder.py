"""The text encoder by itself: padding, precision, fresh weights; states on disk."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from opendalle.base.errors import BadConfig, BadData, BadModel, BadRequest
from opendalle.checkpoint.configs import from_plain, to_plain
from opendalle.checkpoint.folder import Part, write_model
from opendalle.dalle3.reading import CaptionReader
from opendalle.dalle3.text_cache import TextCache, cache_stamps, write_text_cache
from opendalle.dalle3.text_encoder import TEXT_ENCODER_PRESETS, TextEncoder, TextEncoderConfig
from opendalle.pretrained import load
from opendalle.tokenizers import BytePairTokenizer, ByteTokenizer

TINY = TextEncoderConfig(vocabulary=384, width=16, depth=2, heads=2, head_width=6, hidden=20)
CAPTIONS = ["a red apple", "", "一只猫", "a caption that is longer than it may be, by far"]


def encoder(seed: int = 0, **change: Any) -> TextEncoder:
    torch.manual_seed(seed)
    return TextEncoder(from_plain(TextEncoderConfig, {**to_plain(TINY), **change})).eval().requires_grad_(False)


def reader(seed: int = 0, context: int = 24) -> CaptionReader:
    return CaptionReader(encoder(seed), ByteTokenizer(), context=context)


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_padding_changes_nothing_and_is_zero(kind: str) -> None:
    network = encoder(feed_forward=kind)
    ids, mask = map(torch.from_numpy, ByteTokenizer().pack(CAPTIONS, 24))
    said = network(ids, mask)
    assert torch.equal(network(ids.masked_fill(~mask, 77), mask).states, said.states)
    assert not said.states[~mask].any()
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        alone = network(ids[row : row + 1, :length], mask[row : row + 1, :length]).states[0]
        torch.testing.assert_close(said.states[row, :length], alone, rtol=0, atol=1e-5)
    nothing = network(ids, torch.zeros_like(mask))
    assert torch.equal(nothing.states, torch.zeros_like(nothing.states))  # and not NaN
    assert torch.equal(said.rows(slice(1, 3)).states, said.states[1:3])


def test_order_matters() -> None:
    network = encoder()
    ids, mask = map(torch.from_numpy, ByteTokenizer().pack(["ab", "ba"], 3))
    states = network(ids, mask).states
    assert (states[0, 0] - states[1, 1]).abs().max() > 1e-3
    network.distances.weight.zero_()  # then it reads a bag of tokens
    states = network(ids, mask).states
    torch.testing.assert_close(states[0, [0, 1]], states[1, [1, 0]])


def test_it_never_computes_in_float16() -> None:
    ids, mask = map(torch.from_numpy, ByteTokenizer().pack(["a"], 4))
    with pytest.raises(BadModel, match=r"float16; wanted float32 or bfloat16\. .*65,504"):
        encoder().half()(ids, mask)
    mixed = encoder()
    mixed.norm.half()
    with pytest.raises(BadModel, match="float16"):
        mixed(ids, mask)
    with torch.autocast("cpu", dtype=torch.float16), pytest.raises(BadModel, match="float16"):
        encoder()(ids, mask)


def test_what_float16_cannot_hold_bfloat16_can() -> None:
    """States beyond 65,504, as trained T5s have them, come out as in float32."""
    network = encoder()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("mlp.down.weight"):
                weight.mul_(3e5)
    ids, mask = map(torch.from_numpy, ByteTokenizer().pack(CAPTIONS, 24))
    wanted = network(ids, mask).states
    grown: list[float] = []
    network.norm.register_forward_pre_hook(lambda module, given: grown.append(given[0].abs().max().item()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (network(ids, mask).states - wanted).abs().max() < 0.15
    assert (network.bfloat16()(ids, mask).states.float() - wanted).abs().max() < 0.15
    assert min(grown) > 65_504


def test_norms_square_in_float32() -> None:
    norm = encoder().bfloat16().norm
    assert isinstance(norm, nn.RMSNorm)
    x = (torch.randn(5, 16) * 300).bfloat16()
    wanted = x.double() / (x.double().pow(2).mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(norm(x).double(), wanted, rtol=2**-8, atol=0)


def test_fresh_weights_give_states_and_logits_of_unit_size() -> None:
    torch.manual_seed(0)
    network = TextEncoder(TEXT_ENCODER_PRESETS["emoji"]).requires_grad_(False)
    assert sum(weight.numel() for weight in network.parameters()) == 2_288_192
    layer: Any = network.layers[0]
    tokens = layer.norm1(network.tokens(torch.arange(3, 259)[None]))
    queries, keys, _ = layer.attention.qkv(tokens).unflatten(-1, (3, 4, 48)).unbind(2)
    assert 0.8 < torch.einsum("bnkc,bmkc->bknm", queries, keys).std() < 1.25  # without a scale of the logits
    said = network(torch.arange(3, 259)[None], torch.ones(1, 256, dtype=torch.bool)).states
    assert 0.8 < said.pow(2).mean().sqrt() < 1.2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 0}, "sizes"),
        ({"num_buckets": 30}, "multiple of 4"),
        ({"max_distance": 8}, "max_distance 8"),
        ({"norm_eps": 0.0}, "norm_eps"),
    ],
)
def test_impossible_configs_are_refused(change: dict, says: str) -> None:
    with pytest.raises(BadConfig, match=says):
        TextEncoderConfig(**{**to_plain(TINY), **change})
    with pytest.raises(BadModel, match="feed_forward = 'silu'"):
        from_plain(TextEncoderConfig, {**to_plain(TINY), "feed_forward": "silu"})


def test_wrong_tokens_are_told() -> None:
    ids = torch.tensor([[1, 384]])
    with pytest.raises(BadRequest, match="tokens from 1 to 384; wanted 0 to 383"):
        encoder()(ids, torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(BadConfig, match="a tokenizer of 384 tokens; wanted at most 100"):
        CaptionReader(encoder(vocabulary=100), ByteTokenizer(), context=8)


def test_a_model_folder_gives_the_encoder_back(tmp_path: Path) -> None:
    network = encoder(3)
    card = {"data": "none", "recipe": "by hand", "licence": "none"}
    part = Part(to_plain(TINY), network.state_dict())
    write_model(tmp_path / "text", kind="text-encoder", parts={"text": part}, card=card)
    again = load(tmp_path / "text")
    assert isinstance(again, TextEncoder)
    assert all(torch.equal(one, network.state_dict()[name]) for name, one in again.state_dict().items())


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_states_come_back_from_disk(tmp_path: Path, precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opendalle.dalle3.text_cache.PIECE", 3)
    monkeypatch.setattr("opendalle.dalle3.text_cache.TOGETHER", 2)
    told: list[int] = []
    out, captions = tmp_path / "said", [*CAPTIONS, *CAPTIONS[::-1]]
    assert not write_text_cache(out, captions, reader(), precision=precision, stop=lambda: True)
    assert write_text_cache(out, captions, reader(), precision=precision, tell=told.append)  # goes on
    assert told == [6, 8]
    cache = TextCache(out, stamps=cache_stamps(reader(), captions), verify=True)
    assert (len(cache), cache.width, cache.context) == (8, 16, 24)
    rows = torch.tensor([6, 0, 3, 7, 1])
    said, wanted = cache.read(rows), reader().read([captions[row] for row in rows])
    assert torch.equal(said.mask, wanted.mask)
    if precision == "float32":
        torch.testing.assert_close(said.states, wanted.states, rtol=0, atol=1e-6)
    else:
        torch.testing.assert_close(said.states, wanted.states, rtol=2**-8, atol=1e-6)
        assert torch.equal(said.states.bfloat16().float(), said.states)
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    tokens = sum(min(len(caption.encode()) + 1, 24) for caption in captions)
    assert size < tokens * 16 * (2 if precision == "bfloat16" else 4) + 1_000  # a caption takes as much as it has


def test_a_cache_of_anything_else_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "said"
    write_text_cache(out, CAPTIONS, reader())
    TextCache(out, stamps=cache_stamps(reader(), CAPTIONS))
    learned = BytePairTokenizer.train(CAPTIONS, 300)
    others = {
        "text encoder": cache_stamps(reader(seed=1), CAPTIONS),
        "tokenizer": cache_stamps(CaptionReader(encoder(), learned, context=24), CAPTIONS),
        "context": cache_stamps(reader(context=25), CAPTIONS),
        "captions": cache_stamps(reader(), CAPTIONS[::-1]),
    }
    for name, stamps in others.items():
        with pytest.raises(BadData, match=f"made with {name}"):
            TextCache(out, stamps=stamps)
    half = reader()
    half.encoder.bfloat16()
    with pytest.raises(BadData, match="made with text encoder"):
        TextCache(out, stamps=cache_stamps(half, CAPTIONS))
    write_text_cache(tmp_path / "other", CAPTIONS, reader(), stop=lambda: True)
    with pytest.raises(BadData, match="exists"):
        write_text_cache(out, CAPTIONS, reader())


def test_pieces_of_another_encoder_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opendalle.dalle3.text_cache.PIECE", 2)
    assert not write_text_cache(tmp_path / "said", CAPTIONS, reader(), stop=lambda: True)
    with pytest.raises(BadData, match="made with text encoder"):
        write_text_cache(tmp_path / "said", CAPTIONS, reader(seed=1))
    with pytest.raises(BadData, match="made with precision bfloat16"):
        write_text_cache(tmp_path / "said", CAPTIONS, reader(), precision="float32")
