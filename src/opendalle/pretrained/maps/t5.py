"""T5's weights, both halves or the encoder alone, in the layout in which the transformers library publishes them.

    shared                                          TextEncoder.tokens, which the decoder uses as well
    encoder.block.N.layer.0, SelfAttention          layers.N.norm1, attention
    encoder.block.0 ... relative_attention_bias     distances, of all layers
    encoder.block.N.layer.1, DenseReluDense         layers.N.norm2, mlp; the name stays where the ReLU is a gated GELU
    encoder.final_layer_norm                        norm
    decoder.block.N.layer.1, EncDecAttention        TextDecoder.layers.N.norm2, reading; the feed-forward is layer 2
    lm_head                                         TextDecoder.head; absent, or the table again, where that reads

`encoder_table(...)` and `whole_table(...)` are the key maps; `one_embedding` goes before them, since a file may tell
the one table of tokens under several names.  The encoder's map leaves the decoder out knowingly, key by key: a file
with one layer more than its config says is still refused.

Source: Raffel et al., arXiv:1910.10683; Xue et al., arXiv:2105.13626.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from opendalle.base.errors import BadModel
from opendalle.checkpoint.configs import to_plain
from opendalle.dalle3.text_decoder import TextDecoderConfig
from opendalle.dalle3.text_encoder import TextEncoderConfig
from opendalle.pretrained.maps.foreign_form import Field, ForeignForm, number, only, whole
from opendalle.pretrained.maps.key_table import KeyTable, Row

EMBEDDING, EMBEDDING_AGAIN = "shared.weight", "encoder.embed_tokens.weight"
EMBEDDING_OF_DECODER, HEAD = "decoder.embed_tokens.weight", "lm_head.weight"
OF_DECODER = "of the decoder, which writes text; pictures need the encoder alone"


@dataclass(frozen=True, kw_only=True)
class PublishedT5:
    """What a published config says of both halves."""

    encoder: TextEncoderConfig
    decoder_depth: int  # layers; the weights of a whole model hold them too
    scales_states: bool  # what the head reads is made smaller first

    def decoder(self, state: Mapping[str, Tensor]) -> TextDecoderConfig:
        """Return the decoder's shape.

        Args:
            state: as `one_embedding` gives it; whether the head is one of its own stands in the weights alone.
        """
        shape = {**to_plain(self.encoder), "depth": self.decoder_depth}
        return TextDecoderConfig(**shape, has_own_head=HEAD in state, scales_states=self.scales_states)


_DISTANCES = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
# Some early files hold a table that no layer ever read; the authors' code passes over it as well.
_NEVER_READ = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def encoder_table(config: TextEncoderConfig, decoder_depth: int = 0) -> KeyTable:
    """Return the keys of an encoder, alone or with its decoder.

    Args:
        config: of our network.
        decoder_depth: layers of the decoder; its weights may be there or not.
    """
    rows = [
        Row(ours="tokens.weight", theirs=(EMBEDDING,)),
        Row(ours="distances.weight", theirs=(f"encoder.{_DISTANCES}",)),
        *(row for index in range(config.depth) for row in _layer(config, index)),
        Row(ours="norm.weight", theirs=("encoder.final_layer_norm.weight",)),
    ]
    dropped = dict.fromkeys(_decoder_keys(config, decoder_depth), OF_DECODER) if decoder_depth else {}
    return KeyTable(origin="T5's encoder", rows=tuple(rows), dropped=dropped)


def whole_table(encoder: TextEncoderConfig, decoder: TextDecoderConfig) -> KeyTable:
    """Return the keys of both halves, for `TextToText`.

    Args:
        encoder: of our network.
        decoder: of our network.
    """
    read = [Row(ours=f"encoder.{row.ours}", theirs=row.theirs) for row in encoder_table(encoder).rows]
    written = [
        Row(ours="decoder.distances.weight", theirs=(f"decoder.{_DISTANCES}",)),
        *(row for index in range(decoder.depth) for row in _writing_layer(decoder, index)),
        Row(ours="decoder.norm.weight", theirs=("decoder.final_layer_norm.weight",)),
    ]
    if decoder.has_own_head:
        written.append(Row(ours="decoder.head.weight", theirs=(HEAD,)))
    return KeyTable(origin="T5", rows=(*read, *written), dropped={_NEVER_READ: "a table that no layer reads"})


def one_embedding(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tell the table of tokens under one name: files hold it as `shared`, as either half's own, as the head, or as all.

    Args:
        state: as published.

    Raises:
        BadModel: when both are there and differ, so that nobody can know which one is meant.
    """
    single = {key: tensor for key, tensor in state.items() if key not in (EMBEDDING_AGAIN, EMBEDDING_OF_DECODER)}
    for name in (EMBEDDING_AGAIN, EMBEDDING_OF_DECODER):
        again = state.get(name)
        if again is not None and not torch.equal(single.setdefault(EMBEDDING, again), again):
            raise BadModel(f"{EMBEDDING!r} and {name!r} that differ", "one table of tokens")
    head = single.get(HEAD)
    if head is not None and EMBEDDING in single and torch.equal(head, single[EMBEDDING]):
        del single[HEAD]
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
    scales = values["scale_decoder_outputs"]  # older files tell it by whether the head is the table
    return PublishedT5(
        encoder=config,
        decoder_depth=values["num_decoder_layers"] or values["num_layers"],
        scales_states=values["tie_word_embeddings"] if scales is None else scales,
    )


