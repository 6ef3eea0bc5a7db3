"""DALL·E 1's discrete autoencoder."""

from functools import partial
from pathlib import Path

import torch
from PIL import Image

from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, write_model
from opendalle.codec.dvae import DVAE_PRESETS, DiscreteVAE
from opendalle.codec.dvae_objective import DiscreteVAELossConfig, DiscreteVAEObjective
from opendalle.codec.protocol import TokenCodec
from opendalle.data.loading import LoadingConfig, PictureBatches
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.data import open_set, pictures_of, stamps_of
from opendalle.recipes.places import say
from opendalle.recipes.stage import Stage, Work
from opendalle.training.config import AdamWConfig, TrainConfig

SHOWN = 8  # pictures on a sheet of samples, each above its reconstruction
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
        source = open_set(data, config.picture_size, scenes)
        batches = PictureBatches(
            source, LoadingConfig(batch_size=batch_size, seed=seed, channels=config.picture_channels)
        )

        def finish() -> ModelFolder:
            part = Part(to_plain(config), network.state_dict(), storage="int8-row")
            return write_model(
                out, kind="codec-dvae", parts={"codec": part}, card=card_of("dvae", data, pictures=pictures, seed=seed)
            )

        return Work(
            objective=DiscreteVAEObjective(network, SHORT_RUN, say),
            batches=batches,
            draw=lambda: sheet_of(network, batches),
            config=TrainConfig(
                pictures=pictures,
                batch_size=batch_size,
                seed=seed,
                optimiser=AdamWConfig(learning_rate=learning_rate, weight_decay=1e-4),
                warmup_pictures=min(4_000, pictures // 10),
                final_rate=0.02,
                ema_halflife=10_000,
            ),
            finish=finish,
        )

    stamps = partial(stamps_of, data, scenes=scenes)
    return (Stage(name="dvae", part="codec", out=out, stamps=stamps, build=build),)


def sheet_of(codec: TokenCodec, batches: PictureBatches) -> list[Image.Image]:
    """Show the first pictures of a run above what their words give back.

    Args:
        codec: any that speaks in words.
        batches: of the set.
    """
    real = batches.batch(0).pictures[:SHOWN]
    return [*pictures_of(real), *pictures_of(codec.decode_tokens(codec.encode_tokens(real)))]


if __name__ == "__main__":
    main(dvae)
