"""The cascade's upsamplers, from 64 to 256 and from 256 to 1024 px, trained on crops of the artwork at full size."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from PIL import Image

from opendalle.base.axes import Pictures
from opendalle.base.errors import require
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.data.loading import LoadingConfig
from opendalle.diffusion.grids import strided
from opendalle.diffusion.schedules import Schedule, schedule_from_name
from opendalle.pretrained.kinds import find_model, load_folder
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.data import open_set, pictures_of, stamps_of
from opendalle.recipes.scales import ScaleBatches, open_crops
from opendalle.recipes.stage import Stage, Work
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.sample import last_state, sample
from opendalle.training.config import AdamWConfig, TrainConfig
from opendalle.training.moments import InputMoments
from opendalle.upsampling.degradation import DegradationConfig, light
from opendalle.upsampling.network import UPSAMPLER_PRESETS, Upsampler
from opendalle.upsampling.objective import UpsamplerLossConfig, UpsamplerObjective

SHOWN, SHOWN_STEPS = 8, 8  # pictures on a sheet of samples, each above ours, and the steps it takes


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One stage of the cascade, and what it learns from."""

    preset: str  # a key of UPSAMPLER_PRESETS
    crop: int  # side of what it sees at once, in large pixels: a quarter of its pictures, as in the paper
    crops: int  # cut from each picture, if nobody says otherwise
    reads_crops: bool  # whether the set yields squares of this size already, since whole pictures would cost too much
    degradation: DegradationConfig | None  # how its small pictures are spoiled
    blur_share: float  # share of small pictures that are blurred


SCALES: Mapping[int, Scale] = MappingProxyType(
    {
        256: Scale(preset="emoji", crop=64, crops=4, reads_crops=False, degradation=None, blur_share=0.5),
        1024: Scale(
            preset="emoji-1024", crop=256, crops=1, reads_crops=True, degradation=light(share=0.8), blur_share=0.0
        ),
    }
)


def upsampler(
    data: Path,
    out: Path,
    *,
    size: int = 256,
    codec: Path | None = None,
    codec_share: float = 0.5,
    pictures: int = 200_000,
    batch_size: int = 8,
    crops: int | None = None,
    learning_rate: float = 6e-4,
    seed: int = 3,
) -> tuple[Stage, ...]:
    """Train an upsampler.

    Command: python -m opendalle.recipes.upsampler --data world --out upsampler-emoji --codec codec-emoji
        python -m opendalle.recipes.upsampler --data world --out upscaler-emoji --size 1024 --batch-size 4
    Cost: see the model's card.
    Expected: `opendalle evaluate dalle2` compares it with bicubic enlargement.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions (which the upsampler does not read).
        out: the model folder to write.
        size: side of the large pictures, 256 or 1024; a world shows its vectors at 1024, so 3d drawings are left out.
        codec: small pictures of 64 px go through this codec first, as they will when it is used.
        codec_share: share of them that do.
        pictures: length of the run.
        batch_size: pictures a step.
        crops: cut from each picture; if not given 4, and 1 at 1024 px, where what is read is one crop.
        learning_rate: at its top.
        seed: of weights, order and chance.

    Raises:
        BadConfig: when there is no stage of this size, or a codec or several crops are asked of that to 1024.
    """
    require(size in SCALES, f"size {size}", " or ".join(map(str, SCALES)))
    scale = SCALES[size]
    crops = scale.crops if crops is None else crops
    require(crops == 1 or not scale.reads_crops, f"crops is {crops} at {size} px", "1: what is read is one crop")
    require(0 <= codec_share <= 1, f"codec_share is {codec_share}", "a share from 0 to 1")
    require(codec is None or scale.degradation is None, f"a codec at {size} px", "none: it draws pictures of 64 px")

    def build() -> Work:
        torch.manual_seed(seed)
        config = UPSAMPLER_PRESETS[scale.preset]
        network = Upsampler(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        source = open_crops(data, size, scale.crop) if scale.reads_crops else open_set(data, size)
        loading = LoadingConfig(batch_size=batch_size, seed=seed, channels=config.picture_channels)
        spoiler = load_folder(read_model(find_model(codec))) if codec is not None else None
        # The clean picture, not the noise: folded into 4x4 squares, noise has more numbers than the network is wide.
        loss = UpsamplerLossConfig(prediction="x0", crop=scale.crop, crops=crops, blur_share=scale.blur_share)
        schedule = schedule_from_name("cosine")
        objective = UpsamplerObjective(network, schedule, loss)

        moments = InputMoments()

        def finish() -> ModelFolder:
            part = Part(to_plain(config), network.state_dict(), "even-step", moments=moments.of("upsampler"))
            card = card_of("upsampler", data, size=size, pictures=pictures, seed=seed)
            return write_model(out, kind="upsampler", parts={"upsampler": part}, card=card)

        batches = ScaleBatches(source, config.factor, loading, spoiler, codec_share, scale.degradation)

        return Work(
            objective=objective,
            batches=batches,
            draw=lambda: sheet_of(network, next(batches(0)).small[:SHOWN], schedule),
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
            moments=moments,
        )

    stamps = partial(stamps_of, data, size=size, codec=codec, codec_share=codec_share, crops=crops)
    return (Stage(name="upsampler", part="upsampler", out=out, stamps=stamps, build=build),)


def sheet_of(network: Upsampler, small: Pictures, schedule: Schedule) -> list[Image.Image]:
    """Draw what a network makes of small pictures, below what plain enlargement makes of them.

    Args:
        network: the upsampler.
        small: pictures in [-1, 1].
        schedule: of its training.
    """
    enlarged = network.condition(small)
    noise = normal_like_rows([picture_generator(k) for k in range(len(small))], enlarged.shape[1:])
    denoise = GuidedDenoise(network, {"enlarged": enlarged}, schedule=schedule, prediction="x0", clip=(-1.0, 1.0))
    drawn = last_state(sample(denoise, noise, strided(schedule.num_steps, SHOWN_STEPS), schedule=schedule)).x_t
    return [*pictures_of(enlarged), *pictures_of(drawn.clamp(-1, 1))]


if __name__ == "__main__":
    main(upsampler)
