"""Byte-level byte-pair encoding: train, encode, decode, drop out, save and load.  No torch.

A vocabulary is three specials, the 256 bytes, and one token for each learned merge of two earlier tokens.  Since
every text is bytes, there is no unknown token in any language.  Three decisions differ from the usual recipe:

- A merge never straddles characters: a token is part of one character or some whole characters.  So each token that
  a reader meets can be printed.
- Chinese has no spaces to stop a merge at a word's end.  So a token holds at most two Chinese characters, the common
  length of a word, and only two that seek each other's company (`_cohesive_pairs`).  红苹果 is then "red" and "apple",
  tokens that the network meets elsewhere too: one for the phrase would tell it nothing about a yellow apple, and one
  for 颗绿 (measure word and colour) would hide the green from it.
- Equal counts are decided by the token numbers, so that training is a pure function of its texts.

Source: Sennrich et al., arXiv:1508.07909, algorithm 1; dropout: Provilkov et al., arXiv:1910.13267, section 3.
"""

import heapq
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from opendalle.base.errors import BadModel, require
from opendalle.tokenizers.text import is_han, normalise, split

SPECIALS = ("<pad>", "<start>", "<end>")
FIRST_BYTE = len(SPECIALS)  # the token of byte k is FIRST_BYTE + k
FIRST_MERGE = FIRST_BYTE + 256  # the token of merge k, in order of learning, is FIRST_MERGE + k

_FORMAT = "opendalle byte-pair encoding 1"  # names the normalisation and the splitting too: both shape the tokens
_CACHED_PIECES = 1 << 17  # words remembered by an encoder; about 20 MB when full

Pair = tuple[int, int]


class Packed(NamedTuple):
    """Captions as a rectangle: what a text tower reads."""

    ids: Int64[np.ndarray, "b n"]  # <start> ... <end> <pad> ...
    mask: Bool[np.ndarray, "b n"]  # True from <start> to <end>


