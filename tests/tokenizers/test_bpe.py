"""Byte-pair encoding against a slow plain version, against another library, and across round trips."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opendalle.base.errors import BadConfig, BadModel, BadRequest
from opendalle.tokenizers import BytePairTokenizer, normalise
from opendalle.tokenizers.bpe import FIRST_BYTE, FIRST_MERGE, _may_merge
from opendalle.tokenizers.text import is_han, split

CAPTIONS = [
    "a red apple to the left of a blue chair",
    "Two red apples on a white background",
    "three blue chairs, flat style",
    "a rocket over a castle, 3D render",
    "the cat's hat is redder than the hatter's",
    "一个红苹果在蓝椅子的左边",
    "三个青苹果, 扁平风格",
    "苹果",
    "五颜六色的椅子、火箭、城堡、帽子和猫咪在桌子上",
    "七把红椅子的右边有八只白猫和九顶帽子",
    "白色背景上的两个红苹果",
    "城堡上方的火箭, 立体风格",
    "красное яблоко слева от синего стула",
    "赤いりんごと青い椅子",
    "تفاحة حمراء على خلفية بيضاء",
    "family 👨\u200d👩\u200d👧 at home ❤️",
] * 3


GOOD = BytePairTokenizer([(3, 4)]).to_json()


@cache
def trained_once() -> BytePairTokenizer:
    return BytePairTokenizer.train(CAPTIONS, 600)


@pytest.fixture
def tokenizer() -> BytePairTokenizer:
    return trained_once()


def plain_merges(texts: list[str], num_merges: int, min_count: int, min_cohesion: float) -> list[tuple[int, int]]:
    """The textbook algorithm: count every pair anew for each merge."""
    pieces = Counter(piece for text in texts for piece in split(normalise(text)))
    words = {piece: [FIRST_BYTE + b for b in piece.encode()] for piece in pieces}
    vocabulary = {FIRST_BYTE + b: bytes([b]) for b in range(256)}
    words_of_two = set()
    everything = Counter(c for piece, count in pieces.items() for c in piece * count)
    for pair in {piece[i : i + 2] for piece in pieces for i in range(len(piece) - 1)}:
        together = sum(
            count * sum(piece[i : i + 2] == pair for i in range(len(piece))) for piece, count in pieces.items()
        )
        cohesion = together / everything[pair[0]] * together / everything[pair[1]]
        if all("\u4e00" <= c <= "\u9fff" for c in pair) and cohesion >= min_cohesion:
            words_of_two.add(pair)
    merges: list[tuple[int, int]] = []
    while len(merges) < num_merges:
        counts: Counter[tuple[int, int]] = Counter()
        for piece, tokens in words.items():
            for i in range(len(tokens) - 1):
                counts[tokens[i], tokens[i + 1]] += pieces[piece]
        allowed = [p for p in counts if _may_merge(vocabulary[p[0]] + vocabulary[p[1]], frozenset(words_of_two))]
        allowed = [p for p in allowed if counts[p] >= min_count]
        if not allowed:
            break
        best = min(allowed, key=lambda p: (-counts[p], p))
        new = FIRST_MERGE + len(merges)
        vocabulary[new] = vocabulary[best[0]] + vocabulary[best[1]]
        merges.append(best)
        for piece, tokens in words.items():
            i, out = 0, []
            while i < len(tokens):
                if tuple(tokens[i : i + 2]) == best:
                    out.append(new)
                    i += 2
                else:
                    out.append(tokens[i])
                    i += 1
            words[piece] = out
    return merges


@pytest.mark.parametrize(("min_count", "min_cohesion"), [(2, 0.01), (4, 0.3), (2, 0.0)])
def test_training_equals_the_slow_plain_version(min_count: int, min_cohesion: float) -> None:
    texts = [*CAPTIONS, "aaaa aaaaa aaa", "ababababa bababab", "红红红红红"]
    trained = BytePairTokenizer.train(texts, FIRST_MERGE + 80, min_count=min_count, min_cohesion=min_cohesion)
    assert list(trained.merges) == plain_merges(texts, 80, min_count, min_cohesion)


def test_training_does_not_depend_on_the_order_of_texts(tokenizer: BytePairTokenizer) -> None:
    assert BytePairTokenizer.train(reversed(CAPTIONS), 600) == tokenizer


def test_encoding_equals_another_library(tokenizer: BytePairTokenizer) -> None:
    from tokenizers.models import BPE

    names = [f"<{i}>" for i in range(FIRST_BYTE)] + [chr(0x1000 + i) for i in range(tokenizer.vocab_size - FIRST_BYTE)]
    for left, right in tokenizer.merges:  # that library wants a merge's name to be the join of its parts' names
        names[FIRST_MERGE + tokenizer.merges.index((left, right))] = names[left] + names[right]
    assert len(set(names)) == len(names)
    theirs = BPE(
        vocab={name: i for i, name in enumerate(names)},
        merges=[(names[left], names[right]) for left, right in tokenizer.merges],
    )
    for text in [*CAPTIONS, "unseen words: hatstand, appliance 紫色的苹果", "aaaaaaaa", "🦄 0123"]:
        expected: list[int] = []
        for piece in split(normalise(text)):
            expected += [token.id for token in theirs.tokenize("".join(names[FIRST_BYTE + b] for b in piece.encode()))]
        assert tokenizer.encode(text) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_round_trip_gives_the_normalised_text(text: str) -> None:
    rng = np.random.default_rng(len(text))
    tokenizer = trained_once()
    assert tokenizer.decode(tokenizer.encode(text)) == normalise(text)
    assert tokenizer.decode(tokenizer.encode(text, dropout=0.5, rng=rng)) == normalise(text)


def test_save_and_load_give_an_equal_tokenizer(tokenizer: BytePairTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "one.json")
    again = BytePairTokenizer.load(tmp_path / "one.json")
    assert again == tokenizer
    assert hash(again) == hash(tokenizer)
    again.save(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        "no json",
        "[]",
        '{"format": "another"}',
        json.dumps(GOOD | {"specials": ["<pad>"]}),
        json.dumps({name: GOOD[name] for name in ("format", "specials")}),
        json.dumps(GOOD | {"merges": [[3]]}),
        json.dumps(GOOD | {"merges": [[3, "4"]]}),
        json.dumps(GOOD | {"merges": [[3, 900]]}),
        json.dumps(GOOD | {"merges": [[3, 4], [3, 4]]}),
    ],
)
def test_a_damaged_file_is_one_clear_error(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(damage)
    with pytest.raises(BadModel):
        BytePairTokenizer.load(path)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="tokenizer file"):
        BytePairTokenizer.load(tmp_path / "none.json")


def test_frequent_words_are_single_tokens_wherever_they_stand(tokenizer: BytePairTokenizer) -> None:
    assert len(tokenizer.encode("red")) == 1
    assert tokenizer.encode("red red")[1:] == tokenizer.encode("red")
    assert tokenizer.encode("RED  Red") == tokenizer.encode("red red")


def test_chinese_tokens_are_words_not_phrases(tokenizer: BytePairTokenizer) -> None:
    tokens = tokenizer.encode("红苹果")
    assert [tokenizer.decode([token]) for token in tokens] == ["红", "苹果"]
    assert max(sum(map(is_han, tokenizer.decode([t]))) for t in range(tokenizer.vocab_size)) == 2


def test_chinese_characters_that_only_happen_to_meet_share_no_token() -> None:
    things, colours = "狗猫鸟鱼马", "红黄绿蓝黑"
    texts = [f"一只{colour}{thing}" for colour in colours for thing in things] * 2
    free, strict = (BytePairTokenizer.train(texts, 400, min_cohesion=least) for least in (0.0, 0.2))
    assert [free.decode([token]) for token in free.encode("一只红狗")] == ["一只", "红狗"]
    assert [strict.decode([token]) for token in strict.encode("一只红狗")] == ["一只", "红", "狗"]


def test_every_token_is_part_of_one_character_or_whole_ones(tokenizer: BytePairTokenizer) -> None:
    for token in range(FIRST_MERGE, tokenizer.vocab_size):
        shown = tokenizer.decode([token])
        assert "\ufffd" not in shown or len(tokenizer._bytes[token]) <= 3


def test_dropout_is_between_words_and_bytes_and_repeats_with_its_seed(tokenizer: BytePairTokenizer) -> None:
    text = CAPTIONS[0]
    encodings = [tokenizer.encode(text, 0.1, np.random.default_rng(seed)) for seed in range(20)]
    assert encodings[3] == tokenizer.encode(text, 0.1, np.random.default_rng(3))
    assert len({tuple(one) for one in encodings}) > 5
    assert all(tokenizer.decode(one) == text for one in encodings)
    as_bytes = tokenizer.encode(text, 1.0, np.random.default_rng(0))
    assert as_bytes == [FIRST_BYTE + b for b in (" " + text).encode()]
    assert tokenizer.encode(text, 1e-12, np.random.default_rng(0)) == tokenizer.encode(text)


def test_pack_frames_truncates_and_pads(tokenizer: BytePairTokenizer) -> None:
    ids, mask = tokenizer.pack(["red", "", CAPTIONS[0] * 9], 8)
    assert ids.dtype == np.int64
    assert mask.dtype == np.bool_
    assert ids.shape == mask.shape == (3, 8)
    assert ids[0].tolist() == [1, *tokenizer.encode("red"), 2, 0, 0, 0, 0, 0]
    assert mask[0].sum() == 3
    assert ids[1].tolist() == [1, 2, 0, 0, 0, 0, 0, 0]
    assert ids[2].tolist() == [1, *tokenizer.encode(CAPTIONS[0])[:6], 2]
    assert mask[2].all()
    assert tokenizer.pack([], 8).ids.shape == (0, 8)


@pytest.mark.parametrize("unit", ["a", "红苹果", "e\u0301", "\u0301", "\u202e", "a red apple. ", "🦄"])
def test_ten_thousand_characters_are_quick_and_keep_their_end(tokenizer: BytePairTokenizer, unit: str) -> None:
    text = (unit * 10_000)[:10_000]
    ids, mask = tokenizer.pack([text], 32)
    assert ids[0, mask.sum() - 1] == tokenizer.end
    assert ids[0, 1 : mask.sum() - 1].tolist() == tokenizer.encode(text)[:30]


def test_a_text_that_swells_in_normalisation_round_trips(tokenizer: BytePairTokenizer) -> None:
    text = "ﷺ" * 200  # one character that composes to eighteen
    assert tokenizer.decode(tokenizer.encode(text)) == normalise(text)


def test_emoji_and_right_to_left_text_are_just_bytes(tokenizer: BytePairTokenizer) -> None:
    for text in ("🦄🦄", "👨\u200d👩\u200d👧", "שלום עולם", "\u202eتفاحة\u202c"):
        assert tokenizer.decode(tokenizer.encode(text)) == normalise(text)
    assert tokenizer.encode("\u202eتفاحة\u202c") == tokenizer.encode("تفاحة")


def test_wrong_use_is_told(tokenizer: BytePairTokenizer) -> None:
    with pytest.raises(BadRequest, match="surrogate"):
        tokenizer.encode("half \ud83d")
    with pytest.raises(BadConfig, match="rng"):
        tokenizer.encode("red", dropout=0.1)
    with pytest.raises(BadConfig, match="dropout is nan"):
        tokenizer.encode("red", dropout=float("nan"), rng=np.random.default_rng(0))
    with pytest.raises(BadConfig, match="context"):
        tokenizer.pack(["red"], 1)
    with pytest.raises(BadConfig, match="token 99999"):
        tokenizer.decode([99999])
    with pytest.raises(BadConfig, match="vocab_size"):
        BytePairTokenizer.train(CAPTIONS, 100)
    with pytest.raises(BadConfig, match="min_count"):
        BytePairTokenizer.train(CAPTIONS, 600, min_count=0)
    with pytest.raises(BadConfig, match="min_cohesion"):
        BytePairTokenizer.train(CAPTIONS, 600, min_cohesion=-1)
    with pytest.raises(BadConfig, match="listed twice"):
        BytePairTokenizer([(3, 4), (3, 4)])
    with pytest.raises(BadConfig, match="made before it"):
        BytePairTokenizer([(3, FIRST_MERGE)])


def test_too_few_texts_give_a_smaller_vocabulary() -> None:
    assert BytePairTokenizer.train([], 1000).vocab_size == FIRST_MERGE
    assert BytePairTokenizer.train(["ab ab"], 1000).vocab_size == FIRST_MERGE + 2
