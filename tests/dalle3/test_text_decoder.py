"""The decoder against itself: with and without cache, with and without what it must not see."""

import pytest
import torch

from opendalle.base.errors import BadConfig, BadModel, BadRequest
from opendalle.dalle3.text_decoder import START, TEXT_DECODER_PRESETS, TextDecoder, TextDecoderConfig, TextToText
from opendalle.dalle3.text_encoder import TEXT_ENCODER_PRESETS, TextEncoder, TextEncoderConfig

SHAPE = {"vocabulary": 50, "width": 16, "depth": 2, "heads": 2, "head_width": 8, "hidden": 24, "max_distance": 40}


def network(**changes: object) -> TextToText:
    torch.manual_seed(0)
    encoder = TextEncoder(TextEncoderConfig(**SHAPE))
    decoder = TextDecoder(TextDecoderConfig(**{**SHAPE, **changes}))
    torch.nn.init.normal_(decoder.distances.weight)
    return TextToText(encoder, decoder).eval().requires_grad_(False)


def source() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(1))
    return ids, torch.arange(9) < torch.tensor([9, 4])[:, None]


def written(count: int = 21) -> torch.Tensor:
    return torch.randint(3, 50, (2, count), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("changes", [{}, {"has_own_head": False, "scales_states": True}])
def test_cached_equals_uncached(changes: dict) -> None:
    """By single tokens, and by a beginning at once as a prompt is, then single tokens."""
    both, (ids, mask), text = network(**changes), source(), written()
    whole = both(ids, mask, text)
    said = both.encoder(ids, mask)
    tokens = torch.cat([torch.full((2, 1), START), text], 1)
    for first in (1, 6):
        memory = both.decoder.remember(said, 21, cached=True)
        for count in range(first, 22):
            logits = both.next_logits(tokens[:, :count], memory)
            torch.testing.assert_close(logits, whole[:, count - 1], rtol=0, atol=1e-5)
        with pytest.raises(BadRequest, match="memory of 21"):
            both.next_logits(torch.cat([tokens, tokens[:, :1]], 1), memory)


def test_nothing_is_seen_of_what_follows() -> None:
    both, (ids, mask), text = network(), source(), written()
    changed = text.clone()
    changed[:, 10] = 1
    one, other = both(ids, mask, text), both(ids, mask, changed)
    assert torch.equal(one[:, :11], other[:, :11])
    assert (one[:, 11:] != other[:, 11:]).any(-1).all()


def test_nothing_is_read_of_padding_and_all_of_the_source() -> None:
    both, (ids, mask), text = network(), source(), written()
    padding, word = ids.clone(), ids.clone()
    padding[1, 5], word[1, 3] = 7, 1
    one = both(ids, mask, text)
    torch.testing.assert_close(both(padding, mask, text), one, rtol=0, atol=1e-6)
    assert (both(word, mask, text)[1] - one[1]).abs().amax(-1).min() > 1e-4


def test_distances_count_and_halves_must_fit() -> None:
    both, (ids, mask), text = network(), source(), written()
    one = both(ids, mask, text)
    both.decoder.distances.weight.neg_()
    assert not torch.allclose(both(ids, mask, text)[:, 1:], one[:, 1:], atol=1e-3)
    with pytest.raises(BadConfig, match="width 16 and 50 tokens"):
        TextToText(both.encoder, TextDecoder(TextDecoderConfig(**{**SHAPE, "width": 12})))
    with pytest.raises(BadConfig, match="near distances"):
        TextDecoderConfig(**{**SHAPE, "max_distance": 16})


def test_never_in_float16() -> None:
    both, (ids, mask) = network(), source()
    said = both.encoder(ids, mask)
    with pytest.raises(BadModel, match="float16"):
        both.decoder.half().remember(said, 3)


@pytest.mark.parametrize("name", TEXT_DECODER_PRESETS)
def test_presets_fit_their_encoders(name: str) -> None:
    with torch.device("meta"):
        TextToText(TextEncoder(TEXT_ENCODER_PRESETS[name]), TextDecoder(TEXT_DECODER_PRESETS[name]))
