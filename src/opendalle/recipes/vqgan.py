"""VQGAN: the other way from a picture to words, which gives more of it back."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from opendalle.checkpoint.configs import from_plain
from opendalle.checkpoint.folder import read_model
from opendalle.clip.features import StemFeatures
from opendalle.codec.kl import KLAutoencoder
from opendalle.codec.likeness import PatchCritic
from opendalle.codec.vqgan import VQGAN, VQGAN_PRESETS, VQGANConfig
from opendalle.codec.vqgan_objective import VQGANLossConfig, VQGANObjective
from opendalle.pretrained.kinds import find_model, load_folder
from opendalle.recipes.command import main
from opendalle.recipes.data import stamps_of
from opendalle.recipes.places import say
from opendalle.recipes.stage import Stage, Work
from opendalle.recipes.token_codecs import batches_for, course_of, sheet_of, write_codec
from opendalle.training.config import AdamWConfig
from opendalle.training.moments import InputMoments

PERCEPTUAL, RENEW = 0.5, 0.1  # weight of a CLIP's features; below this share of an even use words begin anew
CELLS_A_WORD = 32  # looked at when words are spread over the cells of a trained autoencoder


def vqgan(
    data: Path,
    out: Path,
    *,
    clip: Path | None = None,
    like: Path | None = None,
    autoencoder: Path | None = None,
    vocabulary: int = 4_096,
    decoder_only: bool = False,
    adversarial: float = 0.0,
    pictures: int = 400_000,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    scenes: float | None = None,
    seed: int = 9,
) -> tuple[Stage, ...]:
    """Train a VQGAN: pictures to the nearest words of a codebook and back.

    Command: python -m opendalle.recipes.vqgan --data world --out vqgan-emoji --clip clip-emoji
    Cost: see the model's card.
    Expected: `psnr` in the log above the discrete autoencoder's `psnr_hard`.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions (which it does not read).
        out: the model folder to write.
        clip: compare pictures by this CLIP's first feature maps, too.
        like: of the shape of this VQGAN, which a warm start brings.
        autoencoder: begin with this trained codec's encoder and decoder, and words spread over its cells.
        vocabulary: words.
        decoder_only: leave encoder and words as a warm start gave them, so that they mean what a transformer learned.
        adversarial: weight of a critic of patches, which joins half way; 0: there is none.
        pictures: length of the run.
        batch_size: pictures a step.
        learning_rate: at its top.
        scenes: share of a world's draws that are scenes of several things; without, the world's own.
        seed: of weights, order and chance.
    """

    def build() -> Work:
        torch.manual_seed(seed)
        own = load_folder(read_model(find_model(autoencoder))) if autoencoder is not None else None
        config = _shape(like, own, vocabulary)
        network = VQGAN(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batches = batches_for(network, data, scenes, batch_size, seed)
        if decoder_only:
            _freeze_words(network)
        features = StemFeatures(load_folder(read_model(find_model(clip)))) if clip is not None else None
        loss = VQGANLossConfig(
            perceptual=PERCEPTUAL if features else 0.0,
            adversarial=adversarial,
            renew=0.0 if decoder_only else RENEW,
            commitment=1.0,
        )
        critic = PatchCritic(network.picture_channels) if adversarial else None
        optimiser = AdamWConfig(learning_rate=learning_rate, weight_decay=1e-4)
        slower = {"critic": replace(optimiser, learning_rate=learning_rate / 2)} if critic else {}

        def begin() -> None:
            if own is None:
                return
            looked_at = CELLS_A_WORD * vocabulary // (network.picture_size // network.factor) ** 2
            some = [batches.batch(k).pictures for k in range(-(-looked_at // batch_size))]
            network.begin_with(own, torch.cat(some), torch.Generator().manual_seed(seed))

        moments = InputMoments()
        return Work(
            objective=VQGANObjective(network, loss, features=features, critic=critic, warn=say),
            batches=batches,
            draw=lambda: sheet_of(network, batches),
            config=course_of(pictures, batch_size, seed, optimiser, slower),
            finish=lambda: write_codec(out, "vqgan", config, network, data, moments, pictures=pictures, seed=seed),
            moments=moments,
            begin=begin,
        )

    stamps = partial(
        stamps_of,
        data,
        clip=clip,
        autoencoder=autoencoder,
        vocabulary=vocabulary,
        decoder_only=decoder_only,
        adversarial=adversarial,
        scenes=scenes,
    )
    return (Stage(name="vqgan", part="codec", out=out, stamps=stamps, build=build),)


def _shape(like: Path | None, autoencoder: KLAutoencoder | None, vocabulary: int) -> VQGANConfig:
    """Return the shape of a codec trained before; or of one around an autoencoder; or the preset's."""
    if like is not None:
        return from_plain(VQGANConfig, read_model(find_model(like)).part("codec").config)
    if autoencoder is not None:
        width = autoencoder.grid_channels
        return VQGANConfig(small=autoencoder.config, vocabulary=vocabulary, code_width=width)
    return replace(VQGAN_PRESETS["emoji"], vocabulary=vocabulary)


def _freeze_words(network: VQGAN) -> None:
    """Leave encoder and codebook as they are; only the way from words to pictures learns."""
    network.requires_grad_(False)
    network.from_codes.requires_grad_(True)
    network.decoder.requires_grad_(True)


if __name__ == "__main__":
    main(vqgan)
