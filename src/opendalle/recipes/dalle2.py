"""DALL·E 2: prior and decoder over a trained CLIP and codec; with what is missing of those trained first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from opendalle.base.axes import Embeddings, Mask, States, Tokens
from opendalle.base.errors import BadModel, require
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.clip.model import CLIP
from opendalle.codec.protocol import Codec
from opendalle.dalle2.decoder import DECODER_PRESETS, Decoder
from opendalle.dalle2.objectives import DecoderLossConfig, DecoderObjective, PriorLossConfig, PriorObjective
from opendalle.dalle2.pipeline import Dalle2, Dalle2Parts
from opendalle.dalle2.prior import PRIOR_PRESETS, DiffusionPrior
from opendalle.dalle2.settings import Dalle2Config, StageSettings
from opendalle.data.embeddings import EmbeddingStore
from opendalle.diffusion.grids import strided
from opendalle.diffusion.schedules import Schedule
from opendalle.pictures import composite
from opendalle.pretrained.kinds import find_model, load_folder, load_network, load_tokenizer
from opendalle.recipes.card import card_of
from opendalle.recipes.clip import clip as clip_recipe
from opendalle.recipes.codec import codec as codec_recipe
from opendalle.recipes.command import main
from opendalle.recipes.data import PairBatches, open_set, some_captions, stamps_of, write_pairs
from opendalle.recipes.places import runs_beside, say
from opendalle.recipes.stage import Stage, Work
from opendalle.recipes.upsampler import upsampler as upsampler_recipe
from opendalle.samplers.analytic import measure_noise_power
from opendalle.samplers.guided import GuidedDenoise
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.training.config import AdamWConfig, TrainConfig

SETTINGS = Dalle2Config(
    prior=StageSettings(prediction="x0", steps=16, sampler="ddim", guidance=2.0, clip=5.0),
    decoder=StageSettings(prediction="v", steps=20, sampler="ddim", guidance=3.0),
    upsampler=StageSettings(prediction="x0", steps=8, sampler="ddim", clip=1.0),
)
NOISE_POWER = "noise_power.json"  # beside the prior's weights, until the pipeline's settings hold it
MEASURED, MEASURED_STEPS = 512, 50  # pairs and steps on which the prior's noise is measured
SHOWN = 24  # captions of the set on a sheet of samples, seeds 0, 1, 2, ...
SIBLINGS = ("clip", "codec", "upsampler")


def dalle2(
    data: Path,
    out: Path,
    *,
    clip: Path | None = None,
    codec: Path | None = None,
    upsampler: Path | None = None,
    like: Path | None = None,
    pairs: int = 100_000,
    scenes: float | None = None,
    styles: str | None = None,
    clip_pictures: int = 400_000,
    codec_pictures: int = 400_000,
    upsampler_pictures: int = 200_000,
    prior_pictures: int = 400_000,
    decoder_pictures: int = 400_000,
    batch_size: int = 64,
    learning_rate: float = 6e-4,
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
        like: take all three from this DALL·E 2; what `--from` does too.
        pairs: draws of the set that are encoded once and trained on many times.
        scenes: share of a world's draws that are scenes of several things; without, the world's own.
        styles: of a world's drawings, as 3d,flat; without, all.
        clip_pictures: length of CLIP's run, if it is trained.
        codec_pictures: length of the codec's run, if it is trained.
        upsampler_pictures: length of the upsampler's run, if it is trained.
        prior_pictures: length of the prior's run.
        decoder_pictures: length of the decoder's run.
        batch_size: pictures a step.
        learning_rate: at its top.
        seed: of weights, order and chance.

    Raises:
        BadConfig: when there are no pairs.
    """
    require(pairs >= 1, f"pairs is {pairs}", "1 or more")
    stages: list[Stage] = []
    given = siblings_of(like) if like is not None else {}
    given |= {role: place for role, place in zip(SIBLINGS, (clip, codec, upsampler), strict=True) if place is not None}
    places = {role: given.get(role, out.parent / f"{out.name}-{role}") for role in SIBLINGS}
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
        prior_pictures=prior_pictures,
        decoder_pictures=decoder_pictures,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    return (*stages, *plan.stages())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The last two stages: prior and decoder over frozen siblings and one store of precomputed pairs."""

    data: Path  # the picture set
    out: Path  # the model folder to write
    places: Mapping[str, Path]  # role -> sibling's folder
    pairs: int  # draws of the set that are encoded once
    scenes: float | None  # share of them that are scenes; None: the world's own
    styles: str | None  # of a world's drawings, between commas; None: all
    prior_pictures: int  # length of the prior's run
    decoder_pictures: int  # length of the decoder's run
    batch_size: int  # pictures a step
    learning_rate: float  # at its top
    seed: int  # of weights, order and chance

    @property
    def prior_place(self) -> Path:
        """Where the prior lies until the decoder joins it."""
        return self.out.parent / f"{self.out.name}-prior"

    def stages(self) -> tuple[Stage, Stage]:
        """Return the prior's stage and the decoder's."""
        shared = {"stamps": self.stamps, "prepare": self.encode}
        return (
            Stage(name="prior", part="prior", out=self.prior_place, build=self.prior, **shared),
            Stage(name="decoder", part="decoder", out=self.out, build=self.decoder, **shared),
        )

    def stamps(self) -> dict[str, str]:
        """Say what the pairs are made of: the set, how it is drawn from, and by which networks."""
        networks = {role: Path(self.places[role]) for role in ("clip", "codec")}
        drawn = {"pairs": self.pairs, "scenes": self.scenes, "styles": self.styles, "seed": self.seed}
        return stamps_of(self.data, **networks, **drawn)

    def encode(self, stop: Callable[[], bool]) -> bool:
        """Compute the pairs if no earlier stage has.

        Args:
            stop: asked now and then whether to stop.

        Returns:
            Whether they are all there; what has been computed is kept.
        """
        if self._pairs_place.exists():
            return True
        shared = Shared(self.places)
        source = open_set(self.data, shared.codec.picture_size, self.scenes, self.styles)
        whole = write_pairs(
            self._pairs_place,
            source,
            shared,
            count=self.pairs,
            seed=self.seed,
            stamps=self.stamps(),
            tell=self._tell,
            stop=stop,
        )
        if not whole:
            say("stopped while pairs were encoded; those that are done are kept")
        return whole

    def prior(self) -> Work:
        """Build the prior's run."""
        shared, store = self._open()
        torch.manual_seed(self.seed)
        network = DiffusionPrior(PRIOR_PRESETS["emoji"])
        z = torch.from_numpy(store.array("z")).float()
        network.set_statistics(z.mean(0), z.std(0).clamp_min(1e-4))
        schedule = SETTINGS.prior.make_schedule()

        def finish() -> ModelFolder:
            power = noise_power(network, schedule, shared, PairBatches(store, MEASURED, self.seed, with_grid=False))
            extra = {NOISE_POWER: {"noise_power": [round(one, 6) for one in power]}}
            part = Part(to_plain(network.config), network.state_dict(), storage="int8-row", extra=extra)
            card = card_of("dalle2", self.data, pictures=self.prior_pictures, seed=self.seed)
            return write_model(self.prior_place, kind="dalle2-prior", parts={"prior": part}, card=card)

        return Work(
            objective=PriorObjective(network, schedule, shared.read, shared.empty, PriorLossConfig()),
            batches=PairBatches(store, self.batch_size, self.seed, with_grid=False),
            config=self._train_config(self.prior_pictures, weight_decay=0.06),
            finish=finish,
        )

    def decoder(self) -> Work:
        """Build the decoder's run."""
        shared, store = self._open()
        torch.manual_seed(self.seed + 1)
        network = Decoder(DECODER_PRESETS["emoji"]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        schedule = SETTINGS.decoder.make_schedule()
        loss = DecoderLossConfig(prediction=SETTINGS.decoder.prediction, embedding_noise=0.2)

        def finish() -> ModelFolder:
            card = card_of("dalle2", self.data, pictures=self.decoder_pictures, seed=self.seed)
            return write_dalle2(self.out, read_model(self.prior_place), network, self.places, card)

        prompts = some_captions(open_set(self.data, shared.codec.picture_size, 0.0, self.styles), SHOWN, self.seed)

        def draw() -> list[Image.Image]:
            prior: DiffusionPrior = load_network("dalle2-prior", read_model(self.prior_place).part("prior"))
            parts = Dalle2Parts(
                tokenizer=shared.tokenizer, clip=shared.clip, prior=prior, decoder=network, codec=shared.codec
            )
            side, seeds = shared.codec.picture_size, range(len(prompts))
            samples = Dalle2(parts, SETTINGS).generate_many(prompts, seeds, width=side, height=side)
            return [composite(sample.picture) for sample in samples]

        return Work(
            draw=draw,
            objective=DecoderObjective(network, schedule, shared.read, shared.empty, loss),
            batches=PairBatches(store, self.batch_size, self.seed + 1, with_grid=True),
            config=self._train_config(self.decoder_pictures, weight_decay=0.01),
            finish=finish,
        )

    def _open(self) -> tuple["Shared", EmbeddingStore]:
        """Load the siblings and the pairs."""
        return Shared(self.places), EmbeddingStore(self._pairs_place, stamps=self.stamps())

    @property
    def _pairs_place(self) -> Path:
        return runs_beside(self.out) / "pairs"

    def _tell(self, done: int) -> None:
        if done % 5_120 == 0:
            say(f"encoded {done:,} of {self.pairs:,}")

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


def siblings_of(model: Path) -> dict[str, Path]:
    """Return where the networks lie that a DALL·E 2 shares with others: role -> folder.

    Args:
        model: its folder, or a bundled name.

    Raises:
        BadModel: when it is no DALL·E 2.
    """
    folder = read_model(find_model(model))
    if folder.kind != "dalle2":
        came = f"{folder.path} of kind {folder.kind!r}, to take CLIP, codec and upsampler from"
        raise BadModel(came, "a DALL·E 2", "Other models are given by --clip, --codec and --upsampler.")
    named = folder.part("pipeline").config["siblings"]
    return {role: find_model(about["name"], beside=folder.path) for role, about in named.items()}


class Shared:
    """The frozen networks that prior and decoder are trained against.

    Args:
        places: role -> model folder.
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        clip, codec = read_model(find_model(places["clip"])), read_model(find_model(places["codec"]))
        self.clip: CLIP = load_folder(clip)
        self.codec: Codec = load_folder(codec)
        self.tokenizer: BytePairTokenizer = load_tokenizer(clip)
        empty = self.tokenizer.pack([""], self.clip.config.context)
        self.empty = torch.from_numpy(empty.ids)[0], torch.from_numpy(empty.mask)[0]

    def read(self, ids: Tokens, mask: Mask) -> tuple[Embeddings, States]:
        """Read captions with the frozen text tower."""
        longest = int(mask.sum(dim=1).amax())
        with torch.no_grad():
            text = self.clip.encode_text(ids[:, :longest], mask[:, :longest])  # padding comes last: nothing sees it
        return text.pooled, F.pad(text.states, (0, 0, 0, ids.shape[1] - longest))


def noise_power(prior: DiffusionPrior, schedule: Schedule, shared: Shared, batches: PairBatches) -> tuple[float, ...]:
    """Measure what Analytic-DPM needs to know of a trained prior; the paper samples its prior so (appendix C).

    Args:
        prior: trained.
        schedule: of its training.
        shared: CLIP, for the captions.
        batches: pairs; the first batch is measured on.
    """
    batch = next(batches(0))
    conditioning = prior.condition(*shared.read(batch.ids, batch.mask), batch.mask)
    denoise = GuidedDenoise(
        prior.step, {"conditioning": conditioning}, schedule=schedule, prediction=SETTINGS.prior.prediction
    )
    grid = strided(schedule.num_steps, MEASURED_STEPS)
    return measure_noise_power(denoise, [prior.normalise(batch.z)], schedule, grid, torch.Generator().manual_seed(0))


def write_dalle2(
    out: Path, prior: ModelFolder, decoder: Decoder, places: Mapping[str, Path], card: Mapping[str, Any]
) -> ModelFolder:
    """Put a trained decoder and prior into one model folder that names its siblings.

    Args:
        out: the model folder to write.
        prior: the prior's own folder.
        decoder: the trained network.
        places: role -> sibling's folder.
        card: where all comes from.
    """
    network = load_network("dalle2-prior", prior.part("prior"))
    named = {role: read_model(find_model(place)) for role, place in places.items()}
    measured = prior.part("prior").extra(NOISE_POWER)  # noqa: S610 - no database here
    settings = replace(SETTINGS, prior=replace(SETTINGS.prior, **measured))
    siblings = {role: {"name": model.path.resolve().name, "sha256": model.sha256} for role, model in named.items()}
    parts = {
        "prior": Part(to_plain(network.config), network.state_dict(), storage="int8-row"),
        "decoder": Part(to_plain(decoder.config), decoder.state_dict(), storage="int8-row"),
        "pipeline": Part({"settings": to_plain(settings), "siblings": siblings}),
    }
    return write_model(out, kind="dalle2", parts=parts, card=card)


if __name__ == "__main__":
    main(dalle2)
