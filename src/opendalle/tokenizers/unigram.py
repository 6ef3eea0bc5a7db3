"""T5's tokens: of all ways to write a text in pieces of the vocabulary, the likeliest.  No torch.

Each piece has a log probability, pieces are independent, so the best way to write a piece of text ends with some best
last token after a best beginning: Viterbi.

Source: Kudo, "Subword Regularization", arXiv:1804.10959, section 3.2; the file's form is the tokenizers library's.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opendalle.base.errors import BadModel, require
from opendalle.tokenizers.packing import EndsCaptions
from opendalle.tokenizers.spelling import read_normaliser, read_splitter
from opendalle.tokenizers.text import check_characters

UNKNOWN_PENALTY = 10.0  # an unknown character is this much less likely (in nats) than the least likely piece
MARK = "▁"  # written for a space
_CACHED_PIECES = 1 << 17
_WANTED = "a tokenizer.json with a Unigram model, as T5 has it"


class UnigramTokenizer(EndsCaptions):
    """A vocabulary of pieces with their log probabilities, read from a `tokenizer.json`.

    Specials (end, padding, the sentinels that marked holes in training) are never read out of a text: a caption that
    says "</s>" is a caption about "</s>".

    Args:
        plain: the file's content.

    Raises:
        BadModel: when it is damaged, or has a rule that we do not do.
    """

    def __init__(self, plain: Mapping[str, Any]) -> None:
        model, added = plain.get("model"), plain.get("added_tokens")
        if not isinstance(model, Mapping) or not isinstance(added, list) or model.get("type") != "Unigram":
            raise BadModel("a tokenizer of another form", _WANTED)
        if model.get("byte_fallback"):
            raise BadModel("a Unigram model with byte_fallback", "one without, as T5 has it")
        self._plain = {name: plain.get(name) for name in ("added_tokens", "normalizer", "pre_tokenizer")}
        self._plain |= {"post_processor": plain.get("post_processor"), "model": dict(model)}
        self.pieces, scores = _vocabulary(model)
        self.unknown = _unknown(model, len(self.pieces))
        specials = _specials(added, self.pieces)
        self.end, self.pad = _end(plain.get("post_processor"), specials), _number("<pad>", specials)
        self._specials = frozenset(specials.values()) | {self.unknown}
        self._normalise, self._split = (
            read_normaliser(plain.get("normalizer")),
            read_splitter(plain.get("pre_tokenizer")),
        )
        self._known = {  # piece -> number and score; of pieces that stand there twice the last counts
            piece: (number, scores[number]) for number, piece in enumerate(self.pieces) if number not in self._specials
        }
        self._longest = max(map(len, self._known), default=1)
        self._unknown_score = min(scores) - UNKNOWN_PENALTY
        self._tokens_from_piece: dict[str, tuple[int, ...]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnigramTokenizer) and self._plain == other._plain

    def __hash__(self) -> int:
        return hash(self.pieces)

    def __repr__(self) -> str:
        return f"UnigramTokenizer(vocab_size={self.vocab_size})"

    @property
    def vocab_size(self) -> int:
        """Number of pieces, specials included."""
        return len(self.pieces)

    def encode(self, text: str, *, limit: int | None = None) -> list[int]:
        """Turn a caption into token numbers, without specials.

        Args:
            text: any text; the file's own normalisation is applied.
            limit: tokens wanted at most; a longer text is not read to its end.  None: all.

        Raises:
            BadRequest: when the text holds half a surrogate pair.
        """
        check_characters(text)
        tokens: list[int] = []
        normal = self._normalise(text)
        for piece in self._split(normal) if normal else ():
            if limit is not None and len(tokens) >= limit:
                break
            tokens += self._best(piece)
        return tokens[:limit]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn token numbers back into text as the tokenizer sees it; marks become spaces again.

        Args:
            ids: token numbers; specials are passed over, what was unknown shows as U+FFFD.

        Raises:
            BadConfig: when a number is not in the vocabulary.
        """
        said: list[str] = []
        for token in ids:
            require(0 <= token < self.vocab_size, f"token {token}", f"0 to {self.vocab_size - 1}")
            if token == self.unknown:
                said.append("\ufffd")
            elif token not in self._specials:
                said.append(self.pieces[token])
        return "".join(said).replace(MARK, " ").removeprefix(" ")

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes an equal tokenizer."""
        return dict(self._plain)

    @classmethod
    def from_json(cls, plain: Any) -> "UnigramTokenizer":
        """Build a tokenizer from a tokenizer.json, or from the result of `to_json`.

        Raises:
            BadModel: when it is damaged, or has a rule that we do not do.
        """
        if not isinstance(plain, Mapping):
            raise BadModel("a tokenizer of another form", _WANTED)
        return cls(plain)

    def _best(self, piece: str) -> tuple[int, ...]:
        """Write one piece in the likeliest way.

        From the left, the best score of each place is settled before it is gone on from; of ways that are equally
        likely the one that was found first stays.  Neighbouring unknown characters become one unknown token.
        """
        known = self._tokens_from_piece.get(piece)
        if known is not None:
            return known
        best = [-math.inf] * (len(piece) + 1)  # of the text up to a place
        last = [(0, self.unknown)] * (len(piece) + 1)  # where the token that ends at a place began, and its number
        best[0] = 0.0
        for start in range(len(piece)):
            for end in range(start + 1, min(start + self._longest, len(piece)) + 1):
                found = self._known.get(piece[start:end])
                if found is not None and best[start] + found[1] > best[end]:
                    best[end], last[end] = best[start] + found[1], (start, found[0])
            if piece[start] not in self._known and best[start] + self._unknown_score > best[start + 1]:
                best[start + 1], last[start + 1] = best[start] + self._unknown_score, (start, self.unknown)
        tokens, place = list[int](), len(piece)
        while place > 0:
            place, token = last[place]
            if not (token == self.unknown and tokens and tokens[-1] == self.unknown):
                tokens.append(token)
        if len(self._tokens_from_piece) < _CACHED_PIECES:
            self._tokens_from_piece[piece] = tuple(reversed(tokens))
        return tuple(reversed(tokens))


def _vocabulary(model: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    try:
        pairs = [(str(piece), float(score)) for piece, score in model["vocab"]]
    except (KeyError, TypeError, ValueError):
        raise BadModel("a Unigram model with a damaged vocabulary", "pairs of piece and score") from None
    if not pairs or not all(math.isfinite(score) for _, score in pairs):
        raise BadModel("a Unigram model without pieces, or with a score that is no number", _WANTED)
    return tuple(piece for piece, _ in pairs), tuple(score for _, score in pairs)


def _unknown(model: Mapping[str, Any], count: int) -> int:
    number = model.get("unk_id")
    if not isinstance(number, int) or not 0 <= number < count:
        raise BadModel(f"a Unigram model with unk_id {number!r}", "the number of one of its pieces")
    return number


def _specials(added: Sequence[Any], pieces: Sequence[str]) -> dict[str, int]:
    """Read which pieces are specials; each must stand in the vocabulary under its number."""
    specials: dict[str, int] = {}
    for one in added:
        number, content = (one.get("id"), one.get("content")) if isinstance(one, Mapping) else (None, None)
        if not isinstance(number, int) or not isinstance(content, str) or not one.get("special"):
            raise BadModel(f"an added token {one!r:.80}", "a special with id and content")
        if not 0 <= number < len(pieces) or pieces[number] != content:
            raise BadModel(f"the special {content!r} with number {number}", "one that is in the vocabulary")
        specials[content] = number
    return specials


def _number(name: str, specials: Mapping[str, int]) -> int:
    if name not in specials:
        raise BadModel(f"a tokenizer without {name!r}", "one of its specials")
    return specials[name]


def _end(processor: Any, specials: Mapping[str, int]) -> int:
    """Read which token ends a text; nothing else may be put around it."""
    single = processor.get("single") if isinstance(processor, Mapping) else None
    if not isinstance(single, list) or processor.get("type") != "TemplateProcessing" or len(single) != 2:
        raise BadModel("a tokenizer whose post_processor does more or less than end a text", _WANTED)
    text, end = single
    name = end.get("SpecialToken", {}).get("id") if isinstance(end, Mapping) else None
    if not isinstance(text, Mapping) or "Sequence" not in text or not isinstance(name, str):
        raise BadModel("a tokenizer whose post_processor does more or less than end a text", _WANTED)
    return _number(name, specials)
