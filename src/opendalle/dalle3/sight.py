"""What a captioner gets to see of a picture: how much of CLIP's view is passed on.

DALL·E 3's captioner sees a picture through "a compressed representation" by CLIP.  The joint embedding is the most
compressed: it knows what is there, and hardly how often and where.  On scenes of the emoji world a ridge classifier
(2,120 pictures to fit, 530 to score, or their share with such a scene) read off clip-emoji's

                          pooled   patches   stem
    how many things         0.89      0.98   0.91
    colour of the left one  0.56      0.96   0.82
    which one is big        0.68      0.96   1.00
    how they are arranged   0.49      0.53   0.49
    the first thing's name  0.12      0.16   0.21

so patches are what captioners of ours see.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, section 2.1.
"""

from typing import Literal

from einops import rearrange

from opendalle.base.axes import Pictures, States
from opendalle.clip.features import StemFeatures
from opendalle.clip.model import CLIP

Sight = Literal["pooled", "patches", "stem"]
SIGHTS = ("pooled", "patches", "stem")


def see(clip: CLIP, pictures: Pictures, sight: Sight) -> States:
    """Return pictures as tokens.

    Args:
        clip: frozen.
        pictures: as `CLIP.encode_pictures` takes them.
        sight: pooled: the joint embedding, one token; patches: the last state of every token of the picture tower;
            stem: the cells of its convolutional stem's last but one map, four for each patch.

    Raises:
        BadRequest: when the pictures have another size or other channels.
        BadConfig: when a CLIP without a convolutional stem is asked for its stem.
    """
    clip.check_pictures(pictures)
    if sight == "pooled":
        return clip.encode_pictures(pictures)[:, None]
    if sight == "patches":
        return clip.picture.states(pictures)
    return rearrange(StemFeatures(clip)(pictures)[-2], "b d h w -> b (h w) d")
