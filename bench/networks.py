"""One step of the decoder's U-Net and one of the prior, against the diffusers library, at half of Karlo's width.

    python bench/networks.py                   about two minutes on two cores
    python bench/networks.py --shape tiny      a second; what the tests run

Both sides have the same random weights, handed over by the key maps of `opendalle.pretrained`, the same dtype
(float32) and threads, and take turns in one process; their outputs are compared every time.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from measuring.clock import ratio, spread, take_turns
from measuring.report import describe, machine, table, write
from torch import Tensor, nn

from opendalle.dalle2.decoder import Decoder
from opendalle.dalle2.priors.diffusion import DiffusionPrior
from opendalle.pretrained.maps.karlo import decoder_table, join_folders, prior_table
from opendalle.pretrained.maps.karlo_configs import decoder_config, prior_config

FLOOR, GOAL, TOLERANCE = 1.2, 1.5, 1e-4  # times faster; largest difference of two outputs


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a Karlo-like pair of networks."""

    widths: tuple[int, ...]  # of the U-Net's levels; all but the first have attention
    blocks: int  # residual blocks a level
    head_width: int  # channels an attention head, of both networks
    context_width: int  # of the U-Net's context tokens
    side: int  # of the pictures
    embed: int  # width of CLIP's joint space
    words: int  # places for a caption's tokens
    prior_width: int
    prior_depth: int


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "tiny": Shape(
            widths=(32, 64),
            blocks=1,
            head_width=8,
            context_width=48,
            side=16,
            embed=32,
            words=12,
            prior_width=32,
            prior_depth=2,
        ),
        "half": Shape(
            widths=(160, 320, 480, 640),
            blocks=3,
            head_width=32,
            context_width=768,
            side=64,
            embed=768,
            words=77,
            prior_width=1024,
            prior_depth=20,
        ),
    }
)


@dataclass(frozen=True)
class Contest:
    """One thing that both sides can compute."""

    name: str
    theirs: Callable[[], Tensor]
    ours: Callable[[], Tensor]


@dataclass(frozen=True)
class Captions:
    """What CLIP would say of a caption and of the empty one: the two rows of a guided batch."""

    pooled: Tensor
    states: Tensor
    mask: Tensor

    @staticmethod
    def draw(shape: Shape, words: int, rng: torch.Generator) -> "Captions":
        """Make the empty caption (start and end) and one of `words` tokens."""
        length = torch.tensor([[min(2, words)], [words]])
        return Captions(
            pooled=torch.randn(2, shape.embed, generator=rng),
            states=torch.randn(2, shape.words, shape.embed, generator=rng),
            mask=torch.arange(shape.words) < length,
        )


