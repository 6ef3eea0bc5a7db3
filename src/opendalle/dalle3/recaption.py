"""Recaptioning: a captioner writes about every picture of a set, in every voice, onto a shelf.

The paper's second step: short and descriptive captions of all training pictures, kept beside the words that came with
them.  The work is cut into pieces that a shelf remembers, so it can be stopped anywhere, goes on when it is asked for
again, and can be shared by many machines.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, section 2.2.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from opendalle.base.errors import BadData, require
from opendalle.base.protocols import WritesCaptions
from opendalle.data.caption_shelf import CaptionLine, Shard, ShelfConfig, ShelfWriter
from opendalle.data.loading import network_pictures
from opendalle.data.sets import NamedSet

SEEDS = 2**62  # what a seed counted from a picture's place is cut to


@dataclass(frozen=True, kw_only=True)
class WritingConfig:
    """How captions are written; none of it but seed and decoding changes what they say."""

    batch: int = 32  # pictures looked at together
    seed: int = 0  # picture i is captioned from seed + i
    decoding: Any = None  # as the captioner takes it; None: its best

    def __post_init__(self) -> None:
        require(self.batch >= 1, f"batches of {self.batch} pictures", "at least 1")
        require(0 <= self.seed < SEEDS, f"seed {self.seed}", f"0 to {SEEDS - 1}")


@dataclass(frozen=True, kw_only=True)
class RecaptionStep:
    """How far the work has come."""

    done: int  # pictures captioned by this call
    total: int  # that it had to do
    unreadable: Sequence[str] = ()  # what was amiss with pictures of this step that could not be read
    latest: str = ""  # a caption of this step


def write_captions(
    captioner: WritesCaptions,
    pictures: UInt8[np.ndarray, "b h w 4"],
    *,
    kind: str,
    language: str,
    places: Sequence[int],
    config: WritingConfig,
) -> list[tuple[str, float]]:
    """Have pictures captioned.

    Args:
        captioner: who writes.
        pictures: RGBA, straight alpha, of the captioner's size.
        kind: of caption.
        language: of caption.
        places: of each picture in its set: its seed follows from it.
        config: how.

    Returns:
        Each caption with its log likelihood.
    """
    values = torch.from_numpy(network_pictures(pictures, captioner.picture_channels))
    seeds = [(config.seed + place) % SEEDS for place in places]
    with torch.inference_mode():
        written = captioner.caption_many(values, kind=kind, language=language, decoding=config.decoding, seeds=seeds)
    return [(one.text, float(one.log_likelihood)) for one in written]


def recaption(
    pictures: NamedSet,
    captioner: WritesCaptions,
    shelf: ShelfWriter,
    *,
    config: WritingConfig,
    shard: Shard | None = None,
) -> Iterator[RecaptionStep]:
    """Write all captions that a shelf still lacks, piece by piece.

    Args:
        pictures: the set, at the captioner's size.
        captioner: who writes.
        shelf: of this set, captioner and config.
        config: how.
        shard: only this process's pieces; None: all.

    Yields:
        RecaptionStep: after every batch; the pieces that are whole by then stay, whatever happens.
    """
    pieces = shelf.missing(shard)
    done, total = 0, sum(len(shelf.rows(piece)) for piece in pieces)
    for piece in pieces:
        rows, lines = shelf.rows(piece), list[CaptionLine]()
        for start in range(rows.start, rows.stop, config.batch):
            some = range(start, min(start + config.batch, rows.stop))
            told = _captioned(pictures, captioner, some, shelf.config, config)
            lines += told
            done += len(some)
            if some.stop == rows.stop:
                shelf.write(piece, lines)
            amiss = tuple(f"{line.name}: {line.error}" for line in told if line.error is not None)
            yield RecaptionStep(done=done, total=total, unreadable=amiss, latest=told[-1].text)


def _captioned(
    pictures: NamedSet, captioner: WritesCaptions, rows: range, voices: ShelfConfig, config: WritingConfig
) -> list[CaptionLine]:
    """Return the lines of a batch: of each picture every voice, or what is wrong with it."""
    seen, amiss = dict[int, UInt8[np.ndarray, "h w 4"]](), dict[int, str]()
    for index in rows:
        try:
            seen[index] = pictures.read(index, np.random.default_rng(index)).picture
        except BadData as error:
            amiss[index] = str(error)
    written: dict[tuple[int, str, str], tuple[str, float]] = {}
    if seen:
        stacked = np.stack(list(seen.values()))
        for kind, language in voices.voices:
            told = write_captions(captioner, stacked, kind=kind, language=language, places=list(seen), config=config)
            written |= {(index, kind, language): one for index, one in zip(seen, told, strict=True)}
    lines = list[CaptionLine]()
    for index in rows:
        name = pictures.name(index)
        if index in amiss:
            lines.append(CaptionLine(name=name, error=amiss[index]))
            continue
        for kind, language in voices.voices:
            text, score = written[index, kind, language]
            lines.append(CaptionLine(name=name, kind=kind, language=language, text=text, score=score))
    return lines
