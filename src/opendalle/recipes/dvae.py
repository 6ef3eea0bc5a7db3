"""DALL·E 1's discrete autoencoder."""

from functools import partial
from pathlib import Path

import torch

from opendalle.codec.dvae import DVAE_PRESETS, DiscreteVAE
from opendalle.codec.dvae_objective import DiscreteVAELossConfig, DiscreteVAEObjective
from opendalle.recipes.command import main
from opendalle.recipes.data import stamps_of
from opendalle.recipes.places import say
from opendalle.recipes.stage import Stage, Work
from opendalle.recipes.token_codecs import batches_for, course_of, sheet_of, write_codec
from opendalle.training.config import AdamWConfig
from opendalle.training.moments import InputMoments

SHORT_RUN = DiscreteVAELossConfig(kl=2.0, kl_share=0.1, temperature_share=0.6)  # schedules of a run of hours, not weeks


def dvae(
    data: Path,
    out: Path,
    *,
    pictures: int = 400_000,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    scenes: float | None = None,
    seed: int = 8,
) -> tuple[Stage, ...]:
    """Train the discrete autoencoder: pictures to words of a visual vocabulary and back.

    Command: python -m opendalle.recipes.dvae --data world --out dvae-emoji
    Cost: see the model's card.
    Expected: `psnr_hard` in the log, drawn from single words, ends within a decibel of `psnr_soft`.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions (which it does not read).
        out: the model folder to write.
        pictures: length of the run.
        batch_size: pictures a step.
        learning_rate: at its top.
        scenes: share of a world's draws that are scenes of several things; without, the world's own.
        seed: of weights, order and chance.
    """

    def build() -> Work:
        torch.manual_seed(seed)
        config = DVAE_PRESETS["emoji"]
        network = DiscreteVAE(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batches = batches_for(network, data, scenes, batch_size, seed)
        optimiser = AdamWConfig(learning_rate=learning_rate, weight_decay=1e-4)
        moments = InputMoments()
        return Work(
            objective=DiscreteVAEObjective(network, SHORT_RUN, say),
            batches=batches,
            draw=lambda: sheet_of(network, batches),
            config=course_of(pictures, batch_size, seed, optimiser),
            finish=lambda: write_codec(out, "dvae", config, network, data, moments, pictures=pictures, seed=seed),
            moments=moments,
        )

    stamps = partial(stamps_of, data, scenes=scenes)
    return (Stage(name="dvae", part="codec", out=out, stamps=stamps, build=build),)


if __name__ == "__main__":
    main(dvae)
