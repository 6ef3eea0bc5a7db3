"""T5's weights, in the layout in which the transformers library publishes it and ByT5: of both halves, the encoder.

    shared                                          TextEncoder.tokens
    encoder.block.N.layer.0, SelfAttention          layers.N.norm1, attention
    encoder.block.0 ... relative_attention_bias     distances, of all layers
    encoder.block.N.layer.1, DenseReluDense         layers.N.norm2, mlp; the name stays where the ReLU is a gated GELU
    encoder.final_layer_norm                        norm

`encoder_table(...)` is the key map; `one_embedding` goes before it, since a file may tell the one table of tokens
under two names.  The decoder is left out knowingly, key by key: a file with one layer more than its config says is
still refused.

Source: Raffel et al., arXiv:1910.10683; Xue et al., arXiv:2105.13626.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from opendalle.base.errors import BadModel
from opendalle.dalle3.text_encoder import TextEncoderConfig
from opendalle.pretrained.maps.foreign_form import Field, ForeignForm, number, only, whole
from opendalle.pretrained.maps.key_table import KeyTable, Row

EMBEDDING, EMBEDDING_AGAIN = "shared.weight", "encoder.embed_tokens.weight"
OF_DECODER = "of the decoder, which writes text; pictures need the encoder alone"


@dataclass(frozen=True, kw_only=True)
class PublishedT5:
    """What a published config says of both halves."""

    encoder: TextEncoderConfig
    decoder_depth: int  # layers; the weights of a whole model hold them too


def encoder_table(config: TextEncoderConfig, decoder_depth: int = 0) -> KeyTable:
    """Return the keys of an encoder, alone or with its decoder.

    Args:
        config: of our network.
        decoder_depth: layers of the decoder; its weights may be there or not.
    """
    rows = [
        Row(ours="tokens.weight", theirs=(EMBEDDING,)),
        Row(
            ours="distances.weight",
            theirs=("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",),
        ),
        *(row for index in range(config.depth) for row in _layer(config, index)),
        Row(ours="norm.weight", theirs=("encoder.final_layer_norm.weight",)),
    ]
    dropped = dict.fromkeys(_decoder_keys(config, decoder_depth), OF_DECODER) if decoder_depth else {}
    return KeyTable(origin="T5's encoder", rows=tuple(rows), dropped=dropped)


def one_embedding(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tell the table of tokens under one name; files hold it as `shared`, as the encoder's own, or as both.

    Args:
        state: as published.

    Raises:
        BadModel: when both are there and differ, so that nobody can know which one is meant.
    """
    single = {key: tensor for key, tensor in state.items() if key != EMBEDDING_AGAIN}
    again = state.get(EMBEDDING_AGAIN)
    if again is not None and not torch.equal(single.setdefault(EMBEDDING, again), again):
        raise BadModel(f"{EMBEDDING!r} and {EMBEDDING_AGAIN!r} that differ", "one table of tokens")
    return single


def t5_config(plain: Mapping[str, Any]) -> PublishedT5:
    """Read a published `config.json` of T5 or ByT5.

    Args:
        plain: as read from JSON.

    Raises:
        BadModel: naming the first field that is unknown, missing, or has a value we do not do.
    """
    values = FORM.read(plain)
    config = TextEncoderConfig(
        vocabulary=values["vocab_size"],
        width=values["d_model"],
        depth=values["num_layers"],
        heads=values["num_heads"],
        head_width=values["d_kv"],
        hidden=values["d_ff"],
        feed_forward=values["feed_forward_proj"],
        num_buckets=values["relative_attention_num_buckets"],
        max_distance=values["relative_attention_max_distance"],
        norm_eps=values["layer_norm_epsilon"],
    )
    return PublishedT5(encoder=config, decoder_depth=values["num_decoder_layers"] or values["num_layers"])


def _layer(config: TextEncoderConfig, index: int) -> Iterator[Row]:
    """Rows of one layer; nothing in it has a bias."""
    ours, theirs = f"layers.{index}", f"encoder.block.{index}.layer"
    up = ("wi_0", "wi_1") if config.feed_forward == "gated-gelu" else ("wi",)
    for name, foreign in (
        ("norm1", ("0.layer_norm",)),
        ("attention.qkv", tuple(f"0.SelfAttention.{one}" for one in "qkv")),
        ("attention.out", ("0.SelfAttention.o",)),
        ("norm2", ("1.layer_norm",)),
        ("mlp.up", tuple(f"1.DenseReluDense.{one}" for one in up)),
        ("mlp.down", ("1.DenseReluDense.wo",)),
    ):
        yield Row(ours=f"{ours}.{name}.weight", theirs=tuple(f"{theirs}.{one}.weight" for one in foreign))


def _decoder_keys(config: TextEncoderConfig, depth: int) -> Iterator[str]:
    """Name every weight of the decoder and of what reads words out of it."""
    up = ("wi_0", "wi_1") if config.feed_forward == "gated-gelu" else ("wi",)
    leaves = [f"{layer}.layer_norm" for layer in (0, 1, 2)]
    leaves += [f"{layer}.{one}" for layer in ("0.SelfAttention", "1.EncDecAttention") for one in "qkvo"]
    leaves += [f"2.DenseReluDense.{one}" for one in (*up, "wo")]
    yield from ("lm_head.weight", "decoder.embed_tokens.weight", "decoder.final_layer_norm.weight")
    yield "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    # Some early files hold a table that no layer ever read; the authors' code passes over it as well.
    yield "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    for index in range(depth):
        yield from (f"decoder.block.{index}.layer.{leaf}.weight" for leaf in leaves)


def _anything(default: Any = None) -> Field:
    """A field that says nothing about the encoder's numbers."""
    return Field(default=default, accepted="anything", fits=lambda value: True)


_SILENT = (  # what training, generating text and the file's own history leave in a config
    *("architectures", "bos_token_id", "classifier_dropout", "decoder_start_token_id", "dropout_rate", "dtype"),
    *("eos_token_id", "id2label", "initializer_factor", "label2id", "n_positions", "output_past", "pad_token_id"),
    *("output_attentions", "output_hidden_states", "problem_type", "return_dict", "scale_decoder_outputs"),
    *("chunk_size_feed_forward", "gradient_checkpointing", "task_specific_params", "tie_word_embeddings"),
    *("tokenizer_class", "torch_dtype", "transformers_version", "use_cache", "is_encoder_decoder"),
)
FORM = ForeignForm(
    class_name="T5Config",
    fields=MappingProxyType(
        {
            **{name: _anything() for name in _SILENT},
            "model_type": only("t5"),
            "vocab_size": whole(32_128),
            "d_model": whole(512),
            "d_kv": whole(64),
            "d_ff": whole(2_048),
            "num_layers": whole(6),
            "num_decoder_layers": whole(None, optional=True),
            "num_heads": whole(8),
            "relative_attention_num_buckets": whole(32),
            "relative_attention_max_distance": whole(128),
            "layer_norm_epsilon": number(1e-6, 1e-12, 1e-2),
            "feed_forward_proj": only("relu", "gated-gelu"),
            "dense_act_fn": only(None, "relu", "gelu_new"),  # these two follow from the one before
            "is_gated_act": only(None, False, True),
            "is_decoder": only(False),
        }
    ),
)
