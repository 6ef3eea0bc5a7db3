"""T5's tokens against an independent library, at a vocabulary that it learned; the rules of its file one by one."""

import base64
import itertools
import json
import random
import struct
from functools import cache
from typing import Any

import pytest

from opendalle.base.errors import BadConfig, BadModel, BadRequest
from opendalle.tokenizers import ByteTokenizer, UnigramTokenizer
from opendalle.tokenizers.charsmap import CharacterMap
from opendalle.tokenizers.spelling import read_normaliser, read_splitter
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIALS = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
STEMS = [
    "apple",
    "rocket",
    "castle",
    "cat",
    "dog",
    "owl",
    "paint",
    "hat",
    "flame",
    "sign",
    "bubble",
    "tree",
    "count",
    "colour",
    "shadow",
    "light",
    "draw",
    "train",
]
ENDS = ["", "s", "ed", "ing", "er", "less"]
CORPUS = [
    f"a {how}{end} {what} {where} the {what}{other}, {things}"
    for how, what in zip(STEMS, STEMS[::-1], strict=True)
    for end, other, where, things in zip(
        ENDS,
        ENDS[::-1],
        ("over", "beside", "to the left of") * 2,
        ["苹果", "猫", "红苹果", "一只猫", "狗", "红狗"],
        strict=True,
    )
]
FOLDS = {
    "Ａ": "A",
    "ａ": "a",
    "ﬁ": "fi",
    "\u00a0": " ",
    "\u3000": " ",
    "e\u0301": "é",
    "①": "1",
    "\u200b": "",
    "…": "...",
}
TEXTS = [
    *("", " ", "a red apple", "  a   red\tapple \n", "APPLES, cats & dogs!", "▁a▁b", "xyzzy ∂∂∂ q∂q", "猫和苹果"),
    *(
        "a ﬁne Ａｐple…",
        "cafe\u0301",
        "a\u00a0red\u3000cat",
        "zero\u200bwidth",
        "a" * 300,
        "\x1ca\x1fb",
        "🚀 over a castle",
    ),
]


def compiled(folds: dict[str, str]) -> bytes:
    """Compile a character map: a double array grown node by node, then the strings."""
    strings, values = b"", {}
    for key, string in folds.items():
        values[key.encode()] = len(strings)
        strings += string.encode() + b"\0"
    units, taken, bases = [0] * 65_536, {0}, set[int]()

    def grow(index: int, prefix: bytes) -> None:
        labels = sorted({key[len(prefix)] for key in values if key.startswith(prefix) and len(key) > len(prefix)})
        ends = prefix in values
        wanted = [*labels, 0] if ends else labels
        base = next(
            one
            for one in itertools.count(1)  # each node has a base of its own, or another's child would pass for its own
            if one not in bases and not any(one ^ label in taken for label in wanted)
        )
        bases.add(base)
        taken.update(base ^ label for label in wanted)
        units[index] |= (index ^ base) << 10 | ends << 8
        if ends:
            units[base] = values[prefix] | 1 << 31
        for label in labels:
            units[base ^ label] = label
            grow(base ^ label, prefix + bytes([label]))

    grow(0, b"")
    size = (max(taken) // 256 + 1) * 256
    return struct.pack(f"<I{size}I", 4 * size, *units[:size]) + strings


@cache
def learned(is_t5: bool = True) -> Tokenizer:
    """A tokenizer as T5 has it, learned from a few hundred captions."""
    tokenizer = Tokenizer(models.Unigram())
    metaspace: dict[str, Any] = {"replacement": "▁", "prepend_scheme": "always"}
    if is_t5:
        tokenizer.normalizer = normalizers.Precompiled(compiled(FOLDS))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**metaspace)]
        )
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Replace("&", "and")]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(**metaspace, split=False)
    tokenizer.decoder = decoders.Metaspace(**metaspace)
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def plain(tokenizer: Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.to_str())


