"""What the recipes of codecs that speak in words share: batches, the course of a run, the folder, a sheet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, write_model
from opendalle.codec.protocol import TokenCodec
from opendalle.data.loading import LoadingConfig, PictureBatches
from opendalle.recipes.card import card_of
from opendalle.recipes.data import open_set, pictures_of
from opendalle.training.config import AdamWConfig, TrainConfig
from opendalle.training.moments import InputMoments

SHOWN = 8  # pictures on a sheet of samples, each above its reconstruction


def batches_for(codec: TokenCodec, data: Path, scenes: float | None, batch_size: int, seed: int) -> PictureBatches:
    """Open a picture set as a codec wants it.

    Args:
        codec: says how large, and with how many channels.
        data: an emoji world, or a folder of pictures with .txt captions.
        scenes: share of a world's draws that are scenes of several things; None: the world's own.
        batch_size: pictures a batch.
        seed: of their order.
    """
    loading = LoadingConfig(batch_size=batch_size, seed=seed, channels=codec.picture_channels)
    return PictureBatches(open_set(data, codec.picture_size, scenes), loading)


def course_of(
    pictures: int,
    batch_size: int,
    seed: int,
    optimiser: AdamWConfig,
    group_optimisers: Mapping[str, AdamWConfig] | None = None,
) -> TrainConfig:
    """Return the course of a codec's run.

    Args:
        pictures: its length.
        batch_size: pictures a step.
        seed: of order and chance.
        optimiser: of the codec.
        group_optimisers: of other groups, as its critic.
    """
    return TrainConfig(
        pictures=pictures,
        batch_size=batch_size,
        seed=seed,
        optimiser=optimiser,
        group_optimisers=group_optimisers or {},
        warmup_pictures=min(4_000, pictures // 10),
        final_rate=0.02,
        ema_halflife=10_000,
    )


def write_codec(
    out: Path, name: str, config: Any, network: nn.Module, data: Path, moments: InputMoments, **settings: Any
) -> ModelFolder:
    """Write a trained codec into a model folder.

    Args:
        out: the folder.
        name: of the recipe; its kind is `codec-` and this.
        config: of the network.
        network: trained.
        data: the picture set.
        moments: of its layers' inputs.
        **settings: of the recipe, for the card.
    """
    part = Part(to_plain(config), network.state_dict(), "even-step", moments=moments.of("codec"))
    card = card_of(name, data, **settings)
    return write_model(out, kind=f"codec-{name}", parts={"codec": part}, card=card)


def sheet_of(codec: TokenCodec, batches: PictureBatches) -> list[Image.Image]:
    """Show the first pictures of a run above what their words give back.

    Args:
        codec: any that speaks in words.
        batches: of the set.
    """
    real = batches.batch(0).pictures[:SHOWN]
    return [*pictures_of(real), *pictures_of(codec.decode_tokens(codec.encode_tokens(real)))]
