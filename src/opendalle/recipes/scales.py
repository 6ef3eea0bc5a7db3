"""The same pictures, large and small: what the cascade's upsamplers learn from, at either size."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from opendalle.base.axes import Pictures
from opendalle.codec.protocol import Codec, TokenCodec
from opendalle.data.crops import CropSet
from opendalle.data.emoji.vectors import VectorSet, VectorSetConfig
from opendalle.data.emoji.world import World
from opendalle.data.folder import FolderSet, FolderSetConfig
from opendalle.data.loading import LoadingConfig, PictureBatches
from opendalle.data.sets import PictureSet
from opendalle.recipes.data import is_world
from opendalle.upsampling.degradation import DegradationConfig, degrade
from opendalle.upsampling.objective import ScalePair

_SPOILING = 2  # keeps the chance of the spoiling apart from that of order and example


def open_crops(data: Path, size: int, crop: int) -> PictureSet:
    """Open large pictures of which squares are seen: a world's vectors, or a folder's pictures.

    Args:
        data: an emoji world that keeps its vectors, or a folder of pictures with .txt captions.
        size: side of the whole pictures, in pixels; those of a folder are fitted to it.
        crop: side of the squares.

    Raises:
        BadData: when it is neither, or a world without vectors.
    """
    if is_world(data):
        return VectorSet(World(data), VectorSetConfig(sizes=(size, size, 3 * size // 4, size // 2), crop=crop))
    return CropSet(FolderSet(data, FolderSetConfig(size=size, crop="random")), crop)


class ScaleBatches:
    """Large pictures with small ones made from them, for the upsampler.

    Args:
        pictures: the set, at the large size.
        factor: large side over small side.
        loading: size and order.
        codec: small pictures go through it for a share of the batch; None: for none.
        codec_share: that share.
        degradation: how the small pictures are spoiled; None: they are shrunk and no more.
    """

    def __init__(
        self,
        pictures: PictureSet,
        factor: int,
        loading: LoadingConfig,
        codec: Codec | TokenCodec | None = None,
        codec_share: float = 0.5,
        degradation: DegradationConfig | None = None,
    ) -> None:
        self.batches, self.factor, self.loading = PictureBatches(pictures, loading), factor, loading
        self.codec, self.codec_share, self.degradation = codec, codec_share, degradation

    def __call__(self, position: int) -> Iterator[ScalePair]:
        """Yield batches without end, beginning with the one at `position`."""
        for batch in self.batches(position):
            small = self._small(batch.pictures, batch.position)
            spoiled = round(self.codec_share * len(small))
            if self.codec is not None and spoiled:  # the order is random already: the first rows will do
                with torch.no_grad():
                    small = torch.cat([rebuilt(self.codec, small[:spoiled]), small[spoiled:]])
            yield ScalePair(large=batch.pictures, small=small)

    def _small(self, large: Pictures, position: int) -> Float[Tensor, "b c h2 w2"]:
        if self.degradation is None:
            return shrink(large, self.factor)
        first, of = position * self.loading.batch_size, self.loading
        rows = range(of.rank, of.batch_size, of.num_ranks)  # a picture is spoiled alike whoever draws it
        return degrade(large, self.degradation, [_spoiler(of.seed, first + row) for row in rows])


def rebuilt(codec: Codec | TokenCodec, pictures: Pictures) -> Pictures:
    """Return what a codec makes of pictures and back, whether it speaks in grids or in words.

    Args:
        codec: any.
        pictures: of its size, in [-1, 1].
    """
    if isinstance(codec, TokenCodec):
        return codec.decode_tokens(codec.encode_tokens(pictures))
    return codec.decode(codec.encode(pictures))


def shrink(pictures: Pictures, factor: int) -> Float[Tensor, "b c h2 w2"]:
    """Shrink pictures as the world's small drawings were made: averaging, then a cubic kernel's sharpness."""
    size = (pictures.shape[2] // factor, pictures.shape[3] // factor)
    return F.interpolate(pictures, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def _spoiler(seed: int, position: int) -> Generator:
    """Return the generator that spoils the sample at a position of a run."""
    words = np.random.SeedSequence([_SPOILING, seed, position]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
