"""Words a second beside min-dalle's own loop: same random weights, dtype, threads, guidance and top-k.

First everything that both compute is compared: states of the encoder, logits of all 256 places, the words that each
takes when it always takes the likeliest.  Then they draw 32 words in turn.  A word costs min-dalle the same wherever it
stands, and us more the later: so theirs are the first ones, and ours are taken at the beginning, in the middle and at
the end of a picture.  Reading the prompt, and the first turn of both, are not counted.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from measuring.clock import spread, take_turns, times
from measuring.peers import import_from, require_equal
from measuring.report import describe, is_busy, machine, table, write
from opendalle.pretrained.maps.karlo import split_folders
from opendalle.pretrained.maps.min_dalle import dalle_bart_table, word_decoder_table
from opendalle.pretrained.networks.dalle_bart import DALLE_BART_PRESETS, DalleBart, DalleBartConfig
from opendalle.pretrained.networks.dalle_bart_drawing import PromptLogits, drawing, padded_prompts
from opendalle.pretrained.networks.word_decoder import WordDecoder, WordDecoderConfig
from opendalle.samplers import TokenOptions, sample_tokens

TURN = 32  # words a turn: after as many min-dalle hands out what it has
START = 16_383  # min-dalle begins with this row, an ordinary word's; the weights were trained with 16,384
GUIDANCE, TOP_K = 16.0, 256  # min-dalle's own settings
PROMPT = range(5, 15)  # ten tokens, and the first and the last one
PLACES = (0, 112, 224)  # where our turns begin
FLOORS = {1: 3.0, 9: 4.0}  # pictures -> times faster
SHAPES = {
    "tiny": DalleBartConfig(width=32, depth=2, heads=2, gated_width=24, text_vocabulary=40, start=START),
    "mini": replace(DALLE_BART_PRESETS["mini"], start=START),
}


@dataclass
class Peer:
    """min-dalle with the weights of our network, and nothing of its downloads."""

    model: Any  # its MinDalle
    words: list[Tensor]  # what it last handed to its detokenizer


def random_network(module: torch.nn.Module) -> Any:
    """Give every weight chance of its own; norms too, so that none is left out unseen."""
    rng = torch.Generator().manual_seed(0)
    for name, weight in module.named_parameters():
        is_scale = weight.ndim == 1 and name.endswith("weight")
        weight.data.normal_(1.0 if is_scale else 0.0, 0.1 if weight.ndim == 1 else 0.03, generator=rng)
    return module.eval().requires_grad_(False)


def load_peer(path: Path, network: DalleBart) -> Peer:
    """Build min-dalle's classes at our network's shape and give them its weights, through the key map."""
    package = import_from(path, "min_dalle.min_dalle", ("requests", "emoji"))
    config = network.config
    shape = {"layer_count": config.depth, "embed_count": config.width, "attention_head_count": config.heads}
    shape |= {"glu_embed_count": config.gated_width, "device": "cpu"}
    model = package.MinDalle.__new__(package.MinDalle)  # not its __init__, which downloads
    texts = {"text_vocab_count": config.text_vocabulary, "text_token_count": config.num_text}
    model.encoder = package.DalleBartEncoder(**shape, **texts).eval()
    model.decoder = package.DalleBartDecoder(**shape, image_vocab_count=config.num_rows - 1).eval()
    files = split_folders(dalle_bart_table(config).to_theirs(network.state_dict()))
    for name, state in files.items():
        rest = getattr(model, name).load_state_dict(state, strict=False)
        scales = ("pre_self_attn_layer_norm", "pre_encoder_attn_layer_norm", "ln0", "ln1", "final_ln")
        wrong = [key for key in rest.missing_keys if key.split(".")[-2] not in scales or not key.endswith("weight")]
        if rest.unexpected_keys or wrong:
            raise SystemExit(f"min-dalle's {name} has other keys: {(rest.unexpected_keys or wrong)[0]}")
    words = list[Tensor]()

    class Tokenizer:
        def tokenize(self, text: str, is_verbose: bool = False) -> list[int]:
            return [config.begin, *PROMPT, config.end]

    class Detokenizer:
        def forward(self, is_seamless: bool, tokens: Tensor) -> Tensor:
            words.append(tokens.clone())
            return tokens

    settings = {"device": "cpu", "dtype": torch.float32, "is_reusable": True, "is_verbose": False}
    settings |= {"text_token_count": config.num_text, "layer_count": config.depth, "embed_count": config.width}
    for name, value in {**settings, "tokenizer": Tokenizer(), "detokenizer": Detokenizer()}.items():
        setattr(model, name, value)
    return Peer(model, words)


def their_turns(peer: Peer, side: int, top_k: int) -> Iterator[Tensor]:
    """Draw pictures with min-dalle's own loop, one turn at a time."""
    while True:
        asked = {"seed": 1, "grid_size": side, "progressive_outputs": True}
        for _ in peer.model.generate_raw_image_stream(
            "", **asked, top_k=top_k, supercondition_factor=int(GUIDANCE), temperature=1
        ):
            yield peer.words[-1]


