"""DALL·E mini's network against itself: word by word as all at once, folded prompts as plain ones, maps there and back.

Against min-dalle's own code it is compared by `bench/autoregressive.py --min-dalle`.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opendalle.base.errors import BadConfig, BadModel, BadRequest
from opendalle.base.rng import picture_generator
from opendalle.codec.convolutional import ConvolutionalConfig
from opendalle.codec.vqgan import VQGAN, VQGANConfig
from opendalle.pretrained.maps import dalle_mini, min_dalle
from opendalle.pretrained.networks.dalle_bart import DALLE_BART_PRESETS, DalleBart, DalleBartConfig, Folded
from opendalle.pretrained.networks.dalle_bart_drawing import PromptLogits, drawing, padded_prompts
from opendalle.pretrained.networks.word_decoder import WordDecoder, WordDecoderConfig
from opendalle.samplers import TokenOptions, sample_tokens

CONFIG = DalleBartConfig(
    width=32,
    depth=2,
    heads=2,
    gated_width=24,
    text_vocabulary=40,
    num_text=9,
    picture_vocabulary=20,
    num_rows=23,
    num_cells=16,
    start=20,
)
GRID = ConvolutionalConfig(
    picture_size=16, grid_channels=6, width=8, growth=(1, 2, 2), blocks=1, attention_sides=(4,), norm_groups=4
)
WORDS = WordDecoderConfig(network=GRID, vocabulary=20, code_width=5)


def network(config: DalleBartConfig = CONFIG, seed: int = 0) -> DalleBart:
    torch.manual_seed(seed)
    return spread(DalleBart(config))


def spread(module: Any) -> Any:
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.3)
    return module.eval().requires_grad_(False)


def test_word_by_word_is_all_at_once() -> None:
    net = network()
    prompts = padded_prompts([(5, 6, 7), (), (8, 9, 10, 11, 12)], CONFIG)
    tokens = torch.randint(20, (3, 15), generator=torch.Generator().manual_seed(1))
    whole = net(prompts, tokens)
    assert whole.shape == (3, 16, 20)
    logits, cache = PromptLogits(net, net.read(prompts)), net.new_cache(3)
    for num in [*range(3), *range(7, 16)]:  # at 7, several words are read at once
        torch.testing.assert_close(logits(tokens[:, :num], cache), whole[:, num], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(logits(tokens[:, :num], None), whole[:, num], atol=2e-5, rtol=1e-5)


def test_the_future_is_not_seen() -> None:
    net, prompts = network(), padded_prompts([(5,)], CONFIG)
    tokens = torch.randint(20, (1, 15), generator=torch.Generator().manual_seed(1))
    other = torch.cat([tokens[:, :9], (tokens[:, 9:] + 1) % 20], dim=1)
    assert torch.equal(net(prompts, tokens)[:, :10], net(prompts, other)[:, :10])
    assert not torch.allclose(net(prompts, tokens)[:, 10:], net(prompts, other)[:, 10:])


def test_a_folded_prompt_says_the_same() -> None:
    net, prompts = network(), padded_prompts([(5, 6, 7), ()], CONFIG)
    folded, tokens = net.read(prompts), torch.arange(4)[None].expand(6, -1)
    assert all(isinstance(layer, Folded) for layer in folded.layers)
    plain = net.read(torch.cat([prompts, *[prompts[:1]] * 3]))  # too many numbers to be folded
    assert not any(isinstance(layer, Folded) for layer in plain.layers)
    of_plain = net.states(tokens[:1].expand(5, -1), plain)
    of_folded = net.states(tokens, folded)  # three pictures a prompt
    torch.testing.assert_close(of_folded[:3], of_plain[:1].expand(3, -1, -1), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(of_folded[3:], of_plain[1:2].expand(3, -1, -1), atol=2e-5, rtol=1e-5)


def test_padding_changes_nothing() -> None:
    net, tokens = network(), torch.arange(4)[None]
    alone = net(padded_prompts([(5, 6)], CONFIG), tokens)
    beside = net(padded_prompts([(5, 6), (5, 6, 7, 8, 9, 10, 11)], CONFIG), tokens.expand(2, -1))
    torch.testing.assert_close(alone[0], beside[0], atol=2e-5, rtol=1e-5)
    padded = torch.tensor([[0, 5, 6, 2, 1, 1, 1, 1, 1]])
    assert torch.equal(net(padded, tokens), alone)


def test_guidance_pushes_away_from_the_empty_prompt() -> None:
    net, prompts = network(), padded_prompts([(5, 6), (7,)], CONFIG)
    tokens = torch.arange(4)[None].expand(4, -1)
    drawn = drawing(net, prompts, 3.0, count=2)
    said = drawn.next_logits(tokens, drawn.cache)
    conditional = net(prompts, tokens[:2])[:, -1].repeat_interleave(2, dim=0)
    unconditional = net(padded_prompts([()], CONFIG), tokens[:1])[:, -1]
    torch.testing.assert_close(said, unconditional + 3 * (conditional - unconditional), atol=1e-4, rtol=1e-4)


def test_prompts_in_order() -> None:
    assert padded_prompts([(5, 6), ()], CONFIG).tolist() == [[0, 5, 6, 2], [0, 2, 1, 1]]
    assert padded_prompts([range(3, 20)], CONFIG).tolist() == [[0, *range(3, 10), 2]]  # the end stays
    with pytest.raises(BadRequest, match="token 40"):
        padded_prompts([(40,)], CONFIG)


def test_what_does_not_fit_is_refused() -> None:
    net = network()
    with pytest.raises(BadRequest, match="1 to 9 tokens"):
        net.read(torch.zeros(1, 10, dtype=torch.long))
    with pytest.raises(BadRequest, match="1 to 9 tokens"):
        net.read(torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(BadRequest, match="fewer than 16"):
        net(padded_prompts([()], CONFIG), torch.zeros(1, 16, dtype=torch.long))
    with pytest.raises(BadConfig, match="num_rows"):
        replace(CONFIG, num_rows=19)


@pytest.mark.parametrize(("preset", "encoder", "decoder"), [("mini", 202.6, 235.2), ("mega", 1110.0, 1477.5)])
def test_the_published_sizes(preset: str, encoder: float, decoder: float) -> None:
    config = DALLE_BART_PRESETS[preset]
    with torch.device("meta"):
        state = DalleBart(config).state_dict()
    theirs = min_dalle.dalle_bart_table(config).to_theirs(state)
    counts, tensors = {"encoder": 0, "decoder": 0}, {"encoder": 0, "decoder": 0}
    for key, tensor in theirs.items():
        counts[key.split(".")[0]] += tensor.numel()
        tensors[key.split(".")[0]] += 1
    assert (round(counts["encoder"] / 1e6, 1), round(counts["decoder"] / 1e6, 1)) == (encoder, decoder)
    assert tensors == {"mini": {"encoder": 149, "decoder": 234}, "mega": {"encoder": 293, "decoder": 462}}[preset]


def test_there_and_back_in_both_layouts() -> None:
    for module, config, maps in ((network(), CONFIG, "dalle_bart_table"), (words(), WORDS, "word_decoder_table")):
        state = module.state_dict()
        for origin in (min_dalle, dalle_mini):
            table = getattr(origin, maps)(config)
            theirs = table.to_theirs(state)
            if origin is dalle_mini:
                theirs = dalle_mini.plain(dalle_mini.scanned(theirs))
            back = table.to_ours(theirs)
            assert back.keys() == state.keys()
            assert all(torch.equal(back[key], state[key]) for key in state)


def test_the_scanned_layout() -> None:
    net = network()
    nested = dalle_mini.scanned(dalle_mini.dalle_bart_table(CONFIG).to_theirs(net.state_dict()))
    assert sorted(nested) == ["lm_head", "model"]
    layers = nested["model"]["decoder"]["layers"]["FlaxBartDecoderLayers"]
    assert sorted(layers) == [
        *("FlaxBartAttention_0", "FlaxBartAttention_1", "GLU_0"),
        *(f"LayerNorm_{place}" for place in range(4)),
    ]
    assert layers["GLU_0"]["Dense_1"]["kernel"].shape == (2, 32, 24)
    second: Any = net.decoder.layers[1]
    assert torch.equal(layers["GLU_0"]["Dense_1"]["kernel"][1], second.mlp.up.weight[24:].T)
    assert torch.equal(layers["FlaxBartAttention_1"]["v_proj"]["kernel"][1], second.prompt.kv.weight[32:].T)
    assert torch.equal(layers["LayerNorm_3"]["scale"][1], second.prompt.norm.weight)
    assert torch.equal(nested["lm_head"]["kernel"], net.words_out.weight.T)
    drawn = dalle_mini.scanned(dalle_mini.word_decoder_table(WORDS).to_theirs(words().state_dict()))
    assert drawn["decoder"]["up_1"]["block_0"]["conv1"]["kernel"].shape == (3, 3, 16, 16)
    assert drawn["quantize"]["embedding"]["embedding"].shape == (20, 5)


def test_keys_are_known_or_refused() -> None:
    table = min_dalle.dalle_bart_table(CONFIG)
    theirs = table.to_theirs(network().state_dict())
    with pytest.raises(BadModel, match=r"'decoder\.layers\.0\.glu\.ln0\.weight'"):
        table.to_ours({**theirs, "decoder.layers.0.glu.ln0.weight": torch.ones(32)})
    with pytest.raises(BadModel, match=r"no weights 'encoder\.final_ln\.bias'"):
        table.to_ours({key: tensor for key, tensor in theirs.items() if key != "encoder.final_ln.bias"})
    table = dalle_mini.dalle_bart_table(replace(CONFIG, depth=1))
    nested = dalle_mini.scanned(dalle_mini.dalle_bart_table(CONFIG).to_theirs(network().state_dict()))
    with pytest.raises(BadModel, match=r"layers\.1\."):  # another depth
        table.to_ours(dalle_mini.plain(nested))
    with pytest.raises(BadModel, match=r"'model\.x', a list"):
        dalle_mini.plain({"model": {"x": [1]}})


def test_the_encoder_that_stays_behind_is_ours_name_by_name() -> None:
    """What is dropped of the VQGAN has as many numbers a layer as our encoder has; a name too many would show."""
    table = dalle_mini.word_decoder_table(WORDS)
    with torch.device("meta"):
        whole = VQGAN(VQGANConfig(network=GRID, vocabulary=20, code_width=5)).state_dict()
    assert len(table.dropped) == len([key for key in whole if key.startswith(("encoder.", "to_codes."))])
    theirs = table.to_theirs(words().state_dict())
    assert len(table.to_ours({**theirs, **{key: torch.zeros(1) for key in table.dropped}})) == len(theirs)


def words(config: WordDecoderConfig = WORDS) -> WordDecoder:
    torch.manual_seed(3)
    return spread(WordDecoder(config))


def test_words_are_drawn_as_a_vqgan_draws_them() -> None:
    """The half that draws has the keys of the whole, and pixels of its own range."""
    half, tokens = words(), torch.arange(16).reshape(1, 4, 4)
    whole = VQGAN(VQGANConfig(network=GRID, vocabulary=20, code_width=5)).eval()
    rest = whole.load_state_dict(half.state_dict(), strict=False)
    assert not rest.unexpected_keys
    assert {key.split(".")[0] for key in rest.missing_keys} == {"encoder", "to_codes"}
    with torch.no_grad():
        drawn = whole.draw(whole.codebook.look_up(tokens))
        assert torch.equal(half.decode_tokens(tokens), (2 * drawn - 1).clamp(-1, 1))
        old = WordDecoder(replace(WORDS, pixels="-1..1")).eval()
        old.load_state_dict(half.state_dict())
        assert torch.equal(old.decode_tokens(tokens), whole.decode_tokens(tokens))
    with pytest.raises(BadConfig, match="code_width"):
        replace(WORDS, code_width=0)


def test_from_a_prompt_to_a_picture() -> None:
    net, codec = network(), words()

    def pictures(seeds: list[int]) -> Tensor:
        drawn = drawing(net, padded_prompts([(5, 6, 7)], CONFIG), 4.0, count=len(seeds))
        generators = [picture_generator(seed) for seed in seeds]
        states = sample_tokens(
            drawn.next_logits,
            drawn.tokens,
            16,
            generators=generators,
            options=TokenOptions(top_k=8),
            cache=drawn.cache,
        )
        *_, last = states
        assert int(last.tokens.max()) < 20
        return codec.decode_tokens(last.tokens.reshape(-1, 4, 4))

    both = pictures([1, 2])
    assert both.shape == (2, 3, 16, 16)
    assert not torch.equal(both[0], both[1])
    torch.testing.assert_close(both[1:], pictures([2]))  # its own chance, whatever stands beside it


def test_greedy_words_are_the_same_without_a_cache() -> None:
    net = network(seed=4)
    drawn = drawing(net, padded_prompts([(5, 6, 7)], CONFIG), 4.0)
    greedy = {"generators": [picture_generator(0)], "options": TokenOptions(temperature=0)}
    [*_, cached] = sample_tokens(drawn.next_logits, drawn.tokens, 16, cache=drawn.cache, **greedy)
    [*_, anew] = sample_tokens(drawn.next_logits, drawn.tokens, 16, **greedy)
    assert torch.equal(cached.tokens, anew.tokens)


def test_the_cache_has_the_precision_of_the_network() -> None:
    net, prompts = network(), padded_prompts([(5, 6, 7)], CONFIG)
    wanted = drawing(net, prompts, 4.0)
    exact = wanted.next_logits(wanted.tokens, wanted.cache)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        automatic = drawing(net, prompts, 4.0)
        said = automatic.next_logits(automatic.tokens, automatic.cache)
    half = drawing(network().to(torch.bfloat16), prompts, 4.0)
    assert {automatic.cache.keys.dtype, half.cache.keys.dtype} == {torch.bfloat16}
    for logits in (said, half.next_logits(half.tokens, half.cache)):
        assert torch.corrcoef(torch.stack([logits[0].float(), exact[0]]))[0, 1] > 0.98
