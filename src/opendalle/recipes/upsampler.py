"""The upsampler from 64 to 256 px, trained on crops of the artwork at full size."""

from functools import partial
from pathlib import Path

import torch
from PIL import Image

from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.data.loading import LoadingConfig
from opendalle.diffusion.grids import strided
from opendalle.diffusion.schedules import schedule_from_name
from opendalle.pretrained.kinds import find_model, load_folder
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.data import ScaleBatches, open_set, pictures_of, stamps_of
from opendalle.recipes.stage import Stage, Work
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.sample import last_state, sample
from opendalle.training.config import AdamWConfig, TrainConfig
from opendalle.upsampling.network import UPSAMPLER_PRESETS, Upsampler
from opendalle.upsampling.objective import UpsamplerLossConfig, UpsamplerObjective

SHOWN, SHOWN_STEPS = 8, 8  # pictures on a sheet of samples, each above ours, and the steps it takes
BASE_SIZE = 64  # side of the small pictures, in pixels


def upsampler(
    data: Path,
    out: Path,
    *,
    codec: Path | None = None,
    pictures: int = 200_000,
    batch_size: int = 8,
    crops: int = 4,
    learning_rate: float = 6e-4,
    seed: int = 3,
) -> tuple[Stage, ...]:
    """Train the upsampler.

    Command: python -m opendalle.recipes.upsampler --data world --out upsampler-emoji --codec codec-emoji
    Cost: see the model's card.
    Expected: `opendalle evaluate dalle2` compares it with bicubic enlargement.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions (which the upsampler does not read).
        out: the model folder to write.
        codec: half of the small pictures go through this codec first, as they will when it is used.
        pictures: length of the run.
        batch_size: pictures a step.
        crops: cut from each picture.
        learning_rate: at its top.
        seed: of weights, order and chance.
    """

    def build() -> Work:
        torch.manual_seed(seed)
        config = UPSAMPLER_PRESETS["emoji"]
        network = Upsampler(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        source = open_set(data, BASE_SIZE * config.factor)
        loading = LoadingConfig(batch_size=batch_size, seed=seed, channels=config.picture_channels)
        spoiler = load_folder(read_model(find_model(codec))) if codec is not None else None
        # The clean picture, not the noise: folded into 4x4 squares, noise has more numbers than the network is wide.
        loss, schedule = UpsamplerLossConfig(prediction="x0", crops=crops), schedule_from_name("cosine")
        objective = UpsamplerObjective(network, schedule, loss)

        def finish() -> ModelFolder:
            part = Part(to_plain(config), network.state_dict(), storage="int8-row")
            card = card_of("upsampler", data, pictures=pictures, seed=seed)
            return write_model(out, kind="upsampler", parts={"upsampler": part}, card=card)

        batches = ScaleBatches(source, config.factor, loading, spoiler)

        def draw() -> list[Image.Image]:
            small = next(batches(0)).small[:SHOWN]
            enlarged = network.condition(small)
            noise = normal_like_rows([picture_generator(k) for k in range(len(small))], enlarged.shape[1:])
            denoise = GuidedDenoise(
                network, {"enlarged": enlarged}, schedule=schedule, prediction="x0", clip=(-1.0, 1.0)
            )
            drawn = last_state(sample(denoise, noise, strided(schedule.num_steps, SHOWN_STEPS), schedule=schedule)).x_t
            return [*pictures_of(enlarged), *pictures_of(drawn.clamp(-1, 1))]

        return Work(
            objective=objective,
            batches=batches,
            draw=draw,
            config=TrainConfig(
                pictures=pictures,
                batch_size=batch_size,
                seed=seed,
                optimiser=AdamWConfig(learning_rate=learning_rate, weight_decay=1e-3),
                warmup_pictures=min(1_500, pictures // 10),
                final_rate=0.02,
                ema_halflife=5_000,
            ),
            finish=finish,
        )

    stamps = partial(stamps_of, data, codec=codec, crops=crops)
    return (Stage(name="upsampler", part="upsampler", out=out, stamps=stamps, build=build),)


if __name__ == "__main__":
    main(upsampler)
