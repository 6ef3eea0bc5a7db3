"""Holes that can be filled again, and losses against a slow sum over tokens."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from opendalle.base.errors import BadConfig
from opendalle.clip.distillation import TextDistillation, TextDistillationConfig
from opendalle.dalle3.sentences import (
    Holed,
    HolesConfig,
    SentencesBatch,
    SentencesLossConfig,
    SentencesObjective,
    TextPairs,
    cut_holes,
    fill_holes,
    pack_pairs,
    pooled,
)
from opendalle.dalle3.text_decoder import TextDecoder, TextDecoderConfig, TextToText
from opendalle.dalle3.text_encoder import TextEncoder, TextEncoderConfig
from opendalle.tokenizers import ByteTokenizer
from opendalle.tokenizers.byte_level import FIRST_BYTE

SHAPE = {"vocabulary": 384, "width": 16, "depth": 1, "heads": 2, "head_width": 8, "hidden": 24}


def both() -> TextToText:
    torch.manual_seed(0)
    return TextToText(TextEncoder(TextEncoderConfig(**SHAPE)), TextDecoder(TextDecoderConfig(**SHAPE)))


def pairs(teacher: torch.Tensor | None = None) -> TextPairs:
    spell, texts = ByteTokenizer().encode, [("a cat", "a red cat."), ("三只猫", "三只橙色的猫。"), ("x", "")]
    return pack_pairs(
        [spell(one) for one, _ in texts],
        [spell(other) for _, other in texts],
        ByteTokenizer(),
        context=12,
        longest=20,
        teacher=teacher,
    )


@pytest.mark.parametrize(
    "config", [HolesConfig(), HolesConfig(mean=3, share=0.3, first=999, most=30), HolesConfig(mean=1)]
)
def test_what_was_cut_out_fits_in_again(config: HolesConfig) -> None:
    rng = np.random.default_rng(0)
    for length in [*range(2, 40), 200, 500]:
        tokens = rng.integers(3, 240, length).tolist()
        holed = cut_holes(tokens, config, rng)
        assert fill_holes(holed, config) == tokens
        holes = [token for token in holed.source if token > 240]
        assert holes == [config.first - k for k in range(len(holes))]
        assert [token for token in holed.missing if token > 240] == holes
        assert 1 <= len(holes) <= config.most
        hidden = len(holed.missing) - len(holes)
        assert hidden == min(max(round(length * config.share), 1), length - 1)
        assert len(holed.source) == length - hidden + len(holes)


def test_holes_are_anywhere_and_as_long_as_asked() -> None:
    rng, config = np.random.default_rng(1), HolesConfig()
    all_holed = [cut_holes(list(range(200)), config, rng) for _ in range(1500)]
    assert {sum(token > 240 for token in one.source) for one in all_holed} == {2}  # 30 tokens of 200, about 20 a hole
    hidden = np.bincount([token for one in all_holed for token in one.missing if token < 200], minlength=200) / 1500
    assert hidden.sum() == 30
    assert hidden[[0, -1]].min() > 0  # also the first and the last one, though seldom
    assert 0.1 < hidden[40:160].min() < hidden[40:160].max() < 0.25


def test_a_hole_of_which_nothing_is_said_stays_and_others_are_filled() -> None:
    config = HolesConfig()
    assert fill_holes(Holed(source=[5, 258, 6, 257], missing=[257, 8, 9]), config) == [5, 258, 6, 8, 9]


def test_sentinels_of_bytes_stand_in_no_text() -> None:
    config = HolesConfig()
    for token in range(config.first - config.most + 1, config.first + 1):
        with pytest.raises(UnicodeDecodeError):
            bytes([token - FIRST_BYTE]).decode("utf-8")
        with pytest.raises(UnicodeDecodeError):
            bytes([token - FIRST_BYTE, 0x80, 0x80, 0x80]).decode("utf-8")
    assert config.first - config.most == FIRST_BYTE + 0xF4  # which does: U+10FFFF begins with it
    with pytest.raises(BadConfig, match="most"):
        HolesConfig(first=3, most=4)


def test_losses_are_the_mean_over_real_tokens() -> None:
    network, batch = both(), pairs()
    losses = SentencesObjective(network, None, SentencesLossConfig(holes=0.25))(
        SentencesBatch(pairs=batch, holes=batch), torch.Generator()
    )
    slow = []
    for row in range(3):
        width, count = int(batch.mask[row].sum()), int(batch.counts[row].sum())
        for place in range(count):
            logits = network(
                batch.ids[row : row + 1, :width], batch.mask[row : row + 1, :width], batch.written[row : row + 1]
            )
            slow.append(-F.log_softmax(logits[0, place], -1)[batch.written[row, place]])
    wanted = torch.stack(slow).mean()
    torch.testing.assert_close(losses.total["rewriter"], 1.25 * wanted, rtol=1e-5, atol=1e-5)
    assert losses.watch == pytest.approx({"pairs": wanted.item(), "holes": wanted.item()}, rel=1e-5)


def test_a_text_that_is_too_long_has_no_end_and_a_source_always_has() -> None:
    batch = pack_pairs([[9] * 30], [[8] * 30], ByteTokenizer(), context=5, longest=6)
    assert batch.ids.tolist() == [[9, 9, 9, 9, 1]]
    assert batch.written.tolist() == [[8] * 6]


def test_meaning_moves_the_encoder_alone_and_a_kept_encoder_is_not_moved() -> None:
    teacher = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    network, batch = both(), pairs(teacher)
    meaning = TextDistillation(TextDistillationConfig(embed=16, teacher=7))
    objective = SentencesObjective(network, meaning, SentencesLossConfig())
    assert [*objective.groups] == ["text", "rewriter", "meaning"]
    losses = objective(SentencesBatch(pairs=batch), torch.Generator())
    wanted = meaning(pooled(network.encoder(batch.ids, batch.mask)), teacher).item()
    assert losses.watch["meaning"] == pytest.approx(wanted, rel=1e-5)
    assert losses.total["rewriter"].item() == pytest.approx(losses.watch["pairs"] + wanted, rel=1e-5)

    kept = SentencesObjective(network, None, SentencesLossConfig(), keeps_encoder=True)
    assert [*kept.groups] == ["rewriter"]
    kept(SentencesBatch(pairs=batch, holes=batch), torch.Generator()).total["rewriter"].backward()
    assert all(weight.grad is None for weight in network.encoder.parameters())
    assert all(weight.grad is not None for weight in network.decoder.parameters())


def test_it_learns_to_repeat_what_it_reads() -> None:
    """A text that cannot be known but from the source: below the entropy of its letters only by reading."""
    network, rng, spell = both(), np.random.default_rng(0), ByteTokenizer().encode
    objective = SentencesObjective(network, None, SentencesLossConfig())
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    told = []
    for _ in range(120):
        texts = [spell("".join(rng.choice(list("abcdefgh"), 2))) for _ in range(32)]
        batch = pack_pairs(texts, texts, ByteTokenizer(), context=4, longest=4)
        loss = objective(SentencesBatch(pairs=batch), torch.Generator()).total["rewriter"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        told.append(loss.item())
    assert np.mean(told[-10:]) < 0.6 * 2 * np.log(8) / 3  # two letters of eight, and an end that is sure
