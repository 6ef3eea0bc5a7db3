"""Pairs that several stages of a recipe train on: drawn from a set and encoded once, by frozen networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendalle.data.embeddings import EmbeddingStore
from opendalle.data.loading import PictureBatches
from opendalle.data.sets import PictureSet
from opendalle.recipes.dalle2_folder import Shared
from opendalle.recipes.data import Arrange, Encode, open_set, stamps_of, write_pairs
from opendalle.recipes.places import runs_beside, say

HELD_OUT, HELD_OUT_SHARE = 2_048, 20  # pairs never trained on: so many, or one in twenty of a small store


@dataclass(frozen=True, kw_only=True)
class PairsPlan:
    """What the pairs are made of, and where they and the stages' networks lie."""

    data: Path  # the picture set
    out: Path  # the model folder to write
    places: Mapping[str, Path]  # role -> sibling's folder, CLIP and codec among them
    pairs: int  # draws of the set that are encoded once
    scenes: float | None  # share of them that are scenes; None: the world's own
    styles: str | None  # of a world's drawings, between commas; None: all
    seed: int  # of weights, order and chance

    def place_of(self, name: str) -> Path:
        """Return where the network of a stage lies until the last one joins it.

        Args:
            name: of the stage.
        """
        return self.out.parent / f"{self.out.name}-{name}"

    def stamps(self) -> dict[str, str]:
        """Say what the pairs are made of: the set, how it is drawn from, and by which networks."""
        networks = {role: Path(self.places[role]) for role in ("clip", "codec")}
        drawn = {"pairs": self.pairs, "scenes": self.scenes, "styles": self.styles, "seed": self.seed}
        return stamps_of(self.data, **networks, **drawn)

    def encode(self, stop: Callable[[], bool]) -> bool:
        """Compute the pairs if no earlier stage has.

        Args:
            stop: asked now and then whether to stop.

        Returns:
            Whether they are all there; what has been computed is kept.
        """
        return self.write(lambda: Shared(self.places), stop)

    def write(
        self,
        load: Callable[[], Any],
        stop: Callable[[], bool],
        encode: Encode | None = None,
        *,
        arrange: Arrange = PictureBatches,
        dressed: Callable[[PictureSet], PictureSet] = lambda pictures: pictures,
    ) -> bool:
        """Compute pairs by any networks; what is returned is that of `encode`.

        Args:
            load: loads them, the codec among them.
            stop: asked now and then whether to stop.
            encode: as of `write_pairs`.
            arrange: as of `write_pairs`.
            dressed: what the set becomes before it is read, as one with more captions.
        """
        if self.pairs_place.exists():
            return True
        shared = load()
        source = dressed(open_set(self.data, shared.codec.picture_size, self.scenes, self.styles))
        whole = write_pairs(
            self.pairs_place,
            source,
            shared,
            count=self.pairs,
            seed=self.seed,
            stamps=self.stamps(),
            tell=self._tell,
            stop=stop,
            encode=encode,
            arrange=arrange,
        )
        if not whole:
            say("stopped while pairs were encoded; those that are done are kept")
        return whole

    def open(self) -> tuple[Shared, EmbeddingStore]:
        """Load the siblings, and open the pairs."""
        return Shared(self.places), EmbeddingStore(self.pairs_place, stamps=self.stamps())

    @property
    def pairs_place(self) -> Path:
        """Where the pairs lie."""
        return runs_beside(self.out) / "pairs"

    def _tell(self, done: int) -> None:
        if done % 5_120 == 0:
            say(f"encoded {done:,} of {self.pairs:,}")


def num_held_out(store: EmbeddingStore) -> int:
    """Return how many pairs, the last ones, are never trained on."""
    return min(HELD_OUT, len(store) // HELD_OUT_SHARE)