def our_turn(network: DalleBart, count: int, top_k: int) -> Callable[[int], Tensor]:
    """Return what draws a turn of words from a place on."""
    drawn = drawing(network, padded_prompts([PROMPT], network.config), GUIDANCE, count=count)
    rng = torch.Generator().manual_seed(2)
    for held in (drawn.cache.keys, drawn.cache.values):
        held.normal_(generator=rng)  # words that nobody drew

    def turn(begin: int) -> Tensor:
        drawn.cache.length = begin
        tokens = torch.zeros(count, begin, dtype=torch.long)
        generators = [torch.Generator().manual_seed(one) for one in range(count)]
        options = TokenOptions(top_k=top_k)
        states = sample_tokens(
            drawn.next_logits, tokens, TURN, generators=generators, options=options, cache=drawn.cache
        )
        return [state.tokens for state in states][-1][:, begin:]

    return turn


def compare(network: DalleBart, peer: Peer) -> None:
    """Hold both against each other: states, logits of every place, greedy words."""
    config, model = network.config, peer.model
    prompts = padded_prompts([(), PROMPT], config)
    theirs = torch.nn.functional.pad(prompts, (0, config.num_text - prompts.shape[1]), value=config.pad)
    states, is_real = model.encoder.forward(theirs), prompts != config.pad
    ours = network.encode(prompts, is_real)
    require_equal("states of the encoder", states[:, : prompts.shape[1]][is_real], ours[is_real])
    tokens = torch.randint(config.picture_vocabulary, (1, 255), generator=torch.Generator().manual_seed(1))
    said, _ = model.decoder.forward(
        attention_mask=theirs.not_equal(config.pad)[:, None, None],
        encoder_state=states,
        attention_state=torch.zeros(config.depth, 4, 256, config.width),
        prev_tokens=torch.cat([torch.full((1, 1), START), tokens], dim=1),
        token_index=torch.arange(256),
    )
    said, both = said[..., : config.picture_vocabulary], tokens.expand(2, -1)
    require_equal("logits of all places, at once", said, network(prompts, both))
    logits, cache = PromptLogits(network, network.read(prompts)), network.new_cache(2)
    steps = [*range(8), *range(248, 256)]  # the places between are read in one go
    cached = torch.stack([logits(both[:, :num], cache) for num in steps], dim=1)
    require_equal("logits of the first and the last places, word by word", said[:, steps], cached)
    taken = next(their_turns(peer, 1, 1))[:, :TURN]
    if not torch.equal(taken, our_turn(network, 1, 1)(0)):
        raise SystemExit("the likeliest words differ")
    print(f"the {TURN} likeliest words, each by its own loop: equal", flush=True)


def compare_pictures(path: Path) -> None:
    """Hold the detokenizer against ours, at its one size, with the epsilon of group norms that it was trained with."""
    package = import_from(path, "min_dalle.models", ())
    network = random_network(WordDecoder(WordDecoderConfig()))
    theirs = package.VQGanDetokenizer().eval()
    theirs.load_state_dict(word_decoder_table(network.config).to_theirs(network.state_dict()))
    for module in theirs.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-6  # min-dalle leaves torch's 1e-5
    tokens = torch.randint(16_384, (1, 256), generator=torch.Generator().manual_seed(1))
    drawn = theirs.forward(False, tokens).permute(2, 0, 1)[None] / 255
    ours = (network.decode_tokens(tokens.reshape(1, 16, 16)) + 1) / 2
    require_equal("pictures", drawn, ours, 1e-4)


def measure(network: DalleBart, peer: Peer, side: int, repeats: int) -> dict[str, Any]:
    """Let both draw in turn."""
    count, places = side**2, cycle(PLACES)
    stream, turn = their_turns(peer, side, TOP_K), our_turn(network, count, TOP_K)
    rivals = {"theirs": lambda: next(stream), "ours": lambda: turn(next(places))}
    laps, _ = take_turns(rivals, repeats)
    row: dict[str, Any] = {"pictures": count, "threads": torch.get_num_threads()}
    for name, lap in laps.items():
        row[f"{name}_words_a_second"] = spread([count * TURN / seconds for seconds in lap.wall])
        row[f"{name}_cpu_ms"] = spread([1000 * seconds / TURN for seconds in lap.cpu])
    return row | times(laps["theirs"], laps["ours"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="checkout of min-dalle")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="mini", help="sizes of the network")
    parser.add_argument("--repeats", type=int, default=3, help="turns, besides one to warm up; best a multiple of 3")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--sides", type=int, nargs="+", default=[1, 3], help="min-dalle draws a square of pictures")
    parser.add_argument("--out", type=Path, help="folder of the JSON; default bench/results")
    asked = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # theirs are about CUDA, which this does not use
    torch.set_grad_enabled(False)
    torch.set_num_threads(asked.threads)
    about = machine() | {"shape": asked.shape, "repeats": asked.repeats, "prompt": len(PROMPT) + 2, "turn": TURN}
    print(f"{describe(about)}; {asked.shape} layout, random weights, float32", flush=True)
    network = random_network(DalleBart(SHAPES[asked.shape]))
    peer = load_peer(asked.path, network)
    compare(network, peer)
    if asked.shape == "mini":
        compare_pictures(asked.path)
    rows = [measure(network, peer, side, asked.repeats) for side in asked.sides]
    print(table(rows))
    for row in rows:
        if (floor := FLOORS.get(row["pictures"])) and asked.shape == "mini":
            verdict = "held" if row["times_cpu"].median >= floor else "MISSED"
            print(f"pictures at once: {row['pictures']}; floor {floor:g} times faster, by processor time: {verdict}")
    if is_busy(about):
        print("the machine was busy: read times_cpu")
    print(write(f"min-dalle-{asked.shape}-{asked.threads}", about, rows, asked.out).name)


if __name__ == "__main__":
    main()
