"""T5's encoder, its key map and its tokens against the transformers library, at tiny size with random weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.byt5.tokenization_byt5 import ByT5Tokenizer
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5Attention, T5EncoderModel, T5ForConditionalGeneration
from transformers.models.t5.tokenization_t5 import T5Tokenizer

from opendalle.base.errors import BadModel
from opendalle.dalle3.text_encoder import TEXT_ENCODER_PRESETS, TextEncoder, distance_buckets
from opendalle.pretrained.maps.t5 import encoder_table, one_embedding, t5_config
from opendalle.tokenizers import ByteTokenizer, UnigramTokenizer

LENGTHS = [40, 7, 1]
# 40 tokens pass the near distances and, at 24, the farthest.
TINY = {"vocab_size": 61, "d_model": 24, "d_kv": 10, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2}
TINY |= {"num_heads": 3, "relative_attention_num_buckets": 16, "relative_attention_max_distance": 24}
KINDS = ["relu", "gated-gelu"]


def theirs(kind: str, model: type = T5EncoderModel, seed: int = 0) -> Any:
    """Their class with weights that all matter, norms and distances as well."""
    network = model(T5Config(**TINY, feed_forward_proj=kind)).eval().requires_grad_(False)
    rng = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        noise = torch.randn(weight.shape, generator=rng)
        if "relative" in name or weight.ndim == 1:
            weight.copy_(noise if weight.ndim > 1 else 1 + 0.3 * noise)
        else:
            weight.copy_(noise / weight.shape[1] ** 0.5)
    return network


def ours(network: Any, state: dict[str, Tensor] | None = None) -> TextEncoder:
    """Ours, made from their config as a file holds it, and from their weights alone."""
    published = t5_config(json.loads(network.config.to_json_string(use_diff=False)))
    encoder = TextEncoder(published.encoder)
    table = encoder_table(published.encoder, published.decoder_depth)
    encoder.load_state_dict(table.to_ours(one_embedding(network.state_dict() if state is None else state)))
    return encoder.eval().requires_grad_(False)


def captions() -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, TINY["vocab_size"], (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    return ids, torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]


def read_by(network: Any) -> Tensor:
    ids, mask = captions()
    return network(input_ids=ids, attention_mask=mask.long()).last_hidden_state


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_equal(kind: str) -> None:
    network = theirs(kind)
    ids, mask = captions()
    said, wanted = ours(network)(ids, mask), read_by(network)
    torch.testing.assert_close(said.states[mask], wanted[mask], rtol=0, atol=1e-5)
    assert wanted[mask].std() > 0.5  # something is compared
    assert not said.states[~mask].any()


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_as_close_as_theirs(kind: str) -> None:
    """On average of a few networks: which rounding is luckier in one is chance."""
    ids, mask = captions()
    off, allowed = [], []
    for seed in range(6):
        network = theirs(kind, seed=seed)
        wanted = read_by(network)[mask]
        said = ours(network).bfloat16()(ids, mask).states
        assert said.dtype == torch.bfloat16
        off.append((said.float()[mask] - wanted).abs().mean().item())
        allowed.append((read_by(network.bfloat16()).float()[mask] - wanted).abs().mean().item())
    assert sum(off) <= 1.1 * sum(allowed)
    assert max(off) < 0.05


@pytest.mark.parametrize(("kinds", "farthest"), [(32, 128), (16, 24), (8, 20), (4, 2)])
def test_distances_fall_into_the_same_buckets(kinds: int, farthest: int) -> None:
    place = torch.arange(300)
    wanted = T5Attention._relative_position_bucket(
        place[None] - place[:, None], bidirectional=True, num_buckets=kinds, max_distance=farthest
    )
    assert torch.equal(distance_buckets(300, kinds, farthest), wanted)
    assert len(wanted.unique()) == kinds - 1  # no distance is both ahead and zero


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_on_disk_gives_its_encoder(kind: str, tmp_path: Path) -> None:
    network = theirs(kind, T5ForConditionalGeneration)
    network.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert any(key.startswith("decoder.") for key in state)
    published = t5_config(json.loads((tmp_path / "config.json").read_text()))
    assert published.decoder_depth == TINY["num_decoder_layers"]
    encoder = ours(network, state)
    assert encoder.config == published.encoder
    ids, mask = captions()
    wanted = read_by(network.get_encoder())
    torch.testing.assert_close(encoder(ids, mask).states[mask], wanted[mask], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_map_is_total_and_goes_both_ways(kind: str) -> None:
    config = ours(theirs(kind)).config
    state = theirs(kind, T5ForConditionalGeneration).state_dict()
    depth = TINY["num_decoder_layers"]
    mapped = encoder_table(config, depth).to_ours(one_embedding(state))
    assert mapped.keys() == TextEncoder(config).state_dict().keys()
    back = encoder_table(config).to_theirs(mapped)
    wanted = {key for key in state if key.startswith("encoder.") and "embed_tokens" not in key} | {"shared.weight"}
    assert back.keys() == wanted
    assert all(torch.equal(back[key], state[key]) for key in back)
    known = {*encoder_table(config, depth).dropped, *back}
    assert set(one_embedding(state)) <= known
    for unknown in ("decoder.block.0.layer.0.SelfAttention.q.weight", "encoder.block.3.layer.0.layer_norm.weight"):
        with pytest.raises(BadModel, match=unknown.replace(".", r"\.")):  # no decoder was spoken of; a layer too many
            encoder_table(config).to_ours({**back, unknown: torch.zeros(1)})
    for key in back:
        with pytest.raises(BadModel, match="no weights"):
            encoder_table(config).to_ours({one: tensor for one, tensor in back.items() if one != key})


def test_the_table_of_tokens_may_have_either_name_or_both() -> None:
    state = theirs("relu").state_dict()
    assert {"shared.weight", "encoder.embed_tokens.weight"} <= state.keys()
    for absent in ("shared.weight", "encoder.embed_tokens.weight"):
        one = one_embedding({key: tensor for key, tensor in state.items() if key != absent})
        assert one.keys() == one_embedding(state).keys()
        assert torch.equal(one["shared.weight"], state["shared.weight"])
    with pytest.raises(BadModel, match="that differ"):
        one_embedding({**state, "shared.weight": state["shared.weight"] + 1})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "umt5"}, "model_type"),  # whose layers have distances of their own
        ({"feed_forward_proj": "gated-silu"}, "gated-silu"),
        ({"is_decoder": True}, "is_decoder"),
        ({"rope_theta": 1.0}, "rope_theta"),
        ({"d_model": "512"}, "d_model"),
    ],
)
def test_other_configs_are_refused_by_name(change: dict, says: str) -> None:
    with pytest.raises(BadModel, match=says):
        t5_config({**T5Config(**TINY).to_dict(), **change})


PUBLISHED = {  # as the published configs have it; counts of the encoder, tokens included
    "t5-small": ({}, 35_330_816),
    "t5-base": ({"d_model": 768, "d_ff": 3_072, "num_layers": 12, "num_heads": 12}, 109_628_544),
    "t5-v1_1-xxl": (
        {"d_model": 4_096, "d_ff": 10_240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu"},
        4_762_310_656,
    ),
    "byt5-small": (
        {"vocab_size": 384, "d_model": 1_472, "d_ff": 3_584, "num_layers": 12, "num_heads": 6}
        | {"num_decoder_layers": 4, "feed_forward_proj": "gated-gelu"},
        217_657_472,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_published_sizes(name: str) -> None:
    values, count = PUBLISHED[name]
    with torch.device("meta"):
        network, encoder = T5EncoderModel(T5Config(**values)), TextEncoder(TEXT_ENCODER_PRESETS[name])
    published = t5_config(network.config.to_dict())
    assert published.encoder == TEXT_ENCODER_PRESETS[name]
    assert sum(weight.numel() for weight in network.parameters()) == count
    assert sum(weight.numel() for weight in encoder.parameters()) == count
    mapped = encoder_table(published.encoder).to_ours(
        {key: tensor for key, tensor in network.state_dict().items() if "embed_tokens" not in key}
    )
    assert {key: tensor.shape for key, tensor in mapped.items()} == {
        key: tensor.shape for key, tensor in encoder.state_dict().items()
    }


def test_bytes_are_byt5s() -> None:
    texts = ['a sign that says "OPEN"', "", "一只猫 \u00e9 \U0001f680", "  two  spaces ", "x" * 40, "é" * 20]
    reference, tokenizer = ByT5Tokenizer(), ByteTokenizer()
    assert len(reference) == tokenizer.vocab_size == TEXT_ENCODER_PRESETS["byt5-small"].vocabulary
    said = reference(texts, padding="max_length", max_length=32, truncation=True, return_tensors="np")
    ids, mask = tokenizer.pack(texts, 32)
    assert ids.tolist() == said["input_ids"].tolist()
    assert mask.tolist() == said["attention_mask"].astype(bool).tolist()
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text == reference.decode(tokenizer.encode(text))


def test_pieces_are_t5s() -> None:
    """Of the file that their class writes; the model itself is compared in tests/tokenizers."""
    scores = {
        "▁": -2.0,
        "▁a": -2.5,
        "▁cat": -5.0,
        "▁c": -4.0,
        "at": -4.5,
        "s": -3.0,
        "o": -3.5,
        "ver": -5.5,
        "a": -4.1,
        "t": -4.2,
    }
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *scores.items(), ("<extra_id_0>", 0.0)]
    reference = T5Tokenizer(vocab=vocabulary, extra_ids=1)
    tokenizer = UnigramTokenizer.from_json(json.loads(reference.backend_tokenizer.to_str()))
    texts = ["a cat over cats", "", "  at   a cat\n", "a 猫 cat", "catcatcat ooo", "▁a s"]
    said = reference(texts, padding="max_length", max_length=7, truncation=True, return_tensors="np")
    ids, mask = tokenizer.pack(texts, 7)
    assert ids.tolist() == said["input_ids"].tolist()
    assert mask.tolist() == said["attention_mask"].astype(bool).tolist()
    assert (tokenizer.pad, tokenizer.end) == (reference.pad_token_id, reference.eos_token_id)
