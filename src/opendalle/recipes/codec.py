"""The KL autoencoder between 64 px RGBA pictures and an 8x8x8 grid."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, write_model
from opendalle.codec.kl import KLAutoencoder, KLAutoencoderConfig
from opendalle.codec.objective import CodecLossConfig, CodecObjective
from opendalle.data.loading import LoadingConfig, PictureBatches
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.data import open_set, pictures_of, stamps_of
from opendalle.recipes.stage import Stage, Work
from opendalle.training.config import AdamWConfig, TrainConfig
from opendalle.training.moments import InputMoments

SHOWN = 8  # pictures on a sheet of samples, each above its reconstruction
MEASURED = 512  # pictures whose grids give the mean and spread that travel with the weights


def codec(
    data: Path,
    out: Path,
    *,
    pictures: int = 400_000,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    decoder_only: bool = False,
    seed: int = 0,
) -> tuple[Stage, ...]:
    """Train the codec.

    Command: python -m opendalle.recipes.codec --data world --out codec-emoji
    Cost: 25 pictures a second on one CPU core at 60 GFLOP/s; shapes are clear after 60,000, still rising at 100,000.
    Expected: `python -m opendalle.recipes.codec` ends with the PSNR of its last batches in the log.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions (which the codec does not read).
        out: the model folder to write.
        pictures: length of the run.
        batch_size: pictures a step.
        learning_rate: at its top.
        decoder_only: leave the encoder as a warm start gave it, so that grids stay what priors and decoders know.
        seed: of weights, order and chance.
    """

    def build() -> Work:
        torch.manual_seed(seed)
        network = KLAutoencoder(KLAutoencoderConfig()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.encoder.requires_grad_(not decoder_only)
        source = open_set(data, network.picture_size)
        loading = LoadingConfig(batch_size=batch_size, seed=seed, channels=network.picture_channels)
        batches = PictureBatches(source, loading)
        objective = CodecObjective(network, CodecLossConfig(kl=0.0 if decoder_only else CodecLossConfig().kl))

        moments = InputMoments()

        def finish() -> ModelFolder:
            if not decoder_only:
                rng = np.random.default_rng(seed)
                first = int(rng.integers(1_000_000))
                some = [batches.batch(first + k).pictures for k in range(-(-MEASURED // batch_size))]
                network.measure_grid(torch.cat(some))
            part = Part(to_plain(network.config), network.state_dict(), "even-step", moments=moments.of("codec"))
            card = card_of("codec", data, pictures=pictures, seed=seed)
            return write_model(out, kind="codec-kl", parts={"codec": part}, card=card)

        def draw() -> list[Image.Image]:
            real = torch.cat([batches.batch(k).pictures for k in range(-(-SHOWN // batch_size))])[:SHOWN]
            drawn = network.draw(network.posterior(real).mean).clamp(-1, 1)
            return [*pictures_of(real), *pictures_of(drawn)]

        return Work(
            objective=objective,
            batches=batches,
            draw=draw,
            config=TrainConfig(
                pictures=pictures,
                batch_size=batch_size,
                seed=seed,
                optimiser=AdamWConfig(learning_rate=learning_rate, weight_decay=1e-4),
                warmup_pictures=min(6_000, pictures // 10),
                final_rate=0.02,
                ema_halflife=20_000,
            ),
            finish=finish,
            moments=moments,
        )

    stamps = partial(stamps_of, data, decoder_only=decoder_only)
    return (Stage(name="codec", part="codec", out=out, stamps=stamps, build=build),)


if __name__ == "__main__":
    main(codec)
