"""min-dalle's weights: dalle-mini's, as torch state dicts in three files.

    encoder.pt and    DalleBartEncoder, behind "encoder."     DalleBart
      decoder.pt        DalleBartDecoder, behind "decoder."
    detoker.pt        VQGanDetokenizer                        WordDecoder

`table.to_ours(join_folders(encoder=..., decoder=...))` and `table.to_theirs(state)` are the key maps.  Norms that feed
a linear layer have a shift and no scale: the files hold no weight for them, and neither do we.  (min-dalle's classes
have one, of ones, and load their files without being strict.)

Source: min-dalle 0.4.11; the weights are dalle-mini's (Dayma et al., 2021).
"""

from collections.abc import Iterable

from opendalle.codec.convolutional import ConvolutionalConfig
from opendalle.pretrained.maps.key_table import KeyTable, Row, layer
from opendalle.pretrained.networks.dalle_bart import DalleBartConfig
from opendalle.pretrained.networks.word_decoder import WordDecoderConfig

ENCODER, DECODER = "encoder", "decoder"  # files whose weights make up one DalleBart of ours


def dalle_bart_table(config: DalleBartConfig) -> KeyTable:
    """Return the keys of encoder and decoder, each behind its file's name.

    Args:
        config: of our network.
    """
    rows = list[Row]()
    for file in (ENCODER, DECODER):
        rows += [
            _weight(f"{file}.tokens", f"{file}.embed_tokens"),
            _weight(f"{file}.places", f"{file}.embed_positions"),
            *layer(f"{file}.norm_in", f"{file}.layernorm_embedding"),
            _bias(f"{file}.norm", f"{file}.final_ln"),
        ]
        for index in range(config.depth):
            ours = theirs = f"{file}.layers.{index}"
            rows += _attention(f"{ours}.attention", theirs, "self_attn", qkv=("qkv",))
            if file == DECODER:
                rows += _attention(f"{ours}.prompt", theirs, "encoder_attn", qkv=("query", "kv"))
            rows += _gated(f"{ours}.mlp", f"{theirs}.glu")
    rows.append(_weight("words_out", f"{DECODER}.lm_head"))
    return KeyTable(origin="min-dalle's encoder and decoder", rows=tuple(rows))


def word_decoder_table(config: WordDecoderConfig) -> KeyTable:
    """Return the keys of the detokenizer.

    Args:
        config: of our network.
    """
    rows = [_weight("codebook.words", "embedding"), *layer("from_codes", "post_quant_conv")]
    rows += _grid_decoder(config.network, "decoder", "decoder")
    return KeyTable(origin="min-dalle's detokenizer", rows=tuple(rows))


def _weight(ours: str, *theirs: str) -> Row:
    return Row(ours=f"{ours}.weight", theirs=tuple(f"{one}.weight" for one in theirs))


def _bias(ours: str, theirs: str) -> Row:
    return Row(ours=f"{ours}.bias", theirs=(f"{theirs}.bias",))


def _attention(ours: str, theirs: str, name: str, *, qkv: tuple[str, ...]) -> Iterable[Row]:
    """Rows of an attention with its two norms; qkv: one matrix of ours for all three of theirs, or two."""
    projections = {"qkv": "qkv", "query": "q", "kv": "kv"}
    return [
        _bias(f"{ours}.norm_in", f"{theirs}.pre_{name}_layer_norm"),
        *(_weight(f"{ours}.{one}", *(f"{theirs}.{name}.{k}_proj" for k in projections[one])) for one in qkv),
        _weight(f"{ours}.out", f"{theirs}.{name}.out_proj"),
        *layer(f"{ours}.norm", f"{theirs}.{name}_layer_norm"),
    ]


def _gated(ours: str, theirs: str) -> Iterable[Row]:
    return [
        _bias(f"{ours}.norm_in", f"{theirs}.ln0"),
        _weight(f"{ours}.up", f"{theirs}.fc0", f"{theirs}.fc1"),
        _bias(f"{ours}.norm", f"{theirs}.ln1"),
        _weight(f"{ours}.down", f"{theirs}.fc2"),
    ]


def _grid_decoder(config: ConvolutionalConfig, ours: str, theirs: str) -> Iterable[Row]:
    """Rows of the convolutional decoder, whose levels they count from the finest and we from the coarsest."""
    rows = [
        *layer(f"{ours}.conv_in", f"{theirs}.conv_in"),
        *_block(f"{ours}.middle.0", f"{theirs}.mid.block_1", widens=False),
        *_cells(f"{ours}.middle.1", f"{theirs}.mid.attn_1"),
        *_block(f"{ours}.middle.2", f"{theirs}.mid.block_2", widens=False),
    ]
    before = config.growth[-1]
    for place, level in enumerate(reversed(range(len(config.growth)))):
        here, there, after = f"{ours}.levels.{place}", f"{theirs}.up.{level}", config.growth[level]
        for index in range(config.blocks + 1):
            rows += _block(f"{here}.blocks.{index}", f"{there}.block.{index}", widens=index == 0 and before != after)
            if config.sides[level] in config.attention_sides:
                rows += _cells(f"{here}.attention.{index}", f"{there}.attn.{index}")
        if level > 0:
            rows += layer(f"{here}.onward.conv", f"{there}.upsample.conv")
        before = after
    return [*rows, *layer(f"{ours}.head.0", f"{theirs}.norm_out"), *layer(f"{ours}.head.2", f"{theirs}.conv_out")]


def _block(ours: str, theirs: str, *, widens: bool) -> Iterable[Row]:
    names = {"norm_in": "norm1", "conv_in": "conv1", "norm_out": "norm2", "conv_out": "conv2"}
    if widens:
        names["skip"] = "nin_shortcut"
    return [row for own, one in names.items() for row in layer(f"{ours}.{own}", f"{theirs}.{one}")]


def _cells(ours: str, theirs: str) -> Iterable[Row]:
    names = {"norm": "norm", "query": "q", "key": "k", "value": "v", "out": "proj_out"}
    return [row for own, one in names.items() for row in layer(f"{ours}.{own}", f"{theirs}.{one}")]
