"""DALL·E 1: a transformer over captions and words; with what is missing of CLIP, codec and upsampler trained first."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from opendalle.base.errors import BadModel, require
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.checkpoint.storage import from_storage, to_storage
from opendalle.dalle1.drawing import log_likelihood, text_log_likelihood
from opendalle.dalle1.objective import Dalle1LossConfig, Dalle1Objective
from opendalle.dalle1.parts import Dalle1Config, Dalle1Parts
from opendalle.dalle1.pipeline import Dalle1
from opendalle.dalle1.transformer import DALLE1_PRESETS, Dalle1Transformer, Dalle1TransformerConfig, padded_text
from opendalle.data.embeddings import EmbeddingStore
from opendalle.pictures import composite
from opendalle.pretrained.kinds import find_model
from opendalle.recipes.card import card_of
from opendalle.recipes.clip import clip as clip_recipe
from opendalle.recipes.command import main
from opendalle.recipes.dalle2_folder import PIPELINE, UPSCALER, named_siblings
from opendalle.recipes.data import open_set, some_captions
from opendalle.recipes.dvae import dvae as dvae_recipe
from opendalle.recipes.pairs import num_held_out
from opendalle.recipes.stage import Stage, Work
from opendalle.recipes.upsampler import upsampler as upsampler_recipe
from opendalle.recipes.vqgan import vqgan as vqgan_recipe
from opendalle.recipes.word_pairs import WordBatches, WordEncoders, WordPairsPlan
from opendalle.training.config import AdamWConfig, TrainConfig
from opendalle.training.moments import InputMoments
from opendalle.upsampling.settings import UpsamplerSettings

PRESET, STORAGE = "emoji", "even-step"
SETTINGS = Dalle1Config(guidance=2.0, upsampler=UpsamplerSettings())
CODECS = ("dvae", "vqgan")
SHOWN = 24  # captions of the set on a sheet of samples, seeds 0, 1, 2, ...
MEASURED = 64  # held-out pairs scored at once


def dalle1(
    data: Path,
    out: Path,
    *,
    clip: Path | None = None,
    codec: Path | None = None,
    upsampler: Path | None = None,
    upscaler: Path | None = None,
    like: Path | None = None,
    codec_kind: str = "vqgan",
    pairs: int = 200_000,
    scenes: float | None = None,
    styles: str | None = None,
    clip_pictures: int = 400_000,
    codec_pictures: int = 400_000,
    upsampler_pictures: int = 200_000,
    pictures: int = 1_000_000,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    caption_drop: float = 0.1,
    spelling_drop: float = 0.1,
    seed: int = 10,
) -> tuple[Stage, ...]:
    """Train DALL·E 1: first whatever of CLIP, codec and upsampler is not given, then the transformer.

    CLIP gives the tokenizer, and ranks candidates.

    Command: python -m opendalle.recipes.dalle1 --data world --out dalle1-emoji --clip clip-emoji --codec vqgan-emoji
        --upsampler upsampler-emoji
    Cost: see the model's card.
    Expected: `picture_perplexity` in the log falls from the vocabulary's size; scores on pairs that were held out are
        written into the card, in nats a token.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions.
        out: the model folder to write; models that are trained on the way lie beside it.
        clip: a trained CLIP; without, one is trained.
        codec: a trained codec that speaks in words; without, one is trained.
        upsampler: a trained upsampler; without, one is trained.
        upscaler: a trained upsampler from there to 1024 px; without, there is none.
        like: take them from this DALL·E 1; or all but the codec from this DALL·E 2, whose codec a VQGAN begins with.
        codec_kind: dvae or vqgan, if the codec is trained.
        pairs: draws of the set that are encoded once and trained on many times.
        scenes: share of a world's draws that are scenes of several things; without, the world's own.
        styles: of a world's drawings, as 3d,flat; without, all.
        clip_pictures: length of CLIP's run, if it is trained.
        codec_pictures: length of the codec's run, if it is trained.
        upsampler_pictures: length of the upsampler's run, if it is trained.
        pictures: length of the transformer's run.
        batch_size: pictures a step of it.
        learning_rate: at its top.
        caption_drop: share of captions that are hidden, so that guidance has something to push away from.
        spelling_drop: chance that a merge of a caption's tokens is passed over.
        seed: of weights, order and chance.

    Raises:
        BadConfig: when there are no pairs, or no such kind of codec.
    """
    require(pairs >= 1, f"pairs is {pairs}", "1 or more")
    require(codec_kind in CODECS, f"codec_kind is {codec_kind!r}", " or ".join(CODECS))
    asked = {"clip": clip, "codec": codec, "upsampler": upsampler, "upscaler": upscaler}
    given = siblings_of(like) if like is not None else {}
    given |= {role: place for role, place in asked.items() if place is not None}
    wanted = [role for role in asked if role != "upscaler" or role in given]  # of which none is trained
    places = {role: given.get(role, out.parent / f"{out.name}-{role}") for role in wanted}
    stages: list[Stage] = []
    if "clip" not in given:
        stages += clip_recipe(data, places["clip"], pictures=clip_pictures)
    if "codec" not in given and codec_kind == "dvae":
        stages += dvae_recipe(data, places["codec"], pictures=codec_pictures, scenes=scenes)
    elif "codec" not in given:
        begun = {"autoencoder": given.get("autoencoder"), "clip": places["clip"]}
        stages += vqgan_recipe(data, places["codec"], **begun, pictures=codec_pictures, scenes=scenes)
    if "upsampler" not in given:
        stages += upsampler_recipe(data, places["upsampler"], codec=places["codec"], pictures=upsampler_pictures)
    plan = Plan(
        data=data,
        out=out,
        places=places,
        pairs=pairs,
        scenes=scenes,
        styles=styles,
        seed=seed,
        num_text=DALLE1_PRESETS[PRESET].num_text,
        pictures=pictures,
        batch_size=batch_size,
        learning_rate=learning_rate,
        caption_drop=caption_drop,
        spelling_drop=spelling_drop,
    )
    return (*stages, plan.stage())


def siblings_of(model: Path) -> dict[str, Path]:
    """Return where the networks lie that a generation can share with a DALL·E 1: role -> folder.

    Args:
        model: its folder, or a bundled name.

    Raises:
        BadModel: when it is no generation that has any.
    """
    folder = read_model(find_model(model))
    if folder.kind not in ("dalle1", "dalle2"):
        raise BadModel(f"{folder.path} of kind {folder.kind!r}, to take networks from", "a DALL·E 1 or 2")
    # The codec of a DALL·E 2 has no words, but one that has can begin with it.
    roles = {"words": "codec", "codec": "autoencoder"} | {role: role for role in ("clip", "upsampler", "upscaler")}
    return {roles[theirs]: place for theirs, place in named_siblings(folder, roles).items()}


@dataclass(frozen=True, kw_only=True)
class Plan(WordPairsPlan):
    """The last stage: the transformer over frozen siblings and one store of pairs."""

    pictures: int  # length of the run
    batch_size: int  # pictures a step
    learning_rate: float  # at its top
    caption_drop: float  # share of captions that are hidden
    spelling_drop: float  # chance that a merge is passed over

    def stage(self) -> Stage:
        """Return the transformer's stage."""
        return Stage(
            name="transformer",
            part="transformer",
            out=self.out,
            stamps=self.stamps,
            build=self.transformer,
            prepare=self.encode,
        )

    def transformer(self) -> Work:
        """Build the run."""
        encoders, store = self.open_words()
        torch.manual_seed(self.seed)
        network = Dalle1Transformer(fitted(DALLE1_PRESETS[PRESET], encoders))
        source = open_set(self.data, encoders.codec.picture_size, 0.0, self.styles)
        prompts = some_captions(source, SHOWN, self.seed)

        def draw() -> list[Image.Image]:
            parts = Dalle1Parts(tokenizer=encoders.tokenizer, transformer=network, codec=encoders.codec)
            side = encoders.codec.picture_size
            dalle = Dalle1(parts, replace(SETTINGS, upsampler=None))
            samples = dalle.generate_many(prompts, range(len(prompts)), width=side, height=side, batch=SHOWN)
            return [composite(sample.picture) for sample in samples]

        moments = InputMoments()

        def finish() -> ModelFolder:
            lengths = {"pictures": self.pictures, "pairs": self.pairs, "seed": self.seed}
            seen = moments.of("transformer")
            card = card_of("dalle1", self.data, **lengths) | {"scores": scores_of(network, store, seen)}
            return write_dalle1(self.out, network, self.places, card, seen)

        return Work(
            objective=Dalle1Objective(network, Dalle1LossConfig(caption_drop=self.caption_drop, counts_padding=False)),
            batches=WordBatches(
                store,
                encoders.tokenizer,
                self.batch_size,
                self.seed,
                dropout=self.spelling_drop,
                rows=len(store) - num_held_out(store),
            ),
            draw=draw,
            config=TrainConfig(
                pictures=self.pictures,
                batch_size=self.batch_size,
                seed=self.seed,
                optimiser=AdamWConfig(learning_rate=self.learning_rate, beta2=0.96, weight_decay=0.045),  # the paper's
                warmup_pictures=min(20_000, self.pictures // 10),
                final_rate=0.02,
                ema_halflife=15_000,
            ),
            finish=finish,
            moments=moments,
        )


def fitted(config: Dalle1TransformerConfig, encoders: WordEncoders) -> Dalle1TransformerConfig:
    """Fit a preset to the tokenizer's tokens and the codec's words.

    Args:
        config: the preset.
        encoders: both.
    """
    codec = encoders.codec
    side = codec.picture_size // codec.factor
    return replace(
        config,
        text_vocabulary=encoders.tokenizer.vocab_size,
        picture_vocabulary=codec.vocabulary,
        grid_height=side,
        grid_width=side,
    )


@torch.no_grad()
def scores_of(
    network: Dalle1Transformer, store: EmbeddingStore, moments: Mapping[str, torch.Tensor]
) -> dict[str, float]:
    """Score the pairs that were held out, with the weights as they will be stored.

    Args:
        network: trained.
        store: pairs.
        moments: of its layers' inputs.

    Returns:
        Mean nats a caption token and a word, and the word's perplexity; nothing where no pair was held out.
    """
    count = num_held_out(store)
    if not count:
        return {}
    stored = Dalle1Transformer(network.config).eval()
    stored.load_state_dict(from_storage(to_storage(network.state_dict(), STORAGE, moments)))
    ids, length, tokens = (torch.from_numpy(store.array(name))[-count:].long() for name in ("ids", "length", "tokens"))
    text = padded_text(ids, length, network.config.text_vocabulary)
    said, drawn = list[torch.Tensor](), list[torch.Tensor]()
    for some in torch.arange(count).split(MEASURED):
        said.append(text_log_likelihood(stored, text[some]))
        drawn.append(log_likelihood(stored, text[some], tokens[some]))
    of_text, of_picture = (-torch.cat(one).mean().item() for one in (said, drawn))
    return {
        "held_out_pairs": count,
        "text_nats": round(of_text, 4),
        "picture_nats": round(of_picture, 4),
        "picture_perplexity": round(math.exp(of_picture), 2),
    }


def write_dalle1(
    out: Path,
    network: Dalle1Transformer,
    places: Mapping[str, Path],
    card: Mapping[str, Any],
    moments: Mapping[str, torch.Tensor],
) -> ModelFolder:
    """Put a trained transformer into a model folder that names its siblings.

    Args:
        out: the model folder to write.
        network: the transformer.
        places: role -> sibling's folder: clip, codec, and upsampler and upscaler if there are any.
        card: where all comes from.
        moments: of its layers' inputs.
    """
    siblings = {
        "words" if role == "codec" else role: read_model(find_model(place)).reference for role, place in places.items()
    }
    settings = replace(
        SETTINGS,
        upsampler=SETTINGS.upsampler if "upsampler" in places else None,
        upscaler=UPSCALER if "upscaler" in places else None,
    )
    parts = {
        "transformer": Part(to_plain(network.config), network.state_dict(), STORAGE, moments=moments),
        PIPELINE: Part({"settings": to_plain(settings), "siblings": siblings}),
    }
    return write_model(out, kind="dalle1", parts=parts, card=card)


if __name__ == "__main__":
    main(dalle1)
