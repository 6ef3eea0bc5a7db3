"""Captions and pictures of any size as one row each: what CLIP says of them when they are brought to it by hand."""

import pytest
import torch

from opendalle.base.errors import BadConfig
from opendalle.clip.embedder import ClipEmbedder
from opendalle.clip.model import CLIP, CLIPConfig
from opendalle.tokenizers.bpe import BytePairTokenizer


def embedder(channels: int) -> ClipEmbedder:
    torch.manual_seed(0)
    tokenizer = BytePairTokenizer.train(["a red apple", "a blue car"], 262)
    widths = {"text_width": 16, "text_depth": 1, "text_heads": 2, "picture_width": 16, "picture_depth": 1}
    size = {"size": 16, "patch": 8, "channels": channels, "picture_heads": 2}
    return ClipEmbedder(
        CLIP(CLIPConfig(embed=8, vocab=tokenizer.vocab_size, context=12, **widths, **size)).eval(), tokenizer
    )


def test_captions_are_spelled_and_embedded() -> None:
    one = embedder(3)
    captions = ["a red apple", "", "a car"]
    packed = one.tokenizer.pack(captions, 12)
    wanted = one.clip.encode_text(torch.from_numpy(packed.ids), torch.from_numpy(packed.mask)).pooled
    torch.testing.assert_close(one.texts(captions), wanted)
    torch.testing.assert_close(one.texts(captions).norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(("came", "wanted"), [(4, 3), (3, 4), (4, 4)])
def test_pictures_are_brought_to_size_and_channels(came: int, wanted: int) -> None:
    one, generator = embedder(wanted), torch.Generator().manual_seed(1)
    large = (torch.rand(2, came, 4, 4, generator=generator) * 2 - 1).repeat_interleave(8, 2).repeat_interleave(8, 3)
    if came == 4:
        large[:, 3] = 1  # opaque: laid on white it stays what it is
    seen = one.fit(large)
    assert seen.shape == (2, wanted, 16, 16)
    torch.testing.assert_close(seen[:, :3, 2, 2], large[:, :3, 4, 4], atol=0.2, rtol=0)
    assert bool((seen[:, 3:] == 1).all())
    torch.testing.assert_close(
        one.pictures(large), torch.nn.functional.normalize(one.clip.encode_pictures(seen), dim=1)
    )


def test_a_tokenizer_of_more_words_is_refused() -> None:
    one = embedder(3)
    more = BytePairTokenizer.train(["a red apple", "a blue car", "a green tree by a house"] * 3, 280)
    with pytest.raises(BadConfig, match="a tokenizer of"):
        ClipEmbedder(one.clip, more)
