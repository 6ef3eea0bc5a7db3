"""Batches of a picture set: a function of a position, so that a run can stop anywhere and go on as if it had not."""

import queue
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from opendalle.base.axes import Pictures
from opendalle.base.errors import BadData, require
from opendalle.data.order import SampleOrder
from opendalle.data.sets import Example, PictureSet


@dataclass(frozen=True, kw_only=True)
class LoadingConfig:
    """How examples become batches."""

    batch_size: int  # examples of one micro-batch, of all processes together
    seed: int = 0  # of the order and of every example's chance
    channels: int = 4  # 4: premultiplied RGBA; 3: RGB, laid on white
    rank: int = 0  # which process this is
    num_ranks: int = 1  # processes that share each batch; the samples are the same for any number
    prefetch: int = 0  # batches made ahead by a thread; 0 makes them when asked

    def __post_init__(self) -> None:
        require(self.batch_size > 0, f"batch_size={self.batch_size}", "at least 1")
        require(self.channels in (3, 4), f"channels={self.channels}", "3 or 4")
        require(0 <= self.rank < self.num_ranks, f"rank {self.rank} of {self.num_ranks}", "0 <= rank < num_ranks")
        require(
            self.batch_size % self.num_ranks == 0,
            f"batch_size={self.batch_size} for {self.num_ranks} processes",
            "a multiple of the number of processes",
        )
        require(self.prefetch >= 0, f"prefetch={self.prefetch}", "0 or more")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures with their captions."""

    pictures: Pictures  # float32 in [-1, 1], premultiplied if four channels
    captions: Sequence[str]
    truths: Sequence[Mapping[str, Any] | None]
    position: int  # of this batch in the run, from 0
    others: Sequence[Mapping[str, str]] = ()  # further captions of each, by name
    voices: Sequence[str | None] = ()  # kind of each caption that was written anew; None: the set's own

    @property
    def rewritten(self) -> float:
        """Share of the captions that were written anew, 0 to 1: to be watched beside a loss."""
        return sum(voice is not None for voice in self.voices) / max(1, len(self.voices))


class PictureBatches:
    """Micro-batches without end over a picture set; calling it with a position starts there.

    Args:
        pictures: the set.
        config: size, order, share.

    Raises:
        BadConfig: when the set is empty.
    """

    def __init__(self, pictures: PictureSet, config: LoadingConfig) -> None:
        self.pictures = pictures
        self.config = config
        self._order = SampleOrder(len(pictures), config.seed)

    def __call__(self, position: int = 0) -> Generator[Batch, None, None]:
        """Yield batches without end, beginning with batch `position` of the run."""
        if self.config.prefetch == 0:
            while True:
                yield self.batch(position)
                position += 1
        else:
            yield from ahead(self.batch, position, self.config.prefetch)

    def batch(self, position: int) -> Batch:
        """Make one batch: a pure function of the set, the config and the position.

        Args:
            position: of the batch, from 0 over the whole run.

        Raises:
            BadData: when the pictures of one batch differ in size.
        """
        config = self.config
        first = position * config.batch_size
        examples = [self._example(first + row) for row in range(config.rank, config.batch_size, config.num_ranks)]
        return batch_of(examples, config.channels, position)

    def _example(self, position: int) -> Example:
        return self.pictures.read(self._order.place(position).index, self._order.generator(position))


def batch_of(examples: Sequence[Example], channels: int, position: int) -> Batch:
    """Stack examples.

    Args:
        examples: of one size.
        channels: 4: premultiplied RGBA; 3: RGB, laid on white.
        position: of the batch in the run.

    Raises:
        BadData: when the pictures differ in size.
    """
    sizes = sorted({example.picture.shape[:2] for example in examples})
    if len(sizes) > 1:
        raise BadData(
            "pictures of " + " and ".join(f"{width}x{height}" for height, width in sizes) + " in one batch",
            "one size",
            "Give the set a size to crop to.",
        )
    stacked = np.stack([example.picture for example in examples])
    return Batch(
        pictures=torch.from_numpy(network_pictures(stacked, channels)),
        captions=[example.caption for example in examples],
        truths=[example.truth for example in examples],
        position=position,
        others=[example.others for example in examples],
        voices=[example.voice for example in examples],
    )


def network_pictures(pictures: UInt8[np.ndarray, "b h w 4"], channels: int = 4) -> Float[np.ndarray, "b c h w"]:
    """Turn stored pictures into what networks see: float32 in [-1, 1], channels first.

    Args:
        pictures: RGBA, straight alpha.
        channels: 4: colour premultiplied by alpha; 3: laid on white.
    """
    values = pictures.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)  # (b, 4, h, w) in [0, 1]
    colour, alpha = values[:, :3], values[:, 3:]
    colour *= alpha
    if channels == 3:
        colour += 1 - alpha
        values = colour
    values = values * np.float32(2) - np.float32(1)
    return np.ascontiguousarray(values)


def ahead(make: Callable[[int], Batch], position: int, depth: int) -> Generator[Batch, None, None]:
    """Make batches in a thread; the thread ends with the iterator.

    Args:
        make: makes the batch at a position.
        position: of the first one.
        depth: batches that may wait.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def offer(item: Any) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        here = position
        try:
            while not stop.is_set():
                offer(make(here))
                here += 1
        except Exception as error:  # noqa: BLE001  # handed to the thread that asks for batches
            offer(error)

    thread = threading.Thread(target=work, name="opendalle-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