def randomise(network: nn.Module, seed: int) -> Any:
    """Give every weight a value that matters, those that start at zero or one as well."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            noise = torch.randn(weight.shape, generator=rng)
            if weight.ndim == 1 or weight.shape[0] == 1:
                is_gain = re.search(r"norm\w*\.weight$", name) or name.endswith("clip_std")
                weight.copy_((1.0 if is_gain else 0.0) + 0.02 * noise)
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)
    return network.eval().requires_grad_(False)


def loaded(network: Any, state: Mapping[str, Tensor]) -> Any:
    """Give a network of ours its weights."""
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False)


def plain(network: Any) -> dict[str, Any]:
    """The JSON config that the other library would write."""
    return {key: list(one) if isinstance(one, tuple) else one for key, one in network.config.items()}


def decoder_contests(shape: Shape, words: int) -> Iterator[Contest]:
    """One step of the decoder, with the caption already projected by both sides, and with that counted too."""
    attended = len(shape.widths) - 1
    unet = randomise(
        UNet2DConditionModel(
            sample_size=shape.side,
            in_channels=3,
            out_channels=6,
            block_out_channels=shape.widths,
            layers_per_block=shape.blocks,
            down_block_types=("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * attended,
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D",) * attended + ("ResnetUpsampleBlock2D",),
            cross_attention_dim=shape.context_width,
            attention_head_dim=shape.head_width,
            class_embed_type="identity",
            resnet_time_scale_shift="scale_shift",
        ),
        1,
    )
    text_proj = randomise(
        UnCLIPTextProjModel(
            clip_embeddings_dim=shape.embed,
            time_embed_dim=4 * shape.widths[0],
            cross_attention_dim=shape.context_width,
        ),
        2,
    )
    config = decoder_config(plain(unet), plain(text_proj))
    both = join_folders(decoder=unet.state_dict(), text_proj=text_proj.state_dict())
    decoder: Decoder = loaded(Decoder(config), decoder_table(config).to_ours(both))

    rng = torch.Generator().manual_seed(3)
    captions, z = Captions.draw(shape, words, rng), torch.randn(1, shape.embed, generator=rng)
    x = torch.randn(1, 3, shape.side, shape.side, generator=rng).repeat(2, 1, 1, 1)
    t = torch.tensor([500, 500])
    mask = torch.cat([torch.ones(2, config.num_picture_tokens, dtype=torch.bool), captions.mask], 1)

    def read_theirs() -> tuple[Tensor, Tensor]:
        return text_proj(
            image_embeddings=z,
            prompt_embeds=captions.pooled,
            text_encoder_hidden_states=captions.states,
            do_classifier_free_guidance=True,
        )

    def read_ours() -> Any:
        has_embedding = torch.tensor([False, True])  # theirs puts the unconditional half first
        return decoder.condition(
            z.repeat(2, 1), captions.pooled, captions.states, captions.mask, has_embedding=has_embedding
        )

    def step_theirs(context: Tensor, embedding: Tensor) -> Tensor:
        return unet(x, t, encoder_hidden_states=context, class_labels=embedding, attention_mask=mask).sample

    context, ours = read_theirs(), read_ours()
    yield Contest("decoder step", lambda: step_theirs(*context), lambda: decoder(x, t, ours))
    yield Contest("decoder, prompt and step", lambda: step_theirs(*read_theirs()), lambda: decoder(x, t, read_ours()))


def prior_contests(shape: Shape, words: int) -> Iterator[Contest]:
    """One step of the prior: with the caption read once, as our pipeline does; and the plain whole sequence."""
    theirs = randomise(
        PriorTransformer(
            num_attention_heads=shape.prior_width // shape.head_width,
            attention_head_dim=shape.head_width,
            num_layers=shape.prior_depth,
            embedding_dim=shape.embed,
            num_embeddings=shape.words,
        ),
        4,
    )
    config = prior_config(plain(theirs))
    prior: DiffusionPrior = loaded(DiffusionPrior(config), prior_table(config).to_ours(theirs.state_dict()))

    rng = torch.Generator().manual_seed(5)
    short, whole = Captions.draw(shape, words, rng), Captions.draw(shape, shape.words, rng)
    z, t = torch.randn(2, shape.embed, generator=rng), torch.tensor([500, 500])
    everywhere = torch.ones_like(whole.mask)  # without a mask, theirs would not be causal

    def step_theirs(captions: Captions, mask: Tensor) -> Tensor:
        return theirs(z, t, captions.pooled, captions.states, mask).predicted_image_embedding

    read = prior.condition(short.pooled, short.states, short.mask)
    yield Contest("prior step, caption read", lambda: step_theirs(short, short.mask), lambda: prior.step(z, t, read))
    yield Contest(
        "prior forward, padded",
        lambda: step_theirs(short, short.mask),
        lambda: prior(z, t, short.pooled, short.states, short.mask),
    )
    yield Contest(
        "prior forward, full caption",
        lambda: step_theirs(whole, everywhere),
        lambda: prior(z, t, whole.pooled, whole.states),
    )


@torch.inference_mode()
def hold(contest: Contest, repeats: int) -> dict[str, Any]:
    """Hold one contest; numbers are medians, ratios are taken round by round."""
    laps, outputs = take_turns({"theirs": contest.theirs, "ours": contest.ours}, repeats)
    difference = (outputs["theirs"] - outputs["ours"]).abs().max().item()
    assert difference <= TOLERANCE, f"{contest.name}: outputs differ by {difference:.2g}, allowed {TOLERANCE:.0e}"
    theirs, ours = laps["theirs"], laps["ours"]
    return {
        "what": contest.name,
        "theirs_wall": spread(theirs.wall),
        "ours_wall": spread(ours.wall),
        "times_wall": ratio(theirs.wall, ours.wall),
        "theirs_cpu": spread(theirs.cpu),
        "ours_cpu": spread(ours.cpu),
        "times_cpu": ratio(theirs.cpu, ours.cpu),
        "difference": difference,
    }


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run the benchmark; returns what the table shows."""
    parser = argparse.ArgumentParser(description="Decoder and prior steps against the diffusers library.")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="half", help="sizes of the networks")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, besides one to warm up")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for both sides")
    parser.add_argument("--words", type=int, default=12, help="tokens of the caption, start and end included")
    parser.add_argument("--only", default="", help="contests whose name begins so")
    parser.add_argument("--out", type=Path, help="folder of networks.json; default bench/results")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    shape = SHAPES[asked.shape]
    words = min(asked.words, shape.words)
    about = machine() | {"shape": asked.shape, "repeats": asked.repeats, "caption_tokens": words, "dtype": "float32"}
    print(f"{describe(about)}; shape {asked.shape}, caption of {words} tokens", flush=True)
    rows = []
    for build in (decoder_contests, prior_contests):
        if asked.only and not build.__name__.startswith(asked.only.split()[0]):
            continue
        for contest in build(shape, words):
            if contest.name.startswith(asked.only):
                rows.append(hold(contest, asked.repeats))
                print(f"  {contest.name}: {rows[-1]['times_cpu'].median:.2f} times", file=sys.stderr, flush=True)
    print(table(rows))
    print(
        f"seconds, median (lowest .. highest); floor {FLOOR} times, goal {GOAL} times; theirs: diffusers, as it comes"
    )
    print(write(f"networks-{asked.shape}", about, rows, asked.out).name)
    return rows


if __name__ == "__main__":
    main()