def _layer(config: TextEncoderConfig, index: int) -> Iterator[Row]:
    """Rows of one layer of the encoder; nothing in it has a bias."""
    names = (
        ("norm1", ("0.layer_norm",)),
        ("attention.qkv", tuple(f"0.SelfAttention.{one}" for one in "qkv")),
        ("attention.out", ("0.SelfAttention.o",)),
        ("norm2", ("1.layer_norm",)),
        *_feed_forward(config, 1),
    )
    yield from _rows(f"layers.{index}", f"encoder.block.{index}.layer", names)


def _writing_layer(config: TextDecoderConfig, index: int) -> Iterator[Row]:
    """Rows of one layer of the decoder."""
    names = (
        ("norm1", ("0.layer_norm",)),
        ("attention.qkv", tuple(f"0.SelfAttention.{one}" for one in "qkv")),
        ("attention.out", ("0.SelfAttention.o",)),
        ("norm2", ("1.layer_norm",)),
        ("reading.queries", ("1.EncDecAttention.q",)),
        ("reading.keys_values", tuple(f"1.EncDecAttention.{one}" for one in "kv")),
        ("reading.out", ("1.EncDecAttention.o",)),
        ("norm3", ("2.layer_norm",)),
        *_feed_forward(config, 2),
    )
    yield from _rows(f"decoder.layers.{index}", f"decoder.block.{index}.layer", names)


def _feed_forward(config: TextEncoderConfig, place: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Names of the feed-forward layer, the `place`th of its block."""
    up = ("wi_0", "wi_1") if config.feed_forward == "gated-gelu" else ("wi",)
    return (
        ("mlp.up", tuple(f"{place}.DenseReluDense.{one}" for one in up)),
        ("mlp.down", (f"{place}.DenseReluDense.wo",)),
    )


def _rows(ours: str, theirs: str, names: Iterable[tuple[str, tuple[str, ...]]]) -> Iterator[Row]:
    for name, foreign in names:
        yield Row(ours=f"{ours}.{name}.weight", theirs=tuple(f"{theirs}.{one}.weight" for one in foreign))


def _decoder_keys(config: TextEncoderConfig, depth: int) -> Iterator[str]:
    """Name every weight of the decoder and of what reads words out of it."""
    yield from (HEAD, EMBEDDING_OF_DECODER, "decoder.final_layer_norm.weight", f"decoder.{_DISTANCES}", _NEVER_READ)
    shape = TextDecoderConfig(**{**to_plain(config), "depth": depth})
    for index in range(depth):
        yield from (key for row in _writing_layer(shape, index) for key in row.theirs)


def _anything(default: Any = None) -> Field:
    """A field that says nothing about the encoder's numbers."""
    return Field(default=default, accepted="anything", fits=lambda value: True)


_SILENT = (  # what training, generating text and the file's own history leave in a config
    *("architectures", "bos_token_id", "classifier_dropout", "decoder_start_token_id", "dropout_rate", "dtype"),
    *("eos_token_id", "id2label", "initializer_factor", "label2id", "n_positions", "output_past", "pad_token_id"),
    *("output_attentions", "output_hidden_states", "problem_type", "return_dict", "chunk_size_feed_forward"),
    *("gradient_checkpointing", "task_specific_params"),
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
            "tie_word_embeddings": only(True, False),
            "scale_decoder_outputs": only(None, True, False),
        }
    ),
)
