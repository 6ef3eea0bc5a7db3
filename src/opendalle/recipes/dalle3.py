"""DALL·E 3's last stage: the denoiser, over a frozen text encoder and codec and one store of pairs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from opendalle.base.errors import BadConfig, require
from opendalle.checkpoint.folder import ModelFolder
from opendalle.dalle3.denoiser import DENOISER_PRESETS, Denoiser
from opendalle.dalle3.objective import DenoiserLossConfig, DenoiserObjective
from opendalle.dalle3.text_cache import TextCache, cache_stamps, write_text_cache
from opendalle.data.blending import BlendingConfig, CaptionSource
from opendalle.data.buckets import BucketBatches, canvases_of
from opendalle.data.caption_shelf import CaptionShelf
from opendalle.data.embeddings import EmbeddingStore, Rows
from opendalle.data.emoji.dataset import EmojiSet
from opendalle.data.emoji.oracle import Oracle
from opendalle.data.folder import FolderSet, FolderSetConfig
from opendalle.data.loading import Batch, LoadingConfig
from opendalle.data.sets import PictureSet
from opendalle.data.voices import VoicedSet, voice_name
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.dalle3_folder import SETTINGS, Dalle3Encoders, frozen_reader, write_dalle3
from opendalle.recipes.data import open_set, stamps_of
from opendalle.recipes.grid_pairs import GridBatches, StoredCaptions, encode_grids
from opendalle.recipes.pairs import PairsPlan, num_held_out
from opendalle.recipes.places import runs_beside, say
from opendalle.recipes.stage import Stage, Work
from opendalle.training.config import AdamWConfig, TrainConfig

ORACLE = Path("oracle")  # in the place of a shelf: the emoji world's own short and descriptive captions
SQUARE, AS_THEY_ARE = "square", "own"


def dalle3(
    data: Path,
    out: Path,
    *,
    text: Path,
    codec: Path,
    upsampler: Path | None = None,
    upscaler: Path | None = None,
    captions: Path | None = None,
    blend: float = 0.95,
    kinds: str = "descriptive",
    shapes: str = SQUARE,
    preset: str = "emoji",
    pairs: int = 100_000,
    scenes: float | None = None,
    styles: str | None = None,
    context: int = SETTINGS.context,
    keep_states: bool = False,
    pictures: int = 400_000,
    copies: int = 4,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 3,
) -> tuple[Stage, ...]:
    """Train the denoiser of DALL·E 3 over a trained text encoder and codec.

    Command: python -m opendalle.recipes.dalle3 --data world --out dalle3-emoji --text text-emoji --codec codec-emoji
        --captions oracle --shapes square=2,wide=1,tall=1
    Cost: see the model's card.
    Expected: see the model's card.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions.
        out: the model folder to write.
        text: a trained text encoder.
        codec: a trained codec.
        upsampler: a trained upsampler; without, there is none.
        upscaler: a trained upsampler from there to 1024 px; without, there is none.
        captions: captions of the set that were written anew, by `opendalle data caption`, or `oracle`: an emoji
            world's own; without, the set's captions alone.
        blend: share of samples that get one of those.
        kinds: of them, between commas.
        shapes: `square`; `own`: each picture's own, as square, wide and tall; or shares of the three, as
            square=2,wide=1,tall=1.
        preset: shape of the denoiser.
        pairs: draws of the set that are encoded once and trained on many times.
        scenes: share of a world's draws that are scenes of several things; without, the world's own.
        styles: of a world's drawings, as 3d,flat; without, all.
        context: tokens a caption.
        keep_states: read every caption once and keep what was read on disk, as a large encoder wants it.
        pictures: length of the run.
        copies: noised copies of each picture a visit; they share what is read of its caption.
        batch_size: pictures a step.
        learning_rate: at its top.
        seed: of weights, order and chance.

    Raises:
        BadConfig: when there are no pairs, no such preset, or shapes that nobody understands.
    """
    require(pairs >= 1, f"pairs is {pairs}", "1 or more")
    require(preset in DENOISER_PRESETS, f"preset {preset!r}", "one of " + ", ".join(DENOISER_PRESETS))
    named = {"text": text, "codec": codec, "upsampler": upsampler, "upscaler": upscaler}
    plan = Plan(
        data=data,
        out=out,
        places={role: place for role, place in named.items() if place is not None},
        pairs=pairs,
        scenes=scenes,
        styles=styles,
        seed=seed,
        captions=captions,
        shapes=shapes,
        blending=BlendingConfig(share=blend, kinds=dict.fromkeys(kinds.split(","), 1.0)),
        preset=preset,
        context=context,
        keeps_states=keep_states,
        pictures=pictures,
        loss=DenoiserLossConfig(prediction=SETTINGS.denoiser.prediction, copies=copies),
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    return (plan.stage(),)


@dataclass(frozen=True, kw_only=True)
class Plan(PairsPlan):
    """The denoiser's stage."""

    captions: Path | None  # a shelf of captions, or ORACLE
    shapes: str  # as the recipe's
    blending: BlendingConfig  # of those captions with the set's own
    preset: str  # shape of the denoiser
    context: int  # tokens a caption
    keeps_states: bool  # whether what is read of captions is kept on disk
    pictures: int  # length of the run
    loss: DenoiserLossConfig = field(default_factory=DenoiserLossConfig)  # how it is trained
    batch_size: int  # pictures a step
    learning_rate: float  # at its top

    def __post_init__(self) -> None:
        self._shares()

    def stage(self) -> Stage:
        """Return the stage."""
        return Stage(
            name="denoiser",
            part="denoiser",
            out=self.out,
            stamps=self.stamps_of_run,
            build=self.denoiser,
            prepare=self.encode,
        )

    def stamps_of_run(self) -> dict[str, str]:
        """Say what the run learns from: the pairs, of which the text encoder is no part, and that."""
        return self.stamps() | stamps_of(self.data, text=Path(self.places["text"]), context=self.context)

    def stamps(self) -> dict[str, str]:
        """Say what the pairs are made of: the set, how it is drawn from, in which words, and by which codec."""
        drawn = {"pairs": self.pairs, "scenes": self.scenes, "styles": self.styles, "seed": self.seed}
        words = self._source(open_set(self.data, 64)) if self.captions is not None else None
        told = "none" if words is None else getattr(words, "stamp", str(self.captions))
        return stamps_of(self.data, codec=Path(self.places["codec"]), shapes=self.shapes, captions=told, **drawn)

    def encode(self, stop: Callable[[], bool]) -> bool:
        """Compute grids, and states if they are kept, unless they are there."""
        return self._encode_grids(stop) and (not self.keeps_states or self._encode_states(stop))

    def denoiser(self) -> Work:
        """Build the run."""
        encoders = Dalle3Encoders(self.places, self.context)
        store = EmbeddingStore(self.pairs_place, stamps=self.stamps())
        cache = self._cache(store, encoders) if self.keeps_states else None
        torch.manual_seed(self.seed)
        shape = DENOISER_PRESETS[self.preset].fitting(
            channels=encoders.codec.grid_channels, text_width=encoders.reader.encoder.config.width
        )
        network = Denoiser(shape)
        batches = GridBatches(
            store,
            encoders.reader.tokenizer,
            self.context,
            self.batch_size,
            self.seed,
            blending=self.blending if self.captions is not None else None,
            rows=len(store) - num_held_out(store),
            cache=cache,
        )
        say("shapes: " + ", ".join(f"{name} {share:.1%}" for name, share in batches.shares.items()))

        def finish() -> ModelFolder:
            drawn = {"pairs": self.pairs, "shapes": dict(batches.shares), "blend": self.blending.share}
            card = card_of("dalle3", self.data, pictures=self.pictures, seed=self.seed, **drawn)
            shapes = [(rows, columns) for rows, columns in batches.shapes if rows != columns]
            return write_dalle3(self.out, network, self.places, card, self.context, shapes)

        return Work(
            objective=DenoiserObjective(
                network,
                SETTINGS.denoiser.make_schedule(),
                encoders.reader.encoder,
                encoders.reader.read([""]),
                self.loss,
            ),
            batches=batches,
            config=TrainConfig(
                pictures=self.pictures,
                batch_size=self.batch_size,
                seed=self.seed,
                optimiser=AdamWConfig(learning_rate=self.learning_rate, weight_decay=0.01),
                warmup_pictures=min(5_000, self.pictures // 10),
                final_rate=0.02,
                ema_halflife=15_000,
            ),
            finish=finish,
        )

    def _encode_grids(self, stop: Callable[[], bool]) -> bool:
        encoders = Dalle3Encoders(self.places, self.context)
        codec, step = encoders.codec, encoders.codec.factor * DENOISER_PRESETS[self.preset].multiple
        voices: list[str] = []

        def dressed(pictures: PictureSet) -> PictureSet:
            assert isinstance(pictures, EmojiSet | FolderSet), "what open_set opens"
            if self.captions is None:
                return pictures
            source = self._source(pictures)
            voices.extend(voice_name(kind, language) for kind in source.kinds for language in source.languages)
            return VoicedSet(pictures, source)

        def arrange(pictures: VoicedSet | EmojiSet | FolderSet, loading: LoadingConfig) -> BucketBatches:
            canvases = canvases_of(codec.picture_size, step)
            return BucketBatches(pictures, loading, canvases[:1] if self.shapes == SQUARE else canvases, self._shares())

        def encode(batch: Batch, networks: Dalle3Encoders) -> Rows:
            return encode_grids(batch, networks, voices=voices)

        return self.write(lambda: encoders, stop, encode, arrange=arrange, dressed=dressed)

    def _source(self, pictures: PictureSet) -> CaptionSource:
        """Return who wrote the captions."""
        assert self.captions is not None, "asked only where there are any"
        if isinstance(pictures, EmojiSet):
            require(self.captions == ORACLE, f"captions {self.captions} of an emoji world", str(ORACLE))
            return Oracle(pictures.lexicon)
        return CaptionShelf(self.captions, FolderSet(self.data, FolderSetConfig(size=1)))

    def _shares(self) -> Mapping[str, float] | None:
        """Return the shares that are asked for; None: as the pictures have them."""
        if self.shapes in (SQUARE, AS_THEY_ARE):
            return None
        try:
            pairs = (one.split("=") for one in self.shapes.split(","))
            return {name: float(share) for name, share in pairs}
        except ValueError:
            came = f"shapes {self.shapes!r}"
            raise BadConfig(came, f"{SQUARE}, {AS_THEY_ARE}, or shares as square=2,wide=1,tall=1") from None

    @property
    def _states_place(self) -> Path:
        return runs_beside(self.out) / "states"

    def _encode_states(self, stop: Callable[[], bool]) -> bool:
        if self._states_place.exists():
            return True
        store = EmbeddingStore(self.pairs_place, stamps=self.stamps())
        every = StoredCaptions(store).all()
        reader = frozen_reader(self.places["text"], self.context)
        return write_text_cache(self._states_place, every, reader, stop=stop)

    def _cache(self, store: EmbeddingStore, encoders: Dalle3Encoders) -> TextCache:
        return TextCache(self._states_place, stamps=cache_stamps(encoders.reader, StoredCaptions(store).all()))


if __name__ == "__main__":
    main(dalle3)
