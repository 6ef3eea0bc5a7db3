"""The priors beside the diffusion prior, all for one CLIP: a shift and a matrix, a projection, a sentence of codes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opendalle.base.errors import BadRequest, require
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, StoredPart, read_model, write_model
from opendalle.checkpoint.storage import from_storage, to_storage
from opendalle.dalle2.objectives import PriorLossConfig
from opendalle.dalle2.priors.autoregressive import AUTOREGRESSIVE_PRESETS, AutoregressivePrior
from opendalle.dalle2.priors.codes import num_axes_for
from opendalle.dalle2.priors.linear import LinearPrior, LinearPriorConfig
from opendalle.dalle2.priors.objectives import AutoregressiveObjective, ProjectionLossConfig, ProjectionObjective
from opendalle.dalle2.priors.projection import PROJECTION_PRESETS, ProjectionPrior
from opendalle.dalle2.priors.protocol import Prior, Said
from opendalle.dalle2.priors.scores import score_prior
from opendalle.dalle2.priors.untrained import ShiftedText, ShiftedTextConfig, TextAsPicture
from opendalle.data.embeddings import EmbeddingStore
from opendalle.pretrained.kinds import PRIORS_HEAD, find_model, load_network
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.dalle2_folder import Shared, siblings_of
from opendalle.recipes.data import PairBatches
from opendalle.recipes.pairs import HELD_OUT_SHARE, PairsPlan, num_held_out
from opendalle.recipes.places import say
from opendalle.recipes.reading import ReadCaptions
from opendalle.recipes.stage import Fit, Stage, Work
from opendalle.training.config import AdamWConfig, TrainConfig

STORAGE = "int8-row"


def priors(
    data: Path,
    out: Path,
    *,
    clip: Path | None = None,
    codec: Path | None = None,
    like: Path | None = None,
    pairs: int = 100_000,
    scenes: float | None = None,
    styles: str | None = None,
    projection_pictures: int = 600_000,
    ar_pictures: int = 400_000,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 6,
) -> tuple[Stage, ...]:
    """Train every prior that stands beside the diffusion prior, for one CLIP, into one folder.

    Command: python -m opendalle.recipes.priors --data world --out priors-emoji --like dalle2
    Cost: seconds for the shift and the matrix; of one core about five minutes for the projection and fifteen for the
        codes, after the pairs have been encoded.
    Expected: see the model's card; scores on pairs that were held out are written into it.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions.
        out: the model folder to write.
        clip: a trained CLIP; without, that of `like`.
        codec: a trained codec, which gives the pairs their grids; without, that of `like`.
        like: take both from this DALL·E 2.
        pairs: draws of the set that are encoded once and trained on many times.
        scenes: share of a world's draws that are scenes of several things; without, the world's own.
        styles: of a world's drawings, as 3d,flat; without, all.
        projection_pictures: length of the projection's run.
        ar_pictures: length of the autoregressive prior's run.
        batch_size: pictures a step of the autoregressive prior; the projection takes four times as many.
        learning_rate: of both, at its top.
        seed: of weights, order and chance.

    Raises:
        BadConfig: when there are too few pairs to hold some out.
        BadRequest: when there is no CLIP or codec.
    """
    require(pairs >= HELD_OUT_SHARE, f"pairs is {pairs}", f"{HELD_OUT_SHARE} or more")
    given = siblings_of(like) if like is not None else {}
    given |= {role: place for role, place in (("clip", clip), ("codec", codec)) if place is not None}
    if missing := [role for role in ("clip", "codec") if role not in given]:
        raise BadRequest(f"priors without a {missing[0]}", f"--{missing[0]}, or --like with a DALL·E 2 that has one")
    plan = PriorsPlan(
        data=data,
        out=out,
        places={role: given[role] for role in ("clip", "codec")},
        pairs=pairs,
        scenes=scenes,
        styles=styles,
        projection_pictures=projection_pictures,
        ar_pictures=ar_pictures,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    return plan.stages()


@dataclass(frozen=True, kw_only=True)
class PriorsPlan(PairsPlan):
    """Three stages over one frozen CLIP and one store of pairs; the last gathers what all have left."""

    projection_pictures: int  # length of the projection's run
    ar_pictures: int  # length of the autoregressive prior's run
    batch_size: int  # pictures a step of the latter
    learning_rate: float  # at its top
    memory: dict[str, ReadCaptions] = field(default_factory=dict)  # captions, read by the first stage that needs them

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of matrix, projection and codes."""
        shared = {"stamps": self.stamps, "prepare": self.encode}
        return (
            Stage(name="linear", part="linear", out=self.place_of("linear"), build=self.linear, **shared),
            Stage(
                name="projection", part="projection", out=self.place_of("projection"), build=self.projection, **shared
            ),
            Stage(name="ar", part="ar", out=self.out, build=self.autoregressive, **shared),
        )

    def linear(self) -> Fit:
        """Return what measures the shift and finds the matrix."""

        def finish() -> ModelFolder:
            shared, store = self.open()
            z, z_t = self._all_pairs(shared, store)
            shift = ShiftedText(ShiftedTextConfig(embedding_width=z.shape[1]))
            matrix = LinearPrior(LinearPriorConfig(embedding_width=z.shape[1]))
            shift.fit(z_t, z)
            penalty = matrix.fit(z_t, z)
            networks = {"none-shifted": shift, "linear": matrix}
            return self._write(self.place_of("linear"), networks, penalty=penalty)

        return Fit(finish=finish)

    def projection(self) -> Work:
        """Build the projection's run."""
        shared, store = self.open()
        torch.manual_seed(self.seed)
        preset = PROJECTION_PRESETS["emoji"]
        network = ProjectionPrior(replace(preset, **widths_of(shared), text_scale=shared.clip.config.embed**0.5))
        batches = self._batches(store, 4 * self.batch_size)
        network.measure(batches.z.float())
        scale = shared.clip.scale.item()
        return Work(
            objective=ProjectionObjective(
                network, self._read(shared, store), shared.empty, ProjectionLossConfig(), scale
            ),
            batches=batches,
            config=self._train_config(self.projection_pictures, 4 * self.batch_size),
            finish=lambda: self._write(self.place_of("projection"), {"projection": network}),
        )

    def autoregressive(self) -> Work:
        """Build the run of the prior that writes codes: as many as hold all but a hundredth of the spread."""
        shared, store = self.open()
        torch.manual_seed(self.seed + 1)
        z, z_t = self._all_pairs(shared, store)
        preset = AUTOREGRESSIVE_PRESETS["emoji"]
        network = AutoregressivePrior(
            replace(
                preset,
                **widths_of(shared),
                text_scale=shared.clip.config.embed**0.5,
                num_codes=num_axes_for(z),
                num_buckets=min(preset.num_buckets, len(z)),
            )
        )
        network.measure(z, z_t)

        def finish() -> ModelFolder:
            network.eval()
            earlier = [read_model(self.place_of(name)) for name in ("linear", "projection")]
            parts = {name: part for model in earlier for name, part in model.parts.items() if name != PRIORS_HEAD}
            return self._write(self.out, {"ar": network}, parts, scores=self._scores(shared, store, parts, network))

        return Work(
            objective=AutoregressiveObjective(network, self._read(shared, store), shared.empty, PriorLossConfig()),
            batches=self._batches(store, self.batch_size),
            config=self._train_config(self.ar_pictures, self.batch_size),
            finish=finish,
        )

    def _scores(
        self, shared: Shared, store: EmbeddingStore, parts: Mapping[str, StoredPart], network: AutoregressivePrior
    ) -> dict[str, Any]:
        """Score every prior as it will be stored, on the pairs held out."""
        rounded = AutoregressivePrior(network.config).eval()
        rounded.load_state_dict(from_storage(to_storage(network.state_dict(), STORAGE)))
        known: dict[str, Prior] = {"none": TextAsPicture(), "ar": rounded}
        known |= {name: load_network(f"dalle2-prior-{name}", part) for name, part in parts.items()}
        said, empty, z = held_out(shared, store)
        return {name: dict(score_prior(prior, said, empty, z).rounded()) for name, prior in sorted(known.items())}

    def _batches(self, store: EmbeddingStore, size: int) -> PairBatches:
        return PairBatches(store, size, self.seed, with_grid=False, rows=len(store) - num_held_out(store))

    def _read(self, shared: Shared, store: EmbeddingStore) -> ReadCaptions:
        """Return the captions of the pairs as CLIP reads them; whoever asks first waits."""
        if "captions" not in self.memory:
            batches = self._batches(store, 1)
            mask = torch.arange(batches.ids.shape[1]) < batches.length[:, None]
            say(f"reading the captions of {len(mask):,} pairs")
            self.memory["captions"] = ReadCaptions(shared, batches.ids.long(), mask)
        return self.memory["captions"]

    def _all_pairs(self, shared: Shared, store: EmbeddingStore) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pictures' embeddings and their captions', of all pairs that are trained on."""
        batch = next(self._batches(store, len(store) - num_held_out(store))(0))
        return batch.z, self._read(shared, store).pooled_of(batch.ids)

    def _write(
        self, out: Path, networks: Mapping[str, nn.Module], stored: Mapping[str, StoredPart] | None = None, **told: Any
    ) -> ModelFolder:
        """Write priors into one folder that names their CLIP."""
        clip = read_model(find_model(self.places["clip"]))
        parts = {PRIORS_HEAD: Part({"siblings": {"clip": clip.reference}})}
        for name, part in (stored or {}).items():
            parts[name] = part.copied()
        for name, network in networks.items():
            parts[name] = _as_part(network)
        lengths = {"projection_pictures": self.projection_pictures, "ar_pictures": self.ar_pictures}
        card = card_of("priors", self.data, pairs=self.pairs, seed=self.seed, **lengths) | told
        return write_model(out, kind="dalle2-priors", parts=parts, card=card)

    def _train_config(self, length: int, batch_size: int) -> TrainConfig:
        return TrainConfig(
            pictures=length,
            batch_size=batch_size,
            seed=self.seed,
            optimiser=AdamWConfig(learning_rate=self.learning_rate, weight_decay=0.04),  # the paper's, for codes
            warmup_pictures=min(10_000, length // 10),
            final_rate=0.02,
            ema_halflife=15_000,
        )


def widths_of(shared: Shared) -> dict[str, int]:
    """Return the sizes that a prior takes over from CLIP."""
    config = shared.clip.config
    return {
        "embedding_width": config.embed,
        "text_width": config.text_width,
        "num_text_tokens": config.context,
    }


def held_out(shared: Shared, store: EmbeddingStore) -> tuple[Said, Said, torch.Tensor]:
    """Return the pairs that are never trained on: captions as read, the empty caption, pictures' embeddings.

    Args:
        shared: CLIP, for the captions.
        store: pairs.
    """
    count = num_held_out(store)
    z = torch.from_numpy(store.array("z"))[-count:].float()
    ids, length = (torch.from_numpy(store.array(name))[-count:].long() for name in ("ids", "length"))
    mask = torch.arange(ids.shape[1]) < length[:, None]
    said = Said(*shared.read(ids, mask), mask)
    pooled, states = shared.read(shared.empty[0][None], shared.empty[1][None])
    empty = Said(pooled, states, shared.empty[1][None], torch.ones(1, dtype=torch.bool))
    return said, empty, torch.nn.functional.normalize(z, dim=-1)


def _as_part(network: nn.Module) -> Part:
    return Part(to_plain(network.config), network.state_dict(), storage=STORAGE)


if __name__ == "__main__":
    main(priors)
