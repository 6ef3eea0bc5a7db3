"""Words that a teacher places: the tower then says what the teacher's weighted sums say."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from opendalle.base.errors import BadConfig
from opendalle.clip import CLIP, CLIPConfig
from opendalle.clip.words import COMMON, place_words

CONFIG = CLIPConfig(
    embed=8,
    vocab=30,
    context=6,
    text_width=8,
    text_depth=1,
    text_heads=2,
    size=8,
    patch=8,
    channels=3,
    picture_width=8,
    picture_depth=1,
    picture_heads=2,
    has_word_path=True,
)
WORDS = ["", "", "", *(f"word {k}" for k in range(27))]
COUNTS = [0, 9, 9, *range(1, 28)]


def teacher(sentences) -> np.ndarray:
    rows = [np.random.default_rng(len(WORDS) + WORDS.index(one)).normal(size=8) + 2.0 for one in sentences]
    return np.stack(rows).astype(np.float32)


def test_a_placed_tower_is_the_weighted_sum_of_the_teachers_words() -> None:
    clip = CLIP(CONFIG).eval()
    place_words(clip.text, WORDS, COUNTS, teacher)
    ids = torch.tensor([[1, 5, 20, 2, 0, 0], [1, 4, 29, 8, 17, 2], [1, 5, 21, 2, 0, 0]])
    mask = torch.tensor([[True] * 4 + [False] * 2, [True] * 6, [True] * 4 + [False] * 2])
    with torch.no_grad():
        got = clip.encode_text(ids, mask).pooled
    vectors = torch.from_numpy(teacher(WORDS[3:])).double()
    vectors = vectors - vectors.mean(0)
    sums = []
    for row in ids.tolist():
        total = torch.zeros(8, dtype=torch.float64)
        for token in row:
            if token >= 3:
                total += vectors[token - 3] * COMMON / (COMMON + COUNTS[token] / sum(COUNTS))
        sums.append(total)
    wanted = F.normalize(torch.stack(sums), dim=1)
    torch.testing.assert_close((got @ got.T).double(), wanted @ wanted.T, atol=1e-5, rtol=1e-5)


def test_without_the_path_the_words_are_placed_all_the_same() -> None:
    clip = CLIP(dataclasses.replace(CONFIG, has_word_path=False))
    place_words(clip.text, WORDS, COUNTS, teacher)
    assert clip.text.tokens.weight[:3].abs().max() == 0
    assert clip.text.tokens.weight[3:].abs().min() > 0
    assert clip.text.project.weight.abs().max() > 0


@pytest.mark.parametrize(
    ("words", "counts", "message"),
    [(WORDS[:-1], COUNTS, "words"), (WORDS, COUNTS[:-1], "counts"), (["", *["a"] * 5, *[""] * 24], COUNTS, "5 words")],
)
def test_what_does_not_fit_is_refused(words: list[str], counts: list[int], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        place_words(CLIP(CONFIG).text, words, counts, lambda texts: np.ones((len(texts), 8), dtype=np.float32))


def test_a_word_path_adds_to_what_the_transformer_says() -> None:
    torch.manual_seed(0)
    clip = CLIP(CONFIG).eval()
    ids, mask = torch.tensor([[1, 5, 7, 2, 0, 0]]), torch.tensor([[True] * 4 + [False] * 2])
    with torch.no_grad():
        whole = clip.encode_text(ids, mask).raw
        assert clip.text.words is not None
        path = clip.text.words(clip.text.tokens.weight[ids[0, :4]].sum(0) / 2)
        clip.text.words.weight.zero_()
        torch.testing.assert_close(whole, clip.encode_text(ids, mask).raw + path)
