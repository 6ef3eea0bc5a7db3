"""The losses against plain loops, gradient caching against one whole pass, and that training trains."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError

from opendalle.base.errors import BadConfig, BadData
from opendalle.clip import (
    CLIP,
    CaptionedBatch,
    CLIPConfig,
    ContrastiveConfig,
    ContrastiveObjective,
    SentenceBatch,
    SentenceObjective,
    measure_retrieval,
)
from opendalle.clip.distillation import TextDistillation, TextDistillationConfig
from opendalle.clip.losses import Known, contrastive_loss, describes, relation_loss

TINY = CLIPConfig(
    embed=12,
    vocab=40,
    context=8,
    text_width=16,
    text_depth=2,
    text_heads=2,
    size=16,
    patch=8,
    channels=4,
    picture_width=16,
    picture_depth=2,
    picture_heads=2,
)
RNG = torch.Generator()


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def captions(num: int, seed: int, context: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, context + 1, (num, 1), generator=generator)
    mask = torch.arange(context) < lengths
    return torch.randint(3, 40, (num, context), generator=generator) * mask, mask


def make_batch(num: int = 7, **more: object) -> CaptionedBatch:
    ids, mask = captions(num, seed=3)
    ids[4], mask[4] = ids[1], mask[1]  # two pictures with one caption
    pictures = torch.randn(num, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    return CaptionedBatch(pictures=pictures, ids=ids, mask=mask, **more)


def full_batch() -> CaptionedBatch:
    hard_ids, hard_mask = captions(14, seed=5)
    ids, mask = captions(5, seed=6)
    return make_batch(
        teacher=torch.randn(7, 20),
        concepts=torch.tensor([0, 1, -1, 0, 2, -1, 3]),
        hard_ids=hard_ids.view(7, 2, 8),
        hard_mask=hard_mask.view(7, 2, 8),
        sentences=SentenceBatch(ids=ids, mask=mask, teacher=torch.randn(5, 20)),
    )


def plain_contrast(p, t, scale, true, duplicates, hard) -> torch.Tensor:
    """The same loss, one logit at a time; true[i][j]: caption j is true of picture i."""
    num = len(p)

    def one_side(question: torch.Tensor, answers: torch.Tensor, at: int, is_true, extra: list) -> torch.Tensor:
        logits, target = [], []
        for j in range(num):
            if j != at and is_true(at, j) and duplicates == "mask":
                continue
            logits.append(scale * question @ answers[j])
            is_right = is_true(at, j) if duplicates == "positive" else j == at
            target.append(float(is_right))
        every = torch.stack(logits + extra)
        weight = torch.tensor(target + [0.0] * len(extra), dtype=every.dtype)
        return -((weight / weight.sum()) * every.log_softmax(0)).sum()

    rows, columns = [], []
    for i in range(num):
        wrong = [] if hard is None else [scale * p[i] @ h for h in hard[i]]
        rows.append(one_side(p[i], t, i, lambda at, j: bool(true[at, j]), wrong))
        columns.append(one_side(t[i], p, i, lambda at, j: bool(true[j, at]), []))
    return (torch.stack(rows).mean() + torch.stack(columns).mean()) / 2


@pytest.mark.parametrize("duplicates", ["negative", "mask", "positive"])
@pytest.mark.parametrize("with_hard", [False, True])
def test_contrastive_loss_equals_the_plain_one(duplicates: str, with_hard: bool) -> None:
    p, t, hard = unit(6, 5), unit(6, 5, seed=1), unit(6, 2, 5, seed=2) if with_hard else None
    true = torch.eye(6, dtype=torch.bool)
    for i, j in ((0, 2), (2, 0), (1, 5), (4, 3)):  # caption 5 is true of picture 1, not the other way round
        true[i, j] = True
    scale = torch.tensor(9.0, dtype=torch.float64)
    got = contrastive_loss(p, t, scale, true=true, duplicates=duplicates, hard=hard)
    wanted = plain_contrast(p, t, scale, true, duplicates, hard)
    torch.testing.assert_close(got.double(), wanted, atol=1e-6, rtol=0)


def test_contrastive_loss_is_cross_entropy_when_all_differ() -> None:
    p, t, scale = unit(6, 5).float(), unit(6, 5, seed=1).float(), torch.tensor(9.0)
    logits, target = scale * p @ t.T, torch.arange(6)
    wanted = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    for true in (None, torch.eye(6, dtype=torch.bool)):
        torch.testing.assert_close(contrastive_loss(p, t, scale, true=true), wanted)


APPLES = Known(  # a flat red apple, a glossy green one, a flat pear, something unknown
    captions=torch.tensor([10, 11, 12, 13]),
    concepts=torch.tensor([1, 1, 2, -1]),
    aspects=torch.tensor([[0, 5], [1, 6], [0, 5], [-1, -1]]),
    said=torch.tensor([[-1, -1], [1, -1], [0, 5], [-1, -1]]),  # "an apple", "a glossy apple", "a flat pear on red"
)


def test_a_caption_is_true_of_what_has_all_that_it_names() -> None:
    wanted = torch.eye(4, dtype=torch.bool)
    wanted[1, 0] = True  # "an apple" of the glossy one too, but "a glossy apple" not of the flat one
    assert torch.equal(describes(APPLES, APPLES), wanted)
    again = dataclasses.replace(APPLES, captions=torch.tensor([10, 20, 20, 10]), concepts=torch.full((4,), -1))
    assert torch.equal(describes(again, APPLES), again.captions[:, None] == APPLES.captions)  # the words alone


def test_the_text_tower_rests_until_its_time() -> None:
    clip = CLIP(TINY)
    objective = ContrastiveObjective(clip, ContrastiveConfig(text_after=10))
    for seen, moves in ((0, False), (9, False), (10, True)):
        objective.before_step(seen, 100)
        assert all(one.requires_grad == moves for one in clip.text.parameters())
        assert all(one.requires_grad for one in clip.picture.parameters())


def test_relation_loss_ignores_scale_and_shift_of_similarities() -> None:
    student, teacher = unit(9, 4), unit(9, 30, seed=4)
    ours, theirs = ((v.float() @ v.float().T)[torch.triu(torch.ones(9, 9), 1).bool()] for v in (student, teacher))
    wanted = 1 - torch.corrcoef(torch.stack([ours, theirs]))[0, 1]
    torch.testing.assert_close(relation_loss(student, teacher), wanted, atol=1e-6, rtol=0)
    shifted = F.normalize(torch.cat([unit(9, 30, seed=4), torch.full((9, 1), 2.0)], dim=1), dim=-1)  # closer together
    assert relation_loss(shifted, teacher).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_distillation_equals_the_plain_one(kind: str) -> None:
    torch.manual_seed(0)
    term = TextDistillation(
        TextDistillationConfig(embed=4, teacher=30, kind=kind, match_weight=0.5, relation_weight=2.0)
    )
    pooled, teacher = unit(9, 4).float(), unit(9, 30, seed=4).float()
    mapped = pooled @ term.head.weight.T + term.head.bias
    if kind == "cosine":
        match = 1 - ((mapped / mapped.norm(dim=1, keepdim=True)) * teacher).sum(1).mean()
    else:
        match = ((mapped - teacher) ** 2).mean()
    wanted = 0.5 * match + 2.0 * relation_loss(pooled, teacher)
    torch.testing.assert_close(term(pooled, 3 * teacher), wanted)
    assert term(pooled[:2], teacher[:2]).isfinite()


def gradients(objective: ContrastiveObjective) -> dict[str, torch.Tensor]:
    found = {}
    for group, module in objective.groups.items():
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            found[f"{group}.{name}"] = parameter.grad.clone()
            parameter.grad = None
    return found


@pytest.mark.parametrize("chunk", [1, 3, 6])
@pytest.mark.parametrize("full", [False, True])
def test_gradient_caching_gives_the_gradients_of_the_whole_batch(chunk: int, full: bool) -> None:
    torch.manual_seed(0)
    batch = full_batch() if full else make_batch()
    distillation = TextDistillation(TextDistillationConfig(embed=12, teacher=20)) if full else None
    clip = CLIP(TINY).double()  # float32 sums differ from one processor's kernels to the next
    batch = dataclasses.replace(batch, pictures=batch.pictures.double())
    whole = ContrastiveObjective(clip, ContrastiveConfig(), distillation.double() if distillation else None)
    losses = whole(batch, RNG)
    torch.stack(list(losses.total.values())).sum().backward()
    wanted = gradients(whole)
    for objective in (whole, ContrastiveObjective(clip, ContrastiveConfig(chunk=chunk), distillation)):
        told = objective.backward(batch, RNG)
        found = gradients(objective)
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-4, msg=name)
        for name, loss in told.total.items():
            assert not loss.requires_grad
            torch.testing.assert_close(loss, losses.total[name].detach())


def test_equal_captions_are_no_negatives() -> None:
    clip = CLIP(TINY)
    batch = make_batch()
    masked = ContrastiveObjective(clip, ContrastiveConfig())(batch, RNG).total["clip"]
    pushed = ContrastiveObjective(clip, ContrastiveConfig(duplicates="negative"))(batch, RNG).total["clip"]
    assert masked < pushed


def test_training_learns_the_pairs() -> None:
    torch.manual_seed(0)
    clip = CLIP(TINY)
    batch = make_batch(concepts=torch.tensor([0, 1, 2, 3, 1, 5, 6]))
    objective = ContrastiveObjective(clip, ContrastiveConfig(chunk=4))
    optimiser = torch.optim.AdamW(clip.parameters(), lr=1e-2)
    losses = objective(batch, RNG)
    for _ in range(20):
        optimiser.zero_grad()
        losses = objective.backward(batch, RNG)
        optimiser.step()
        objective.after_step()
    assert losses.watch["contrast"] < 0.3
    with torch.no_grad():
        pictures, texts = clip.encode_pictures(batch.pictures), clip.encode_text(batch.ids, batch.mask).pooled
    found = measure_retrieval(pictures, texts, concepts=batch.concepts, ks=(1,))
    assert found.find_text[1] == found.find_picture[1] == 1.0


def test_sentences_alone_teach_the_text_tower() -> None:
    torch.manual_seed(0)
    clip, distillation = CLIP(TINY), TextDistillation(TextDistillationConfig(embed=12, teacher=20))
    ids, mask = captions(12, seed=9)
    batch = SentenceBatch(ids=ids, mask=mask, teacher=torch.randn(12, 20))
    objective = SentenceObjective(clip, distillation)
    parameters = [p for module in objective.groups.values() for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-2)
    losses = objective(batch, RNG)
    first = losses.watch["teacher"]
    for _ in range(20):
        optimiser.zero_grad()
        losses = objective(batch, RNG)
        losses.total["clip"].backward()
        optimiser.step()
    assert losses.watch["teacher"] < first / 2
    assert all(p.grad is None for p in clip.picture.parameters())


def test_scale_is_brought_back_after_a_step() -> None:
    clip = CLIP(TINY)
    clip.log_scale.data.fill_(7.0)
    ContrastiveObjective(clip, ContrastiveConfig()).after_step()
    assert clip.log_scale.exp().item() == pytest.approx(100.0, rel=1e-5)


def test_wrong_use_is_told() -> None:
    with pytest.raises(BadConfig, match="chunk"):
        ContrastiveConfig(chunk=0)
    with pytest.raises((BadConfig, TypeCheckError), match="duplicates"):
        ContrastiveConfig(duplicates="drop")
    with pytest.raises(BadConfig, match="weights"):
        TextDistillationConfig(embed=1, teacher=1, match_weight=-1)
    with pytest.raises((BadConfig, TypeCheckError), match="kind"):
        TextDistillationConfig(embed=1, teacher=1, kind="kl")
    objective = ContrastiveObjective(
        CLIP(TINY), ContrastiveConfig(), TextDistillation(TextDistillationConfig(embed=12, teacher=20))
    )
    with pytest.raises(BadData, match="teacher"):
        objective(make_batch(), RNG)
    only_sentences = dataclasses.replace(full_batch(), teacher=None)
    assert "teacher" in objective(only_sentences, RNG).total