@pytest.mark.parametrize("is_t5", [True, False])
def test_tokens_are_the_librarys(is_t5: bool) -> None:
    reference = learned(is_t5)
    tokenizer = UnigramTokenizer.from_json(plain(reference))
    assert tokenizer.vocab_size == reference.get_vocab_size() > 100
    assert (tokenizer.pad, tokenizer.end, tokenizer.unknown) == (0, 1, 2)
    rng = random.Random(0)
    letters = sorted({*"".join(CORPUS), *"ＡﬁZ∂&…①É \t\u3000"})
    texts = TEXTS + ["".join(rng.choices(letters, k=rng.randint(1, 40))) for _ in range(300)]
    assert len({len(reference.encode(text).ids) for text in texts}) > 10
    for text in texts:
        assert [*tokenizer.encode(text), 1] == reference.encode(text).ids, repr(text)
    padded = Tokenizer.from_str(reference.to_str())
    padded.enable_truncation(12)
    padded.enable_padding(length=12)
    ids, mask = tokenizer.pack(texts, 12)
    wanted = padded.encode_batch(texts)
    assert ids.tolist() == [one.ids for one in wanted]
    assert mask.tolist() == [[bool(real) for real in one.attention_mask] for one in wanted]


def test_it_is_the_likeliest_of_all_ways() -> None:
    """Against every way to cut a word, as slow as that is."""
    tokenizer = UnigramTokenizer.from_json(plain(learned()))
    score = {piece: score for piece, score in plain(learned())["model"]["vocab"] if piece not in SPECIALS}
    for word in ("▁apples", "▁rocket", "▁castling", "▁paint", "▁beside"):
        places = range(1, len(word))
        cuts = (cut for count in range(len(word)) for cut in itertools.combinations(places, count))
        ways = ([word[a:b] for a, b in itertools.pairwise((0, *cut, len(word)))] for cut in cuts)
        best = max(sum(score[piece] for piece in way) for way in ways if all(piece in score for piece in way))
        said = [tokenizer.pieces[token] for token in tokenizer.encode(word.removeprefix("▁"))]
        assert "".join(said) == word
        assert sum(score[piece] for piece in said) == pytest.approx(best)


def test_round_trips() -> None:
    tokenizer = UnigramTokenizer.from_json(plain(learned()))
    again = UnigramTokenizer.from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again == tokenizer
    assert hash(again) == hash(tokenizer)
    assert UnigramTokenizer.from_json(plain(learned(False))) != tokenizer
    for text in CORPUS[::17]:
        assert tokenizer.decode([*tokenizer.encode(text), 1, 0, 0]) == text
    assert tokenizer.decode(tokenizer.encode("a ∂ cat")) == "a \ufffd cat"
    with pytest.raises(BadConfig, match=f"token {tokenizer.vocab_size}"):
        tokenizer.decode([tokenizer.vocab_size])


def test_a_caption_cannot_write_specials() -> None:
    for tokenizer in (UnigramTokenizer.from_json(plain(learned())), ByteTokenizer()):
        assert not {0, 1, 3} & {*tokenizer.encode("a </s> cat <pad> <extra_id_0>")}
        for text in ("half \ud800", "\udfff"):
            with pytest.raises(BadRequest, match="surrogate"):
                tokenizer.encode(text)
        with pytest.raises(BadConfig, match="context is 0"):
            tokenizer.pack(["a"], 0)
        assert tokenizer.pack(["a cat", ""], 1).ids.tolist() == [[1], [1]]
        assert tokenizer.encode("a red apple", limit=2) == tokenizer.encode("a red apple")[:2]


def test_character_maps_are_the_librarys() -> None:
    data = compiled(FOLDS)
    ours, theirs = CharacterMap(base64.b64encode(data).decode()), normalizers.Precompiled(data)
    for text in [*TEXTS, *FOLDS, "".join(FOLDS)]:
        assert ours.apply(text) == theirs.normalize_str(text)
    # Where a folded letter carries an accent the library loses the accent; the table itself says nothing of it.
    assert ours.apply("Ａ\u0301") == "A\u0301"
    assert CharacterMap(base64.b64encode(compiled({"ab": "1", "abc": "2"})).decode()).apply("abababcx") == "112x"


@pytest.mark.parametrize(
    "broken", ["", "AAAA", "not base64!", None, base64.b64encode(b"\x08\0\0\0" + b"\0" * 5).decode()]
)
def test_damaged_character_maps_are_refused(broken: Any) -> None:
    with pytest.raises(BadModel, match="character map"):
        CharacterMap(broken)


def test_a_map_that_leads_astray_is_refused() -> None:
    data = compiled(FOLDS)
    for cut in (data[:-3], data.replace(b"fi\0", b"\xff\xfe\0")):
        with pytest.raises(BadModel, match="character map"):
            CharacterMap(base64.b64encode(cut).decode()).apply("ﬁ…")
    far = struct.pack("<2I", 4, 1 << 20)
    with pytest.raises(BadModel, match="outside"):
        CharacterMap(base64.b64encode(far).decode()).apply("a")


