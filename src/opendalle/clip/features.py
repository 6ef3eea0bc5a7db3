"""CLIP's own feature maps: what a codec may compare pictures by, besides pixels."""

from collections.abc import Sequence

from torch import Tensor

from opendalle.base.axes import Pictures
from opendalle.base.errors import require
from opendalle.clip.model import CLIP
from opendalle.nn.residual import ResidualBlock


class StemFeatures:
    """Pictures to the feature maps of the convolutions with which a CLIP's picture tower begins, finest first.

    Args:
        clip: frozen; one with a convolutional stem.

    Raises:
        BadConfig: when it has none.
    """

    def __init__(self, clip: CLIP) -> None:
        require(len(clip.config.stem) > 0, "a CLIP without a convolutional stem", "one with a stem, for feature maps")
        self.layers = list(clip.picture.patches.children())

    def __call__(self, pictures: Pictures) -> Sequence[Tensor]:
        """Return the maps before each halving, and the last one, each (b, d, h, w) of its own.

        Args:
            pictures: values in [-1, 1], with the CLIP's channels, sides a multiple of its patch.
        """
        maps: list[Tensor] = []
        x = pictures
        for layer in self.layers[:-1]:
            if isinstance(layer, ResidualBlock):
                maps.append(x)
            x = layer(x)
        return [*maps, x]
