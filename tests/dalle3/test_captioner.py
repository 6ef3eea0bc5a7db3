"""The captioner: what it sees, how captions are found, and that a cache and company change nothing."""

import itertools
from dataclasses import replace

import pytest
import torch

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.clip.model import CLIP, CLIPConfig
from opendalle.dalle3.caption_network import (
    CAPTIONER_PRESETS,
    KINDS,
    LANGUAGES,
    CaptionNetwork,
    CaptionNetworkConfig,
    manner_of,
)
from opendalle.dalle3.captioner import Captioner, CaptionerConfig, DecodingConfig, NextCaptionToken, log_likelihood
from opendalle.dalle3.sight import see
from opendalle.samplers import BeamOptions, TokenOptions
from opendalle.tokenizers.bpe import BytePairTokenizer

TEXTS = ["a red apple on a blue ground", "an apple", "a heart beside a star", "一个红苹果"] * 4
TINY = CaptionNetworkConfig(
    vocabulary=300,
    context=9,
    sight_tokens=4,
    sight_width=16,
    width=16,
    text_depth=2,
    joint_depth=2,
    heads=2,
    embed=8,
)


def loosened(config: CaptionNetworkConfig, seed: int = 0) -> CaptionNetwork:
    """Make a network whose weights all matter: a fresh one says little of what it sees."""
    torch.manual_seed(seed)
    network = CaptionNetwork(config).eval().requires_grad_(False)
    for weight in network.parameters():
        weight.add_(0.3 * torch.randn_like(weight))
    return network


@pytest.fixture(scope="module")
def clip() -> CLIP:
    torch.manual_seed(1)
    sizes = {"text_width": 16, "text_depth": 1, "text_heads": 2, "picture_width": 16, "picture_depth": 1}
    config = CLIPConfig(
        embed=24, vocab=300, context=12, size=16, patch=8, channels=4, picture_heads=2, pool="mean", **sizes
    )
    return CLIP(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer() -> BytePairTokenizer:
    return BytePairTokenizer.train(TEXTS, 300)


@pytest.fixture
def captioner(clip: CLIP, tokenizer: BytePairTokenizer) -> Captioner:
    return Captioner(dict.fromkeys(KINDS, loosened(TINY)), clip, tokenizer)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(5, 4, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1


BEAM = DecodingConfig(beam=BeamOptions(beams=3))
NUCLEUS = DecodingConfig(method="nucleus", nucleus=TokenOptions(top_p=0.9, temperature=1.3))


@pytest.mark.parametrize("queries", [0, 3])
def test_cached_tokens_give_what_the_whole_caption_gives(queries: int) -> None:
    network = loosened(replace(TINY, queries=queries))
    sight, ids = torch.randn(3, 4, 16), torch.randint(1, 300, (3, 9))
    manner = torch.tensor([0, 3, 5])
    whole = network(sight, ids, manner)
    cache = network.new_cache(network.look(sight))
    pieces = (ids[:, :1], ids[:, 1:4], ids[:, 4:5], ids[:, 5:])
    said = [network.advance(piece, manner, cache) for piece in pieces]
    for place, logits in zip((0, 3, 4, 8), said, strict=True):
        torch.testing.assert_close(logits, whole[:, place], atol=1e-5, rtol=1e-5)


def test_a_token_sees_the_picture_and_earlier_tokens_alone() -> None:
    network = loosened(TINY)
    sight, ids, manner = torch.randn(1, 4, 16), torch.randint(1, 300, (1, 9)), torch.tensor([1])
    said = network(sight, ids, manner)
    later = ids.clone()
    later[:, 5:] = 7
    torch.testing.assert_close(network(sight, later, manner)[:, :5], said[:, :5])
    for cell in range(4):  # and every cell of the picture
        other = sight.clone()
        other[:, cell] += torch.randn(16)
        assert not torch.allclose(network(other, ids, manner)[:, 0], said[:, 0])
    moved = network(sight.flip(1), ids, manner)
    assert not torch.allclose(moved[:, 0], said[:, 0])  # and where it is


def test_the_manner_is_told_at_the_start_and_a_new_kind_begins_as_the_base_writes() -> None:
    torch.manual_seed(0)
    network = CaptionNetwork(TINY).eval()
    sight, ids = torch.randn(1, 4, 16), torch.randint(1, 300, (1, 9))
    said = {
        (kind, one): network(sight, ids, torch.tensor([manner_of(kind, one)])) for kind in KINDS for one in LANGUAGES
    }
    for kind in KINDS[1:]:
        assert torch.equal(said[kind, "en"], said["original", "en"])
    assert not torch.allclose(said["short", "en"][:, -1], said["short", "zh"][:, -1])
    for wrong in (("long", "en"), ("short", "de")):
        with pytest.raises(BadRequest, match="one of"):
            manner_of(*wrong)


def test_the_caption_is_compared_by_its_end_and_sees_no_picture() -> None:
    network = loosened(TINY)
    ids, manner = torch.randint(3, 300, (2, 9)), torch.tensor([0, 0])
    mask = torch.arange(9) < torch.tensor([5, 9])[:, None]
    vectors = network.text_vector(network.read(ids, manner), mask)
    short = network.text_vector(network.read(ids[:1, :5], manner[:1]), mask[:1, :5])
    torch.testing.assert_close(vectors[:1], short)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    seen = network.look(torch.randn(2, 4, 16))
    torch.testing.assert_close(network.picture_vector(seen).norm(dim=1), torch.ones(2))


def test_all_captions_together_are_certain() -> None:
    """Likelihoods of every caption of at most three tokens, and of every three tokens that have not ended, add to 1."""
    network = loosened(replace(TINY, vocabulary=6))
    start, end, words = 1, 2, (3, 4, 5)
    ended = [(start, *one, end) for n in range(3) for one in itertools.product(words, repeat=n)]
    rows = ended + [(start, *one) for one in itertools.product(words, repeat=3)]
    ids = torch.zeros(len(rows), 4, dtype=torch.long)
    for row, one in enumerate(rows):
        ids[row, : len(one)] = torch.tensor(one)
    seen = network.look(torch.randn(1, 4, 16)).expand(len(rows), -1, -1)
    said = log_likelihood(network, seen, ids, torch.tensor([len(one) for one in rows]), manner_of("short", "zh"))
    assert float(said.double().exp().sum()) == pytest.approx(1, abs=1e-5)


def test_beams_find_the_likeliest_caption_with_and_without_a_cache() -> None:
    """Of a tiny vocabulary: with enough beams the best of all captions of three tokens."""
    from opendalle.samplers import beam_search

    network = loosened(replace(TINY, vocabulary=6), seed=3)
    seen, start, end, words = network.look(torch.randn(2, 4, 16)), 1, 2, (3, 4, 5)
    rows = [(start, *one, end) for n in range(3) for one in itertools.product(words, repeat=n)]
    rows += [(start, *one) for one in itertools.product(words, repeat=3)]
    length = torch.tensor([len(one) for one in rows])
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(one) for one in rows], batch_first=True)
    following = NextCaptionToken(network, seen.repeat_interleave(27, dim=0), 0)
    for cache in (None, following.new_cache()):
        *_, found = beam_search(
            following, torch.full((2, 1), start), 3, end=end, options=BeamOptions(beams=27), cache=cache
        )
        for row in range(2):
            said = log_likelihood(network, seen[row : row + 1].expand(len(rows), -1, -1), ids, length, 0)
            best = int((said / (length - 1)).argmax())
            assert found.tokens[row, : length[best]].tolist() == list(rows[best])
            assert float(found.log_likelihood[row]) == pytest.approx(float(said[best]), abs=1e-4)


