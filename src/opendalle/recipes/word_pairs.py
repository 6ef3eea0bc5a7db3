"""Captions and pictures as tokens, encoded once: what a transformer over both is trained on."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from opendalle.base.axes import Tokens
from opendalle.base.errors import BadModel, require
from opendalle.checkpoint.folder import read_model
from opendalle.codec.protocol import TokenCodec
from opendalle.data.embeddings import EmbeddingStore
from opendalle.data.loading import Batch
from opendalle.data.order import SampleOrder
from opendalle.pretrained.kinds import ROLES, find_model, load_folder, load_tokenizer
from opendalle.recipes.pairs import PairsPlan
from opendalle.tokenizers.bpe import BytePairTokenizer

TORN = "\ufffd"  # stands in a caption that was cut within a character


class WordEncoders:
    """The frozen parts that turn captions and pictures into tokens.

    Args:
        places: role -> model folder: the tokenizer is CLIP's.

    Raises:
        BadModel: when the codec does not speak in words.
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        clip, codec = (read_model(find_model(places[role])) for role in ("clip", "codec"))
        if codec.kind not in ROLES["words"]:
            raise BadModel(
                f"{codec.path}, a {codec.kind}", "a codec that speaks in words: " + ", ".join(ROLES["words"])
            )
        self.tokenizer: BytePairTokenizer = load_tokenizer(clip)
        self.codec: TokenCodec = load_folder(codec)


@dataclass(frozen=True, kw_only=True)
class WordPairs:
    """A batch of captions and pictures as tokens."""

    ids: Tokens  # captions; behind their length zeros
    length: Int[Tensor, " b"]  # tokens of each
    tokens: Int[Tensor, "b m"]  # words of the pictures, in raster order


@dataclass(frozen=True, kw_only=True)
class WordPairsPlan(PairsPlan):
    """What the pairs are made of; their captions are cut to what the transformer reads."""

    num_text: int  # tokens a caption

    def stamps(self) -> dict[str, str]:
        """Say what the pairs are made of."""
        return super().stamps() | {"num_text": str(self.num_text)}

    def encode(self, stop: Callable[[], bool]) -> bool:
        """Compute the pairs; arguments and what is returned are those of `PairsPlan.encode`."""
        return self.write(lambda: WordEncoders(self.places), stop, self._encoded)

    def open_words(self) -> tuple[WordEncoders, EmbeddingStore]:
        """Load tokenizer and codec, and open the pairs."""
        return WordEncoders(self.places), EmbeddingStore(self.pairs_place, stamps=self.stamps())

    def _encoded(self, batch: Batch, encoders: WordEncoders) -> dict[str, np.ndarray]:
        with torch.no_grad():
            words = encoders.codec.encode_tokens(batch.pictures).flatten(1)
        ids = np.zeros((len(batch.captions), self.num_text), dtype=np.int32)
        length = np.zeros(len(batch.captions), dtype=np.int32)
        for row, caption in enumerate(batch.captions):
            said = encoders.tokenizer.encode(caption, limit=self.num_text)
            ids[row, : len(said)], length[row] = said, len(said)
        kind = np.int16 if encoders.codec.vocabulary <= np.iinfo(np.int16).max + 1 else np.int32
        return {"tokens": words.numpy().astype(kind), "ids": ids, "length": length}


class WordBatches:
    """Pairs in batches, in an order that is a pure function of seed and position.

    Captions are spelled anew each time they are seen: their stored tokens say what they said, and some merges of the
    tokenizer are passed over.

    Args:
        store: made by `WordPairsPlan.encode`.
        tokenizer: of the captions.
        batch_size: rows a batch.
        seed: of order and spelling.
        dropout: chance that a merge is passed over; 0: captions stand as they are stored.
        rows: only the first so many; None: all.

    Raises:
        BadConfig: when the dropout is no share.

    Source: BPE dropout, arXiv:1910.13267; a tenth as in arXiv:2102.12092, appendix B.
    """

    def __init__(
        self,
        store: EmbeddingStore,
        tokenizer: BytePairTokenizer,
        batch_size: int,
        seed: int,
        *,
        dropout: float = 0.0,
        rows: int | None = None,
    ) -> None:
        require(0 <= dropout < 1, f"dropout is {dropout}", "0 to below 1")
        self.tokens, self.ids, self.length = (
            torch.from_numpy(store.array(name))[:rows] for name in ("tokens", "ids", "length")
        )
        self.tokenizer, self.batch_size, self.seed, self.dropout = tokenizer, batch_size, seed, dropout
        self.order = SampleOrder(len(self.tokens), seed)

    def __call__(self, position: int) -> Iterator[WordPairs]:
        """Yield batches without end, beginning with the one at `position`."""
        while True:
            first = position * self.batch_size
            rows = torch.tensor([self.order.place(first + row).index for row in range(self.batch_size)])
            ids, length = self.ids[rows].long(), self.length[rows].long()
            if self.dropout:
                rng = np.random.default_rng([self.seed, position])
                for row in range(len(rows)):
                    said = self._spelled(ids[row, : length[row]].tolist(), rng)
                    ids[row], length[row] = 0, len(said)
                    ids[row, : len(said)] = torch.tensor(said, dtype=torch.long)
            yield WordPairs(ids=ids, length=length, tokens=self.tokens[rows].long())
            position += 1

    def _spelled(self, ids: list[int], rng: np.random.Generator) -> list[int]:
        text = self.tokenizer.decode(ids)
        return ids if TORN in text else self.tokenizer.encode(text, self.dropout, rng, limit=self.ids.shape[1])
