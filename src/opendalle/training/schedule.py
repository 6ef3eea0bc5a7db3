r"""The learning rate as a pure function of the pictures seen.

        peak      ________
                /         \
               /           \
    0     ____/             \____ final_rate * peak
          warm-up   hold    decay

Nothing is stored and nothing counts steps, so a resumed run, a larger batch and a second process all find the same
rate at the same picture.
"""

import math

from opendalle.training.config import TrainConfig


def rate_at(pictures: int, config: TrainConfig) -> float:
    """Return the learning rate as a fraction of its peak.

    Args:
        pictures: seen so far, those of the step about to be made included.
        config: its warmup_pictures, decay, decay_pictures, final_rate and pictures.

    Returns:
        0 to 1.
    """
    warmup = min(1.0, pictures / config.warmup_pictures) if config.warmup_pictures else 1.0
    room = config.pictures - config.warmup_pictures
    length = room if config.decay_pictures is None else config.decay_pictures
    if config.decay == "constant" or length == 0:
        return warmup
    way = min(1.0, max(0.0, (pictures - (config.pictures - length)) / length))  # 0 where the decay begins, 1 at the end
    shape = (1 + math.cos(math.pi * way)) / 2 if config.decay == "cosine" else 1 - way
    return warmup * (config.final_rate + (1 - config.final_rate) * shape)