@pytest.mark.parametrize("decoding", [BEAM, NUCLEUS])
def test_a_picture_alone_is_captioned_as_in_company(
    captioner: Captioner, pictures: torch.Tensor, decoding: DecodingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = [11, 12, 13, 14, 15]
    together = captioner.caption_many(pictures, kind="short", decoding=decoding, seeds=seeds)
    alone = [
        captioner.caption_many(pictures[row : row + 1], kind="short", decoding=decoding, seeds=[seeds[row]])[0]
        for row in range(5)
    ]
    monkeypatch.setattr("opendalle.dalle3.captioner.AT_ONCE", 2)
    in_pieces = captioner.caption_many(pictures, kind="short", decoding=decoding, seeds=seeds)
    for other in (alone, in_pieces):
        assert [one.tokens for one in together] == [one.tokens for one in other]
        assert [one.text for one in together] == [one.text for one in other]
        for one, two in zip(together, other, strict=True):
            assert one.log_likelihood == pytest.approx(two.log_likelihood, abs=1e-4)
    assert len({one.tokens for one in together}) > 1  # they are different pictures


@pytest.mark.parametrize("decoding", [BEAM, NUCLEUS])
def test_the_likelihood_of_a_caption_is_that_of_its_tokens(
    captioner: Captioner, pictures: torch.Tensor, decoding: DecodingConfig
) -> None:
    network, manner = captioner.networks["short"], manner_of("short", "zh")
    for row, found in enumerate(captioner.caption_many(pictures, kind="short", language="zh", decoding=decoding)):
        said = torch.tensor([[1, *found.tokens] + [2] * found.finished])
        logits = network(see(captioner.clip, pictures[row : row + 1], "patches"), said, torch.tensor([manner]))
        chances = logits.double().log_softmax(dim=-1)[0, :-1]
        wanted = float(chances.gather(1, said[0, 1:, None]).sum())
        assert found.log_likelihood == pytest.approx(wanted, abs=1e-4)


def test_given_captions_are_as_likely_as_their_tokens_one_by_one(
    captioner: Captioner, pictures: torch.Tensor, tokenizer: BytePairTokenizer
) -> None:
    texts = ["an apple", "", "a red star", "苹果", "a heart beside a star on a blue ground"]
    said = captioner.log_likelihood(pictures, texts, kind="descriptive", language="en")
    network = captioner.networks["descriptive"]
    for row, text in enumerate(texts):
        ids = [1, *tokenizer.encode(text, limit=7), 2]
        following = NextCaptionToken(
            network,
            network.look(see(captioner.clip, pictures[row : row + 1], "patches")),
            manner_of("descriptive", "en"),
        )
        total = 0.0
        for place in range(1, len(ids)):
            logits = following(torch.tensor([ids[:place]]), None).double().log_softmax(dim=1)
            total += float(logits[0, ids[place]])
        assert float(said[row]) == pytest.approx(total, abs=1e-4)


def test_captions_end_when_they_are_asked_to(captioner: Captioner, pictures: torch.Tensor) -> None:
    for decoding in (BEAM, NUCLEUS):
        for one in captioner.caption_many(pictures, decoding=replace(decoding, longest=3)):
            assert len(one.tokens) <= 3 - one.finished
            assert not {0, 1, 2} & set(one.tokens)
    assert captioner.caption_many(pictures[:0]) == []
    assert captioner.log_likelihood(pictures[:0], []).shape == (0,)


@pytest.mark.parametrize("sight", ["pooled", "patches", "stem"])
def test_it_sees_what_clip_shows(sight: str, tokenizer: BytePairTokenizer) -> None:
    torch.manual_seed(3)
    widths = {"text_width": 16, "text_depth": 1, "text_heads": 2, "picture_width": 32, "picture_depth": 1}
    shape = CLIPConfig(
        embed=24, vocab=300, context=12, size=32, patch=8, channels=4, picture_heads=2, stem=(32, 64), **widths
    )
    clip = CLIP(shape).eval()
    tokens, width = {"pooled": (1, 24), "patches": (17, 32), "stem": (64, 32)}[sight]
    pictures = torch.rand(2, 4, 32, 32) * 2 - 1
    with torch.no_grad():
        seen = see(clip, pictures, sight)
        assert seen.shape == (2, tokens, width)
        if sight == "patches":  # the class token speaks for the picture
            torch.testing.assert_close(
                clip.picture.project(clip.picture.norm_out(seen[:, 0])), clip.encode_pictures(pictures, unit=False)
            )
    network = loosened(replace(TINY, sight=sight, sight_tokens=tokens, sight_width=width))
    written = Captioner({"short": network}, clip, tokenizer).caption_many(pictures, kind="short", decoding=BEAM)
    assert len(written) == 2


def test_presets_have_the_sizes_that_are_told() -> None:
    with torch.device("meta"):
        sizes = {
            name: sum(weight.numel() for weight in CaptionNetwork(config).parameters())
            for name, config in CAPTIONER_PRESETS.items()
        }
    assert sizes == {"emoji": 3_038_593, "small": 70_717_441, "paper-like": 231_885_825}


def test_what_does_not_fit_is_refused(captioner: Captioner, clip: CLIP, tokenizer: BytePairTokenizer) -> None:
    picture = torch.zeros(1, 4, 16, 16)
    only_short = Captioner({"short": loosened(TINY)}, clip, tokenizer)
    with pytest.raises(BadRequest, match="a kind that this captioner writes: short"):
        only_short.caption_many(picture)
    with pytest.raises(BadRequest, match="one a picture"):
        captioner.caption_many(picture, seeds=[1, 2])
    with pytest.raises(BadRequest, match="one a picture"):
        captioner.log_likelihood(picture, ["a", "b"])
    with pytest.raises(BadRequest, match="4 x 16 x 16"):
        captioner.caption_many(torch.zeros(1, 3, 16, 16))
    with pytest.raises(BadRequest, match="pictures seen as"):
        captioner.networks["short"].look(torch.zeros(1, 5, 16))
    with pytest.raises(BadRequest, match="at most 9"):
        captioner.networks["short"].read(torch.ones(1, 10, dtype=torch.long), torch.tensor([0]))
    with pytest.raises(BadConfig, match="kinds"):
        Captioner({}, clip, tokenizer)
    with pytest.raises(BadConfig, match="tokenizer"):
        Captioner({"short": loosened(replace(TINY, vocabulary=10))}, clip, tokenizer)
    with pytest.raises(BadConfig, match="longest"):
        DecodingConfig(longest=0)
    for wrong in ({}, {"long": "captioner"}):
        with pytest.raises(BadConfig, match="parts"):
            CaptionerConfig(parts=wrong)
    for wrong in ({"context": 1}, {"queries": -1}, {"width": 15}, {"embed": 0}):
        with pytest.raises(BadConfig):
            replace(TINY, **wrong)
