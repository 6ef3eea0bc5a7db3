"""DALL·E 2: prior and decoder over a trained CLIP and codec; with what is missing of those trained first."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F

from opendalle.base.axes import Embeddings, Mask, States, Tokens
from opendalle.checkpoint.configs import from_plain, to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.clip.model import CLIP
from opendalle.codec.protocol import Codec
from opendalle.dalle2.decoder import DECODER_PRESETS, Decoder
from opendalle.dalle2.objectives import DecoderLossConfig, DecoderObjective, PriorLossConfig, PriorObjective
from opendalle.dalle2.prior import PRIOR_PRESETS, DiffusionPrior
from opendalle.dalle2.settings import Dalle2Config, StageSettings
from opendalle.data.embeddings import EmbeddingStore
from opendalle.pretrained.kinds import find_model, load_folder, load_tokenizer
from opendalle.recipes.card import card_of
from opendalle.recipes.clip import clip as clip_recipe
from opendalle.recipes.codec import codec as codec_recipe
from opendalle.recipes.command import main, runs_beside
from opendalle.recipes.data import PairBatches, open_set, write_pairs
from opendalle.recipes.stage import Stage, Work
from opendalle.recipes.upsampler import upsampler as upsampler_recipe
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.training.config import AdamWConfig, TrainConfig

SETTINGS = Dalle2Config(
    prior=StageSettings(prediction="x0", steps=16, sampler="ddim", guidance=1.0, clip=5.0),
    decoder=StageSettings(prediction="v", steps=20, sampler="ddim", guidance=3.0),
    upsampler=StageSettings(prediction="v", steps=8, sampler="ddim", clip=1.0),
)
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
        clip_pictures: length of CLIP's run, if it is trained.
        codec_pictures: length of the codec's run, if it is trained.
        upsampler_pictures: length of the upsampler's run, if it is trained.
        prior_pictures: length of the prior's run.
        decoder_pictures: length of the decoder's run.
        batch_size: pictures a step.
        learning_rate: at its top.
        seed: of weights, order and chance.
    """
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
    prior_place = out.parent / f"{out.name}-prior"
    store = runs_beside(out) / "pairs"

    def shared() -> "Shared":
        parts = Shared(places)
        if not store.exists():
            source = open_set(data, parts.codec.picture_size)
            write_pairs(
                store, source, parts.tokenizer, parts.clip, parts.codec, parts.stamps, count=pairs, seed=seed,
                tell=lambda done: print(f"encoded {done:,} of {pairs:,}", flush=True) if done % 5_120 == 0 else None,
            )  # fmt: skip
        return parts

    def schedule_of(length: int, weight_decay: float) -> TrainConfig:
        return TrainConfig(
            pictures=length,
            batch_size=batch_size,
            seed=seed,
            optimiser=AdamWConfig(learning_rate=learning_rate, weight_decay=weight_decay),
            warmup_pictures=min(5_000, length // 10),
            final_rate=0.02,
            ema_halflife=15_000,
        )

    def build_prior() -> Work:
        parts = shared()
        torch.manual_seed(seed)
        prior = DiffusionPrior(PRIOR_PRESETS["emoji"])
        opened = EmbeddingStore(store, stamps=parts.stamps)
        z = torch.from_numpy(opened.array("z")).float()
        prior.set_statistics(z.mean(0), z.std(0).clamp_min(1e-4))
        empty = parts.tokenizer.pack([""], parts.clip.config.context)
        objective = PriorObjective(
            prior,
            SETTINGS.prior.make_schedule(),
            parts.read,
            (torch.from_numpy(empty.ids)[0], torch.from_numpy(empty.mask)[0]),
            PriorLossConfig(),
        )

        def finish() -> ModelFolder:
            part = Part(to_plain(prior.config), prior.state_dict(), storage="bfloat16")
            card = card_of("dalle2", data, pictures=prior_pictures, seed=seed)
            return write_model(prior_place, kind="dalle2-prior", parts={"prior": part}, card=card)

        return Work(
            objective=objective,
            batches=PairBatches(opened, batch_size, seed, with_grid=False),
            config=schedule_of(prior_pictures, weight_decay=0.06),
            finish=finish,
        )

    def build_decoder() -> Work:
        parts = shared()
        torch.manual_seed(seed + 1)
        decoder = Decoder(DECODER_PRESETS["emoji"]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        empty = parts.tokenizer.pack([""], parts.clip.config.context)
        objective = DecoderObjective(
            decoder,
            SETTINGS.decoder.make_schedule(),
            parts.read,
            (torch.from_numpy(empty.ids)[0], torch.from_numpy(empty.mask)[0]),
            DecoderLossConfig(prediction="v", embedding_noise=0.2),
        )

        def finish() -> ModelFolder:
            return write_dalle2(out, prior_place, decoder, places, data, decoder_pictures, seed)

        return Work(
            objective=objective,
            batches=PairBatches(EmbeddingStore(store, stamps=parts.stamps), batch_size, seed + 1, with_grid=True),
            config=schedule_of(decoder_pictures, weight_decay=0.01),
            finish=finish,
        )

    stages.append(Stage(name="prior", out=prior_place, build=build_prior))
    stages.append(Stage(name="decoder", out=out, build=build_decoder))
    return tuple(stages)


def siblings_of(model: Path) -> dict[str, Path]:
    """Return where the networks lie that a DALL·E 2 shares with others: role -> folder.

    Args:
        model: its folder, or a bundled name.
    """
    folder = read_model(find_model(model))
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
        self.stamps = {"clip": clip.sha256, "codec": codec.sha256}

    def read(self, ids: Tokens, mask: Mask) -> tuple[Embeddings, States]:
        """Read captions with the frozen text tower."""
        longest = int(mask.sum(dim=1).amax())
        with torch.no_grad():
            text = self.clip.encode_text(ids[:, :longest], mask[:, :longest])  # padding comes last: nothing sees it
        return text.pooled, F.pad(text.states, (0, 0, 0, ids.shape[1] - longest))


def write_dalle2(
    out: Path, prior: Path, decoder: Decoder, places: Mapping[str, Path], data: Path, pictures: int, seed: int
) -> ModelFolder:
    """Put a trained decoder and prior into one model folder that names its siblings.

    Args:
        out: the model folder to write.
        prior: the prior's own folder.
        decoder: the trained network.
        places: role -> sibling's folder.
        data: what it was trained on.
        pictures: length of the decoder's run.
        seed: of that run.
    """
    stored = read_model(prior).part("prior")
    network = DiffusionPrior(from_plain(type(PRIOR_PRESETS["emoji"]), stored.config))
    network.load_state_dict(stored.state(), strict=True)
    named = {role: read_model(find_model(place)) for role, place in places.items()}
    siblings = {role: {"name": model.path.name, "sha256": model.sha256} for role, model in named.items()}
    parts = {
        "prior": Part(to_plain(network.config), network.state_dict(), storage="bfloat16"),
        "decoder": Part(to_plain(decoder.config), decoder.state_dict(), storage="bfloat16"),
        "pipeline": Part({"settings": to_plain(SETTINGS), "siblings": siblings}),
    }
    card = card_of("dalle2", data, pictures=pictures, seed=seed)
    return write_model(out, kind="dalle2", parts=parts, card=card)


if __name__ == "__main__":
    main(dalle2)