class BytePairTokenizer:
    """A trained vocabulary.  Two tokenizers with the same merges are equal.

    Args:
        merges: pairs of token numbers in the order they were learned; pair k makes token FIRST_MERGE + k.

    Raises:
        BadConfig: when a merge speaks of a token that does not exist yet, or is there twice.
    """

    pad = SPECIALS.index("<pad>")
    start = SPECIALS.index("<start>")
    end = SPECIALS.index("<end>")

    def __init__(self, merges: Iterable[Pair]) -> None:
        self.merges: tuple[Pair, ...] = tuple((int(left), int(right)) for left, right in merges)
        self._bytes: list[bytes] = [b""] * FIRST_BYTE + [bytes([value]) for value in range(256)]
        for token, (left, right) in enumerate(self.merges, start=FIRST_MERGE):
            known = min(left, right) >= FIRST_BYTE and max(left, right) < token
            require(known, f"merge {token - FIRST_MERGE} of tokens {left} and {right}", "two tokens made before it")
            self._bytes.append(self._bytes[left] + self._bytes[right])
        self._merged = {pair: token for token, pair in enumerate(self.merges, start=FIRST_MERGE)}
        require(len(self._merged) == len(self.merges), "a merge that is listed twice", "each merge once")
        self._tokens_from_piece: dict[str, tuple[int, ...]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BytePairTokenizer) and self.merges == other.merges

    def __hash__(self) -> int:
        return hash(self.merges)

    def __repr__(self) -> str:
        return f"BytePairTokenizer(vocab_size={self.vocab_size})"

    @property
    def vocab_size(self) -> int:
        """Number of tokens: specials, bytes and merges."""
        return FIRST_MERGE + len(self.merges)

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, *, min_count: int = 2, min_cohesion: float = 0.02
    ) -> "BytePairTokenizer":
        """Learn a vocabulary: again and again, merge the pair of tokens that stands together most often.

        Args:
            texts: captions as they are; they are normalised here.
            vocab_size: tokens wanted; fewer when no pair is left that occurs `min_count` times.
            min_count: a pair must occur this often to become a token.
            min_cohesion: how closely two Chinese characters must belong together to share a token, 0 (any two) to 1
                (never seen apart): their count as a pair, squared, over the product of their counts.

        Raises:
            BadConfig: when the vocabulary cannot even hold the bytes.
            BadRequest: when a text holds half a surrogate pair.
        """
        require(vocab_size >= FIRST_MERGE, f"vocab_size is {vocab_size}", f"at least {FIRST_MERGE}: specials and bytes")
        require(min_count >= 1, f"min_count is {min_count}", "at least 1")
        require(0 <= min_cohesion <= 1, f"min_cohesion is {min_cohesion}", "0 to 1")
        pieces = Counter(piece for text in texts for piece in split(normalise(text)))
        words = _cohesive_pairs(pieces, min_cohesion)
        return cls(_learn_merges(pieces, vocab_size - FIRST_MERGE, min_count, words))

    def encode(
        self, text: str, dropout: float = 0.0, rng: np.random.Generator | None = None, *, limit: int | None = None
    ) -> list[int]:
        """Turn a caption into token numbers, without specials.

        Args:
            text: any text; it is normalised first.
            dropout: chance that a possible merge is passed over at each step, so that training meets many spellings
                of a word; 0 gives the one deterministic encoding, 1 gives bytes.
            rng: where the chance comes from; needed when dropout > 0.
            limit: tokens wanted at most; a longer text is not read to its end.  None: all.

        Raises:
            BadRequest: when the text holds half a surrogate pair.
            BadConfig: when dropout lies outside 0 to 1, or has no rng.
        """
        require(0.0 <= dropout <= 1.0, f"dropout is {dropout}", "0 to 1")
        require(dropout == 0.0 or rng is not None, "dropout without rng", "a numpy Generator as rng")
        tokens: list[int] = []
        for piece in split(normalise(text)):
            if limit is not None and len(tokens) >= limit:
                break
            if dropout > 0.0 and rng is not None:
                tokens += self._merge_by_chance(piece, dropout, rng)
            else:
                tokens += self._merge(piece)
        return tokens[:limit]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn token numbers back into text: `decode(encode(text)) == normalise(text)`.

        Args:
            ids: token numbers; specials are passed over, bytes that form no character show as U+FFFD.

        Raises:
            BadConfig: when a number is not in the vocabulary.
        """
        joined = bytearray()
        for token in ids:
            require(0 <= token < self.vocab_size, f"token {token}", f"0 to {self.vocab_size - 1}")
            joined += self._bytes[token]
        return joined.decode("utf-8", errors="replace").removeprefix(" ")

    def pack(
        self, texts: Sequence[str], context: int, dropout: float = 0.0, rng: np.random.Generator | None = None
    ) -> Packed:
        """Encode captions into one rectangle: start, tokens, end, padding.

        A caption that is too long loses its tail, never its end token, from which a text tower reads the meaning.

        Args:
            texts: b captions; an empty one is start and end alone.
            context: tokens a row, at least 2.
            dropout: as for `encode`.
            rng: as for `encode`.

        Raises:
            BadRequest: when a text holds half a surrogate pair.
            BadConfig: when the context cannot hold start and end.
        """
        require(context >= 2, f"context is {context}", "at least 2: start and end")
        ids = np.full((len(texts), context), self.pad, dtype=np.int64)
        mask = np.zeros((len(texts), context), dtype=np.bool_)
        for row, text in enumerate(texts):
            tokens = [self.start, *self.encode(text, dropout, rng, limit=context - 2), self.end]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return Packed(ids, mask)

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes an equal tokenizer."""
        return {"format": _FORMAT, "specials": list(SPECIALS), "merges": [list(pair) for pair in self.merges]}

    @classmethod
    def from_json(cls, plain: Any) -> "BytePairTokenizer":
        """Rebuild a tokenizer from the result of `to_json`.

        Raises:
            BadModel: when the data is of another format or damaged.
        """
        if not isinstance(plain, dict) or plain.get("format") != _FORMAT or plain.get("specials") != list(SPECIALS):
            raise BadModel("a tokenizer of another format", f"format {_FORMAT!r} with specials {', '.join(SPECIALS)}")
        try:
            return cls([(left, right) for left, right in plain["merges"]])
        except (KeyError, TypeError, ValueError) as fault:  # BadConfig is a ValueError
            raise BadModel(f"a damaged tokenizer ({fault})", "pairs of token numbers under 'merges'") from None

    def save(self, path: Path | str) -> None:
        """Write the vocabulary as JSON: the same tokenizer gives the same bytes.

        Args:
            path: the file to write; one that exists is replaced.
        """
        Path(path).write_text(json.dumps(self.to_json(), separators=(",", ":")) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "BytePairTokenizer":
        """Read a vocabulary that `save` wrote.

        Raises:
            BadModel: when the file is missing, no JSON, or of another format.
        """
        try:
            plain = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as fault:
            raise BadModel(
                f"tokenizer file {path} ({fault})", "a JSON file written by BytePairTokenizer.save"
            ) from None
        return cls.from_json(plain)

    def _merge(self, piece: str) -> tuple[int, ...]:
        """Encode one piece: apply the earliest-learned merge that fits, everywhere, until none fits."""
        known = self._tokens_from_piece.get(piece)
        if known is not None:
            return known
        tokens = _bytes_as_tokens(piece)
        while len(tokens) > 1:
            first = min(self._merged.get(pair, self.vocab_size) for pair in itertools.pairwise(tokens))
            if first == self.vocab_size:
                break
            tokens = _merge_pair(tokens, self.merges[first - FIRST_MERGE], first)
        if len(self._tokens_from_piece) < _CACHED_PIECES:
            self._tokens_from_piece[piece] = tuple(tokens)
        return tuple(tokens)

    def _merge_by_chance(self, piece: str, dropout: float, rng: np.random.Generator) -> list[int]:
        """Encode one piece where each place that could merge is passed over with chance `dropout`, at every step."""
        tokens = _bytes_as_tokens(piece)
        while len(tokens) > 1:
            is_kept = rng.random(len(tokens) - 1) >= dropout
            possible = (
                (self._merged[pair], at)
                for at, pair in enumerate(itertools.pairwise(tokens))
                if is_kept[at] and pair in self._merged
            )
            token, at = min(possible, default=(0, -1))
            if at < 0:
                break
            tokens[at : at + 2] = [token]
        return tokens


def _bytes_as_tokens(piece: str) -> list[int]:
    return [FIRST_BYTE + value for value in piece.encode("utf-8")]


def _merge_pair(tokens: Sequence[int], pair: Pair, token: int) -> list[int]:
    """Replace each occurrence of the pair, from the left."""
    merged: list[int] = []
    at = 0
    while at < len(tokens):
        if at + 1 < len(tokens) and (tokens[at], tokens[at + 1]) == pair:
            merged.append(token)
            at += 2
        else:
            merged.append(tokens[at])
            at += 1
    return merged


def _cohesive_pairs(pieces: Counter[str], min_cohesion: float) -> frozenset[str]:
    """Find the pairs of Chinese characters that may share a token.

    Cohesion is the chance that the second follows the first, times the chance that the first precedes the second:
    high for 苹果 (apple), low for 的狗 ("'s dog"), whose first character precedes everything.
    """
    alone: Counter[str] = Counter()
    together: Counter[str] = Counter()
    for piece, count in pieces.items():
        for character in filter(is_han, piece):
            alone[character] += count
        for first, second in itertools.pairwise(piece):
            if is_han(first) and is_han(second):
                together[first + second] += count
    return frozenset(
        pair for pair, count in together.items() if count * count >= min_cohesion * alone[pair[0]] * alone[pair[1]]
    )


def _may_merge(joined: bytes, words: frozenset[str]) -> bool:
    """Tell whether these bytes may be one token: part of a character, or whole ones, Chinese ones only if a word."""
    try:
        characters = joined.decode("utf-8")
    except UnicodeDecodeError:
        return all(0x80 <= value < 0xC0 for value in joined[1:])  # a second character would bring a leading byte
    return len(characters) == 1 or not any(map(is_han, characters)) or characters in words


def _learn_merges(pieces: Counter[str], num_merges: int, min_count: int, words_of_two: frozenset[str]) -> list[Pair]:
    """Learn merges with counts that follow each merge instead of being taken anew.

    Only the words that hold the merged pair change, so `words_with` leads straight to them.  The heap keeps stale
    entries; one is trusted only if its count is still the pair's count.
    """
    words = [_bytes_as_tokens(piece) for piece in pieces]
    repeats = list(pieces.values())
    counts: Counter[Pair] = Counter()
    words_with: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, tokens in enumerate(words):
        for pair in itertools.pairwise(tokens):
            counts[pair] += repeats[index]
            words_with[pair].add(index)
    bytes_of = [b""] * FIRST_BYTE + [bytes([value]) for value in range(256)]
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < num_merges:
        negative_count, pair = heapq.heappop(heap)
        if -negative_count != counts[pair]:
            continue  # stale: the true count has its own entry
        if -negative_count < min_count:
            break
        joined = bytes_of[pair[0]] + bytes_of[pair[1]]
        if not _may_merge(joined, words_of_two):
            continue
        token = FIRST_MERGE + len(merges)
        merges.append(pair)
        bytes_of.append(joined)
        changed: set[Pair] = set()
        for index in words_with.pop(pair):
            before, after = words[index], _merge_pair(words[index], pair, token)
            for old in itertools.pairwise(before):
                counts[old] -= repeats[index]
                changed.add(old)
            for new in itertools.pairwise(after):
                counts[new] += repeats[index]
                words_with[new].add(index)
                changed.add(new)
            words[index] = after
        for touched in sorted(changed):
            if counts[touched] > 0:
                heapq.heappush(heap, (-counts[touched], touched))
    return merges
