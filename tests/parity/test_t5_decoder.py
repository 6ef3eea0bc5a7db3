"""Both halves of T5 against the transformers library, at tiny size with random weights: logits, writing, files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5Attention, T5ForConditionalGeneration

from opendalle.base.errors import BadModel
from opendalle.dalle3.text_decoder import TextDecoder, TextToText, back_buckets
from opendalle.dalle3.text_encoder import TextEncoder
from opendalle.pretrained.maps.t5 import one_embedding, t5_config, whole_table
from opendalle.samplers.autoregressive import TokenOptions, sample_tokens

LENGTHS = [40, 7, 1]
TINY = {"vocab_size": 61, "d_model": 24, "d_kv": 10, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2}
TINY |= {"num_heads": 3, "relative_attention_num_buckets": 16, "relative_attention_max_distance": 24}
# The first T5: the table is the head, behind a scale.  Version 1.1 and ByT5: a head of its own, and no scale.
KINDS = {"first": ("relu", True), "later": ("gated-gelu", False)}


def theirs(kind: str, seed: int = 3) -> Any:
    feed_forward, is_tied = KINDS[kind]
    own: dict[str, Any] = {"tie_word_embeddings": is_tied, "decoder_start_token_id": 0}
    config = T5Config(**TINY, feed_forward_proj=feed_forward, **own)
    network = T5ForConditionalGeneration(config).eval().requires_grad_(False)
    if not is_tied:  # their class ties all heads when it is fresh; a file with another head unties it
        network.lm_head.weight = torch.nn.Parameter(torch.empty(TINY["vocab_size"], TINY["d_model"]), False)
    rng = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        noise = torch.randn(weight.shape, generator=rng)
        if "relative" in name or weight.ndim == 1:
            weight.copy_(noise if weight.ndim > 1 else 1 + 0.3 * noise)
        else:
            weight.copy_(noise if "shared" in name else noise / weight.shape[1] ** 0.5)
    return network


def ours(plain: Any, state: dict[str, Tensor]) -> TextToText:
    published, state = t5_config(plain), one_embedding(state)
    decoder = published.decoder(state)
    network = TextToText(TextEncoder(published.encoder), TextDecoder(decoder))
    network.load_state_dict(whole_table(published.encoder, decoder).to_ours(state), strict=True)
    return network.eval().requires_grad_(False)


def twins(kind: str) -> tuple[Any, TextToText]:
    network = theirs(kind)
    return network, ours(json.loads(network.config.to_json_string(use_diff=False)), network.state_dict())


def texts() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(0, TINY["vocab_size"], (len(LENGTHS), max(LENGTHS)), generator=rng)
    written = torch.randint(1, TINY["vocab_size"], (len(LENGTHS), 37), generator=rng)
    return ids, torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None], written


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_equal(kind: str) -> None:
    network, own = twins(kind)
    assert (own.decoder.head is None, own.decoder.config.scales_states) == (KINDS[kind][1],) * 2
    ids, mask, written = texts()
    wanted = network(input_ids=ids, attention_mask=mask.long(), labels=written).logits
    assert wanted.std() > 0.3  # something is compared
    torch.testing.assert_close(own(ids, mask, written), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_writing_is_equal(kind: str) -> None:
    network, own = twins(kind)
    ids, mask, _ = texts()
    count = 30
    wanted = network.generate(
        input_ids=ids, attention_mask=mask.long(), do_sample=False, min_new_tokens=count, max_new_tokens=count
    )
    memory = own.decoder.remember(own.encoder(ids, mask), count + 1, cached=True)

    def next_logits(tokens: Tensor, cache: Any) -> Tensor:
        logits = own.next_logits(tokens, cache)
        logits[:, 1] = -torch.inf  # the end, which they forbid as well until there are enough
        return logits

    rngs = [torch.Generator() for _ in LENGTHS]
    start = torch.zeros(len(LENGTHS), 1, dtype=torch.long)
    *_, last = sample_tokens(
        next_logits, start, count, generators=rngs, options=TokenOptions(temperature=0), cache=memory
    )
    assert len({*wanted.flatten().tolist()}) > 3
    assert last.tokens.tolist() == wanted.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_on_disk_loads_whole(kind: str, tmp_path: Path) -> None:
    network = theirs(kind)
    network.save_pretrained(tmp_path)
    own = ours(json.loads((tmp_path / "config.json").read_text()), load_file(tmp_path / "model.safetensors"))
    ids, mask, written = texts()
    wanted = network(input_ids=ids, attention_mask=mask.long(), labels=written).logits
    torch.testing.assert_close(own(ids, mask, written), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_map_is_total_and_goes_both_ways(kind: str) -> None:
    network, own = twins(kind)
    state = one_embedding(network.state_dict())
    table = whole_table(own.encoder.config, own.decoder.config)
    back = table.to_theirs(own.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in back)
    for unknown in ("decoder.block.2.layer.0.SelfAttention.q.weight", "lm_head.bias"):
        with pytest.raises(BadModel, match=unknown.replace(".", r"\.")):
            table.to_ours({**back, unknown: torch.zeros(1)})
    for key in back:
        with pytest.raises(BadModel, match="no weights"):
            table.to_ours({one: tensor for one, tensor in back.items() if one != key})


@pytest.mark.parametrize(("kinds", "farthest"), [(32, 128), (16, 24), (8, 20), (4, 3)])
def test_distances_back_fall_into_the_same_buckets(kinds: int, farthest: int) -> None:
    place = torch.arange(300)
    wanted = T5Attention._relative_position_bucket(
        place[None] - place[:, None], bidirectional=False, num_buckets=kinds, max_distance=farthest
    )
    assert torch.equal(back_buckets(300, kinds, farthest), wanted)


def test_older_files_tell_the_scale_by_the_tie() -> None:
    plain = {key: value for key, value in T5Config(**TINY).to_dict().items() if key != "scale_decoder_outputs"}
    assert t5_config({**plain, "tie_word_embeddings": True}).scales_states
    assert not t5_config({**plain, "tie_word_embeddings": False}).scales_states
