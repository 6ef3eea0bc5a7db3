"""DALL·E 2: prior and decoder over a trained CLIP and codec; with what is missing of those trained first."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from opendalle.base.errors import require
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.dalle2.decoder import DECODER_PRESETS, Decoder
from opendalle.dalle2.decoder_objective import DecoderLossConfig, DecoderObjective
from opendalle.dalle2.means import GUESS_PRESETS, SKETCH_PRESETS, Guess, Sketch
from opendalle.dalle2.objectives import GuessObjective, PairBatch, PriorLossConfig, PriorObjective, SketchObjective
from opendalle.dalle2.parts import Dalle2Parts
from opendalle.dalle2.pipeline import Dalle2
from opendalle.dalle2.priors.diffusion import PRIOR_PRESETS, DiffusionPrior
from opendalle.data.embeddings import EmbeddingStore
from opendalle.pictures import composite
from opendalle.pretrained.kinds import load_network
from opendalle.recipes.card import card_of
from opendalle.recipes.clip import clip as clip_recipe
from opendalle.recipes.codec import codec as codec_recipe
from opendalle.recipes.command import main
from opendalle.recipes.dalle2_folder import (
    MEASURED,
    NOISE_POWER,
    SETTINGS,
    SIBLINGS,
    noise_power,
    siblings_of,
    write_dalle2,
)
from opendalle.recipes.data import PairBatches, open_set, some_captions
from opendalle.recipes.pairs import PairsPlan
from opendalle.recipes.stage import Stage, Work
from opendalle.recipes.upsampler import upsampler as upsampler_recipe
from opendalle.training.config import AdamWConfig, TrainConfig
from opendalle.training.moments import InputMoments

MEASURED_CAPTIONS = 4_096  # pairs on which the captions' spread is measured
SHOWN = 24  # captions of the set on a sheet of samples, seeds 0, 1, 2, ...
MEAN_BATCH, MEAN_RATE = 256, 1.5e-3  # of guess and sketch: a regression bears, and wants, larger batches
GUESS_NOISE = 0.1  # of the spread along every principal axis, on the caption's embedding
EMBEDDING_NOISE = 0.15  # of the spread along every principal axis, on what sketch and decoder read
KNOWN_SHARE = 0.3  # of pictures of which the decoder is told a part: so it learns to fill holes
DOUBT_SHARE = 0.6  # of embeddings that are spoiled further, up to a guess's error: scenes are drawn from such


def dalle2(
    data: Path,
    out: Path,
    *,
    clip: Path | None = None,
    codec: Path | None = None,
    upsampler: Path | None = None,
    upscaler: Path | None = None,
    like: Path | None = None,
    pairs: int = 100_000,
    scenes: float | None = None,
    styles: str | None = None,
    clip_pictures: int = 400_000,
    codec_pictures: int = 400_000,
    upsampler_pictures: int = 200_000,
    guess_pictures: int = 1_000_000,
    prior_pictures: int = 400_000,
    sketch_pictures: int = 2_000_000,
    decoder_pictures: int = 400_000,
    batch_size: int = 32,
    learning_rate: float = 1.4e-3,
    seed: int = 2,
) -> tuple[Stage, ...]:
    """Train DALL·E 2: first whatever of CLIP, codec and upsampler is not given, then prior, then decoder.

    Command: python -m opendalle.recipes.dalle2 --data world --out dalle2-emoji --clip clip-emoji --codec codec-emoji
        --upsampler upsampler-emoji
    Cost: see the model's card.
    Expected: see the model's card; `opendalle evaluate dalle2` prints the scores.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions.
        out: the model folder to write; models that are trained on the way lie beside it.
        clip: a trained CLIP; without, one is trained.
        codec: a trained codec; without, one is trained.
        upsampler: a trained upsampler; without, one is trained.
        upscaler: a trained upsampler from there to 1024 px; without, there is none.
        like: take all of them from this DALL·E 2; what `--from` does too.
        pairs: draws of the set that are encoded once and trained on many times.
        scenes: share of a world's draws that are scenes of several things; without, the world's own.
        styles: of a world's drawings, as 3d,flat; without, all.
        clip_pictures: length of CLIP's run, if it is trained.
        codec_pictures: length of the codec's run, if it is trained.
        upsampler_pictures: length of the upsampler's run, if it is trained.
        guess_pictures: length of the guess's run, some ten times as fast a picture as the prior's.
        prior_pictures: length of the prior's run.
        sketch_pictures: length of the sketch's run, some fifteen times as fast a picture as the decoder's.
        decoder_pictures: length of the decoder's run.
        batch_size: pictures a step of prior and decoder.
        learning_rate: of both, at its top.
        seed: of weights, order and chance.

    Raises:
        BadConfig: when there are no pairs.
    """
    require(pairs >= 1, f"pairs is {pairs}", "1 or more")
    stages: list[Stage] = []
    given = siblings_of(like) if like is not None else {}
    named = {"clip": clip, "codec": codec, "upsampler": upsampler, "upscaler": upscaler}
    given |= {role: place for role, place in named.items() if place is not None}
    places = {role: given.get(role, out.parent / f"{out.name}-{role}") for role in SIBLINGS}
    places |= {role: place for role, place in given.items() if role == "upscaler"}
    if "clip" not in given:
        stages += clip_recipe(data, places["clip"], pictures=clip_pictures)
    if "codec" not in given:
        stages += codec_recipe(data, places["codec"], pictures=codec_pictures)
    if "upsampler" not in given:
        stages += upsampler_recipe(data, places["upsampler"], codec=places["codec"], pictures=upsampler_pictures)
    plan = Plan(
        data=data,
        out=out,
        places=places,
        pairs=pairs,
        scenes=scenes,
        styles=styles,
        guess_pictures=guess_pictures,
        prior_pictures=prior_pictures,
        sketch_pictures=sketch_pictures,
        decoder_pictures=decoder_pictures,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    return (*stages, *plan.stages())


@dataclass(frozen=True, kw_only=True)
class Plan(PairsPlan):
    """The last four stages: guess, prior, sketch and decoder over frozen siblings and one store of pairs."""

    guess_pictures: int  # length of the guess's run
    prior_pictures: int  # length of the prior's run
    sketch_pictures: int  # length of the sketch's run
    decoder_pictures: int  # length of the decoder's run
    batch_size: int  # pictures a step
    learning_rate: float  # at its top

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of guess, prior, sketch and decoder."""
        shared = {"stamps": self.stamps, "prepare": self.encode}
        return (
            Stage(name="guess", part="guess", out=self.place_of("guess"), build=self.guess, **shared),
            Stage(name="prior", part="prior", out=self.place_of("prior"), build=self.prior, **shared),
            Stage(name="sketch", part="sketch", out=self.place_of("sketch"), build=self.sketch, **shared),
            Stage(name="decoder", part="decoder", out=self.out, build=self.decoder, **shared),
        )

    def guess(self) -> Work:
        """Build the guess's run."""
        shared, store = self.open()
        torch.manual_seed(self.seed + 3)
        network = Guess(GUESS_PRESETS["emoji"])
        batch = self._some_pairs(store)
        network.measure(shared.read(batch.ids, batch.mask)[0], torch.from_numpy(store.array("z")).float())

        moments = InputMoments()

        def finish() -> ModelFolder:
            return self._write("guess", network, self.guess_pictures, moments)

        return Work(
            objective=GuessObjective(network, shared.read, shared.empty, PriorLossConfig(), GUESS_NOISE),
            batches=PairBatches(store, MEAN_BATCH, self.seed + 3, with_grid=False),
            config=self._mean_config(self.guess_pictures),
            finish=finish,
            moments=moments,
        )

    def prior(self) -> Work:
        """Build the prior's run."""
        shared, store = self.open()
        torch.manual_seed(self.seed)
        network = DiffusionPrior(PRIOR_PRESETS["emoji"])
        network.measure(torch.from_numpy(store.array("z")).float())
        schedule = SETTINGS.prior.make_schedule()
        guess: Guess = self._read("guess")

        moments = InputMoments()

        def finish() -> ModelFolder:
            power = noise_power(
                network, guess, schedule, shared, PairBatches(store, MEASURED, self.seed, with_grid=False)
            )
            extra = {NOISE_POWER: {"noise_power": [round(one, 6) for one in power]}}
            return self._write("prior", network, self.prior_pictures, moments, extra)

        return Work(
            objective=PriorObjective(network, schedule, shared.read, shared.empty, PriorLossConfig(), guess),
            batches=PairBatches(store, self.batch_size, self.seed, with_grid=False),
            config=self._train_config(self.prior_pictures, weight_decay=0.06),
            finish=finish,
            moments=moments,
        )

    def sketch(self) -> Work:
        """Build the sketch's run."""
        shared, store = self.open()
        torch.manual_seed(self.seed + 2)
        network = Sketch(SKETCH_PRESETS["emoji"])
        network.mean.whitening.fit(torch.from_numpy(store.array("z")).float())
        batch = self._some_pairs(store)
        guess: Guess = self._read("guess")
        with torch.no_grad():
            network.measure_error(batch.z, guess(shared.read(batch.ids, batch.mask)[0]))

        moments = InputMoments()

        def finish() -> ModelFolder:
            return self._write("sketch", network, self.sketch_pictures, moments)

        return Work(
            objective=SketchObjective(network, shared.words, shared.empty, EMBEDDING_NOISE, doubt_share=DOUBT_SHARE),
            batches=PairBatches(store, MEAN_BATCH, self.seed + 2, with_grid=True),
            config=self._mean_config(self.sketch_pictures),
            finish=finish,
            moments=moments,
        )

    def decoder(self) -> Work:
        """Build the decoder's run."""
        shared, store = self.open()
        torch.manual_seed(self.seed + 1)
        network = Decoder(DECODER_PRESETS["emoji"])
        schedule = SETTINGS.decoder.make_schedule()
        loss = DecoderLossConfig(
            prediction=SETTINGS.decoder.prediction,
            embedding_noise=EMBEDDING_NOISE,
            caption_drop=0.2,
            doubt_share=DOUBT_SHARE,
            known_share=KNOWN_SHARE,
        )
        guess: Guess = self._read("guess")
        sketch: Sketch = self._read("sketch")

        moments = InputMoments()

        def finish() -> ModelFolder:
            card = card_of("dalle2", self.data, pictures=self.decoder_pictures, seed=self.seed)
            earlier = {name: read_model(self.place_of(name)).part(name) for name in ("guess", "prior", "sketch")}
            part = Part(to_plain(network.config), network.state_dict(), "even-step", moments=moments.of("decoder"))
            return write_dalle2(self.out, earlier, part, self.places, card)

        prompts = some_captions(open_set(self.data, shared.codec.picture_size, 0.0, self.styles), SHOWN, self.seed)

        def draw() -> list[Image.Image]:
            prior: DiffusionPrior = self._read("prior")
            parts = Dalle2Parts(
                tokenizer=shared.tokenizer,
                clip=shared.clip,
                guess=guess,
                prior=prior,
                sketch=sketch,
                decoder=network,
                codec=shared.codec,
            )
            side, seeds = shared.codec.picture_size, range(len(prompts))
            samples = Dalle2(parts, SETTINGS).generate_many(prompts, seeds, width=side, height=side)
            return [composite(sample.picture) for sample in samples]

        return Work(
            draw=draw,
            objective=DecoderObjective(network, schedule, shared.read, shared.empty, loss, sketch, shared.words),
            batches=PairBatches(store, self.batch_size, self.seed + 1, with_grid=True),
            config=self._train_config(self.decoder_pictures, weight_decay=0.01),
            finish=finish,
            moments=moments,
        )

    def _some_pairs(self, store: EmbeddingStore) -> PairBatch:
        """Return the pairs on which spread and error are measured."""
        return next(PairBatches(store, min(MEASURED_CAPTIONS, self.pairs), self.seed, with_grid=False)(0))

    def _write(
        self,
        name: str,
        network: Guess | DiffusionPrior | Sketch,
        pictures: int,
        moments: InputMoments,
        extra: Mapping[str, Any] | None = None,
    ) -> ModelFolder:
        """Write a network that has been trained into a folder of its own."""
        part = Part(to_plain(network.config), network.state_dict(), "even-step", extra or {}, moments.of(name))
        card = card_of("dalle2", self.data, pictures=pictures, seed=self.seed)
        return write_model(self.place_of(name), kind=f"dalle2-{name}", parts={name: part}, card=card)

    def _read(self, name: str) -> Any:
        """Load a network that an earlier stage has written."""
        return load_network(f"dalle2-{name}", read_model(self.place_of(name)).part(name))

    def _mean_config(self, length: int) -> TrainConfig:
        config = self._train_config(length, weight_decay=0.01)
        return replace(config, batch_size=MEAN_BATCH, optimiser=replace(config.optimiser, learning_rate=MEAN_RATE))

    def _train_config(self, length: int, weight_decay: float) -> TrainConfig:
        return TrainConfig(
            pictures=length,
            batch_size=self.batch_size,
            seed=self.seed,
            optimiser=AdamWConfig(learning_rate=self.learning_rate, weight_decay=weight_decay),
            warmup_pictures=min(5_000, length // 10),
            final_rate=0.02,
            ema_halflife=15_000,
        )


if __name__ == "__main__":
    main(dalle2)
