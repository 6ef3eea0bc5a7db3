"""The rewriter around a network with random weights, and around one that says what it is told to say."""

from typing import Any

import pytest
import torch

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.dalle3.rewriter import OwnRewriter, OwnRewriterConfig, opened
from opendalle.dalle3.text_decoder import START, TextDecoder, TextDecoderConfig, TextToText
from opendalle.dalle3.text_encoder import TextEncoder, TextEncoderConfig
from opendalle.tokenizers import ByteTokenizer
from opendalle.tokenizers.byte_level import FIRST_BYTE

SHAPE = {"vocabulary": 384, "width": 16, "depth": 2, "heads": 2, "head_width": 8, "hidden": 24}
PROMPTS = ["a cat", "三只猫", 'a sign that says "ZORP"']
SHORT = OwnRewriterConfig(longest=24, says_prompt=False)


def rewriter(config: OwnRewriterConfig = SHORT) -> OwnRewriter:
    torch.manual_seed(0)
    both = TextToText(TextEncoder(TextEncoderConfig(**SHAPE)), TextDecoder(TextDecoderConfig(**SHAPE)))
    return OwnRewriter(both.eval().requires_grad_(False), ByteTokenizer(), config)


def saying(text: str, config: OwnRewriterConfig, *, ends: bool = True) -> OwnRewriter:
    """A rewriter whose network says a text behind any prompt."""
    one, script = rewriter(config), [*ByteTokenizer().encode(text), *([ByteTokenizer.end] if ends else [])]
    first: list[int] = []

    def next_logits(tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        first[:] = first or [tokens.shape[1]]
        said = tokens.shape[1] - first[0]
        logits = torch.zeros(1, SHAPE["vocabulary"])
        logits[0, script[said % len(script)]] = 100
        return logits

    one.network.next_logits = next_logits
    return one


def test_a_prompt_is_written_alone_and_by_its_seed() -> None:
    one = rewriter()
    together = one.rewrite(PROMPTS, seeds=[1, 2, 3])
    assert together == [one.rewrite([prompt], seeds=[seed])[0] for prompt, seed in zip(PROMPTS, (1, 2, 3), strict=True)]
    assert one.write("a cat", 1) != one.write("a cat", 2)
    with pytest.raises(BadRequest, match="2 seeds"):
        one.rewrite(PROMPTS, seeds=[1, 2])


def test_seed_0_takes_the_likeliest_byte_each_time() -> None:
    one = rewriter()
    spelled = ByteTokenizer()
    ids, mask = (torch.from_numpy(part) for part in spelled.pack(["a cat"], 6))
    tokens = [START, *spelled.encode("a cat. ")]
    begun = len(tokens)
    allowed = torch.zeros(384, dtype=torch.bool)
    allowed[[1, *range(FIRST_BYTE + 32, FIRST_BYTE + 0x7F), *range(FIRST_BYTE + 0x80, FIRST_BYTE + 0xF5)]] = True
    while len(tokens) < begun + SHORT.longest and tokens[-1] != spelled.end:
        written = torch.tensor([[*tokens[1:], 0]])
        logits = one.network(ids, mask, written)[0, -1].masked_fill(~allowed, -torch.inf)
        tokens.append(int(logits.argmax()))
    wanted = " ".join(spelled.decode(tokens[begun:]).replace("\ufffd", "").split())
    assert one.write("a cat", 0).text == wanted


def test_only_one_line_of_text_is_written() -> None:
    one = rewriter(OwnRewriterConfig(longest=200, temperature=20.0, top_p=1.0, says_prompt=False))
    for seed in range(1, 6):
        text = one.write("a cat", seed).text
        assert text.isprintable() or all(character >= "\x80" for character in text if not character.isprintable())
        assert "\ufffd" not in text


@pytest.mark.parametrize(
    ("prompt", "text", "wanted"),
    [
        ("a cat", "a cat sits.", "a cat. a cat sits."),
        ("A CAT!", "a cat sits.", "A CAT! a cat sits."),
        ("三只猫", "一张图片。", "三只猫。一张图片。"),
        ("三只猫。", "一张图片。", "三只猫。一张图片。"),
        ('a  sign saying "Zorp"', "it is red.", 'a sign saying "Zorp". it is red.'),
    ],
)
def test_the_prompt_comes_first_as_it_was_typed(prompt: str, text: str, wanted: str) -> None:
    assert saying(text, OwnRewriterConfig()).rewrite([prompt], seeds=[1]) == [wanted]
    assert saying(text, OwnRewriterConfig(says_prompt=False)).rewrite([prompt], seeds=[1]) == [text]
    assert wanted.startswith(opened(prompt))


def test_what_is_cut_off_ends_with_a_whole_sentence() -> None:
    def says(longest: int) -> OwnRewriter:
        return saying("one. two is 猫", OwnRewriterConfig(longest=longest, says_prompt=False))

    assert says(99).write("a cat", 1).is_finished
    cut = says(14).write("a cat", 1)
    assert (cut.text, cut.is_finished) == ("one. two is", False)  # half a character goes
    assert says(14).rewrite(["a cat"], seeds=[1]) == ["one."]
    assert says(3).rewrite(["a cat"], seeds=[1]) == [""]


def test_a_prompt_that_is_too_long_is_not_rewritten() -> None:
    one = rewriter(OwnRewriterConfig(context=20, longest=4))
    assert one.rewrite(["x" * 30], seeds=[1]) == [""]
    assert one.rewrite(["x" * 10**6], seeds=[1]) == [""]


def test_what_cannot_be_is_refused() -> None:
    one = rewriter()
    with pytest.raises(BadRequest, match="empty prompt"):
        one.write("  ", 1)
    with pytest.raises(BadRequest, match="surrogate"):
        one.write("\ud800", 1)
    small = {**SHAPE, "vocabulary": 300}
    with pytest.raises(BadConfig, match="384 tokens"):
        OwnRewriter(
            TextToText(TextEncoder(TextEncoderConfig(**small)), TextDecoder(TextDecoderConfig(**small))),
            ByteTokenizer(),
        )
    with pytest.raises(BadConfig, match="temperature"):
        OwnRewriterConfig(temperature=0)
    assert one.name == "own"