RULES = [
    None,
    normalizers.NFC(),
    normalizers.NFD(),
    normalizers.NFKC(),
    normalizers.NFKD(),
    normalizers.Lowercase(),
    normalizers.Strip(),
    normalizers.Strip(left=False),
    normalizers.Strip(right=False),
    normalizers.Strip(left=False, right=False),
    normalizers.Replace("a", "$1\\"),
    normalizers.Sequence([normalizers.Lowercase(), normalizers.NFD()]),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_rule_means_here_what_it_means_there(rule: Any) -> None:
    tokenizer = Tokenizer(models.Unigram())
    if rule is not None:
        tokenizer.normalizer = rule
    normalise = read_normaliser(plain(tokenizer)["normalizer"])
    for text in [*TEXTS, "ΣΑΣ İ É", "\x85 a \u2028"]:
        assert normalise(text) == (text if rule is None else rule.normalize_str(text))


def test_many_spaces_become_one() -> None:
    rule = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    theirs = Tokenizer(models.Unigram())
    theirs = Tokenizer.from_str(json.dumps({**plain(theirs), "normalizer": rule}))
    for text in TEXTS:
        assert read_normaliser(rule)(text) == theirs.normalizer.normalize_str(text)


SPLITTERS = [
    pre_tokenizers.WhitespaceSplit(),
    *(pre_tokenizers.Metaspace("▁", scheme, split) for scheme in ("always", "never") for split in (True, False)),
    pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("_", "always")]),
]


@pytest.mark.parametrize("rule", SPLITTERS, ids=str)
def test_texts_are_cut_where_the_library_cuts(rule: Any) -> None:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = rule
    split = read_splitter(plain(tokenizer)["pre_tokenizer"])
    for text in [*TEXTS[1:], "a\x85b\u2028c", "▁▁a b▁▁", "_a b"]:
        assert split(text) == [piece for piece, _ in rule.pre_tokenize_str(text)], repr(text)


def test_older_files_say_add_prefix_space() -> None:
    old = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    assert read_splitter(old)("a b") == ["▁a", "▁b"]
    assert read_splitter({**old, "add_prefix_space": False})("a b") == ["a", "▁b"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"normalizer": {"type": "BertNormalizer"}}, "BertNormalizer"),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""}}, "replaces .*a\\+"),
        ({"normalizer": {"type": "Sequence"}}, "without normalizers"),
        ({"normalizer": "NFKC"}, "with its type"),
        ({"pre_tokenizer": None}, "with its type"),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, "ByteLevel"),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}}, "'first'"),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "", "split": 1}}, "replacement ''"),
        ({"post_processor": None}, "post_processor"),
        ({"post_processor": {"type": "TemplateProcessing", "single": [{}, {}]}}, "post_processor"),
        ({"added_tokens": None}, "another form"),
        ({"added_tokens": []}, "without '</s>'"),
        ({"added_tokens": [{"id": 9_999, "content": "<more>", "special": True}]}, "'<more>' with number 9999"),
        ({"added_tokens": [{"id": 0, "content": "<pad>", "special": False}]}, "a special with id"),
        ({"model": {"type": "BPE"}}, "another form"),
        ({"model": {"type": "Unigram", "unk_id": 2, "vocab": [["a"]]}}, "damaged vocabulary"),
        ({"model": {"type": "Unigram", "unk_id": 2, "vocab": []}}, "without pieces"),
        ({"model": {"type": "Unigram", "unk_id": None, "vocab": [["a", 0]]}}, "unk_id None"),
        ({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0]], "byte_fallback": True}}, "byte_fallback"),
    ],
)
def test_what_we_do_not_do_is_refused_by_name(change: dict, says: str) -> None:
    with pytest.raises(BadModel, match=says):
        UnigramTokenizer.from_json({**plain(learned()), **change})


def test_other_json_is_refused() -> None:
    for kind in (UnigramTokenizer, ByteTokenizer):
        for wrong in (None, [], {"format": "other"}):
            with pytest.raises(BadModel):
                kind.from_json(wrong)
    assert ByteTokenizer.from_json(ByteTokenizer().to_json()) == ByteTokenizer()
    assert len({ByteTokenizer(), ByteTokenizer()}) == 1
    with pytest.raises(BadConfig, match="token 384"):
        ByteTokenizer().decode([384])
