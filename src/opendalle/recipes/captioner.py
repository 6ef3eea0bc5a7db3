"""DALL·E 3's captioner: trained to tell pictures apart and to write about them, then fine-tuned to better captions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from opendalle.base.errors import require
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.checkpoint.storage import from_storage, to_storage
from opendalle.dalle3.caption_network import CAPTIONER_PRESETS, KINDS, CaptionNetwork, CaptionNetworkConfig
from opendalle.dalle3.caption_objective import CaptionLossConfig, CaptionObjective
from opendalle.dalle3.captioner import CaptionerConfig
from opendalle.pretrained.kinds import HEAD, find_model, load_network
from opendalle.recipes.caption_pairs import PRESET, SIGHT, CaptionBatches, CaptionMix, Eye, SightsPlan
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.pairs import num_held_out
from opendalle.recipes.stage import Stage, Work
from opendalle.training.config import AdamWConfig, TrainConfig

STORAGE, PART = "int8-row", "captioner"
MEASURED = 64  # held-out pictures scored at once
# Fine-tunes: what each learns.  One network for all kinds goes on writing some originals, lest it forget how.
ORIGINAL: Mapping[str, float] = {"original": 1.0}
JOINT: Mapping[str, float] = {"original": 0.1, "short": 0.3, "descriptive": 0.6}
TUNED = KINDS[1:]
WRITING = CaptionLossConfig(contrast=0.0, caption=1.0)


def captioner(
    data: Path,
    out: Path,
    *,
    clip: Path | None = None,
    draws: int = 40_000,
    scenes: float | None = 0.5,
    pictures: int = 200_000,
    tune_pictures: int = 200_000,
    separate: bool = False,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    tune_rate: float = 1e-3,
    seed: int = 21,
) -> tuple[Stage, ...]:
    """Train the captioner: contrast and captions as people wrote them, then short and descriptive captions.

    The paper fine-tunes twice from one base, once to each kind.  So does --separate, and leaves three networks in one
    folder.  Without it one fine-tune learns both, told apart by a vector at the start of a caption: a third of the
    size, and what both kinds know of pictures is learned once.

    Command: python -m opendalle.recipes.captioner --data world --out captioner-emoji --clip clip-emoji
    Cost: COST
    Expected: `nats_descriptive` in the log falls below 0.5, `top1` is the share of pictures that find a caption of
        theirs among a batch's; scores on pictures that were held out are written into the card, in nats a token.

    Args:
        data: an emoji world, or a folder of pictures with NAME.txt beside NAME.png, and NAME.short.txt and
            NAME.descriptive.txt beside some of them.
        out: the model folder to write; the base lies beside it.
        clip: through which it sees; without, the bundled clip-emoji.
        draws: pictures of the set that are seen through CLIP once, and captioned many times.
        scenes: share of a world's draws that are scenes of several things.
        pictures: length of pre-training.
        tune_pictures: length of the fine-tune; of each, with --separate.
        separate: a fine-tune and a network for each kind.
        batch_size: pictures a step, told apart at once in pre-training.
        learning_rate: at its top, in pre-training.
        tune_rate: at its top, in a fine-tune.
        seed: of weights, order and chance.

    Raises:
        BadConfig: when there are no draws.
    """
    require(draws >= 1, f"draws is {draws}", "1 or more")
    plan = Plan(
        data=data,
        out=out,
        clip=find_model(clip or "clip-emoji"),
        draws=draws,
        scenes=scenes,
        seed=seed,
        pictures=pictures,
        tune_pictures=tune_pictures,
        separate=separate,
        batch_size=batch_size,
        learning_rate=learning_rate,
        tune_rate=tune_rate,
    )
    return plan.stages()


@dataclass(frozen=True, kw_only=True)
class Plan(SightsPlan):
    """The stages over one store of sights."""

    pictures: int  # length of pre-training
    tune_pictures: int  # of each fine-tune
    separate: bool  # whether each kind has a network of its own
    batch_size: int  # pictures a step
    learning_rate: float  # of pre-training, at its top
    tune_rate: float  # of a fine-tune, at its top

    def stages(self) -> tuple[Stage, ...]:
        """Return the base's stage, then the fine-tunes'; the last one leaves the model."""
        base = self._stage("base", self.place_of("base"), ORIGINAL)
        if not self.separate:
            return base, self._stage("tuned", self.out, JOINT)
        first, last = TUNED
        return (
            base,
            self._stage(first, self.place_of(first), {first: 1.0}),
            self._stage(last, self.out, {last: 1.0}),
        )

    def place_of(self, name: str) -> Path:
        """Return where the model of a stage before the last lies.

        Args:
            name: of the stage.
        """
        return self.out.parent / f"{self.out.name}-{name}"

    def _stage(self, name: str, out: Path, kinds: Mapping[str, float]) -> Stage:
        return Stage(
            name=name,
            part=PART,
            out=out,
            stamps=lambda: self.stamps() | self.writes(JOINT).stamps(),  # what is missing is missed before the base
            build=partial(self.work, name, out, kinds),
            prepare=self.look,
        )

    def work(self, name: str, out: Path, kinds: Mapping[str, float]) -> Work:
        """Build one run.

        Args:
            name: of the stage.
            out: the model folder to write.
            kinds: what is learned.
        """
        eye, store, is_base = Eye(self.clip), self.open(), name == "base"
        torch.manual_seed(self.seed)
        network = CaptionNetwork(fitted(eye, store.arrays[SIGHT].shape))
        if not is_base:
            network.load_state_dict(read_model(self.place_of("base")).part(PART).state())
        kept, writes = len(store) - num_held_out(store), self.writes(kinds)

        def batches(size: int, rows: range) -> CaptionBatches:
            mix = CaptionMix(kinds=kinds)
            return CaptionBatches(store, writes, eye.tokenizer, network.config.context, mix, size, self.seed, rows=rows)

        def finish() -> ModelFolder:
            lengths = {"pictures": self.pictures, "tune_pictures": self.tune_pictures, "draws": self.draws}
            card = card_of("captioner", self.data, **lengths, separate=self.separate, seed=self.seed)
            if kept < len(store):
                card["scores"] = scores_of(network, batches(MEASURED, range(kept, len(store))))
            return write_captioner(out, self._parts(name, kinds), self._networks(name, network), self.clip, card)

        # A fine-tune writes, and compares no more.
        loss = CaptionLossConfig(kinds=tuple(kinds)) if is_base else replace(WRITING, kinds=tuple(kinds))
        length = self.pictures if is_base else self.tune_pictures
        return Work(
            # A warm start goes into the base, by its part's name; fine-tunes begin with the base.
            objective=CaptionObjective(network, loss, PART if is_base else "tuned"),
            batches=batches(self.batch_size, range(kept)),
            config=TrainConfig(
                pictures=length,
                batch_size=self.batch_size,
                seed=self.seed,
                optimiser=AdamWConfig(
                    learning_rate=self.learning_rate if is_base else self.tune_rate, beta2=0.98, weight_decay=0.02
                ),
                warmup_pictures=min(8_000, length // 10),
                final_rate=0.02,
                ema_halflife=10_000,
            ),
            finish=finish,
        )

    def _parts(self, name: str, kinds: Mapping[str, float]) -> dict[str, str]:
        """Return which part of a stage's folder writes which kind."""
        if self.separate and name == TUNED[-1]:
            return {KINDS[0]: PART, **{kind: kind for kind in TUNED}}
        return dict.fromkeys(kinds, PART)

    def _networks(self, name: str, network: CaptionNetwork) -> dict[str, CaptionNetwork]:
        """Return the parts that a stage's folder holds: with separate fine-tunes the last one gathers all three."""
        if not self.separate or name != TUNED[-1]:
            return {PART: network}
        others = {PART: self.place_of("base"), TUNED[0]: self.place_of(TUNED[0])}
        loaded = {part: load_network("dalle3-captions", read_model(place).part(PART)) for part, place in others.items()}
        return {**loaded, name: network}


def fitted(eye: Eye, seen: tuple[int, ...]) -> CaptionNetworkConfig:
    """Fit the preset to the tokenizer's tokens, and to what CLIP sees.

    Args:
        eye: CLIP and its tokenizer.
        seen: tokens of a picture, and their width.
    """
    tokens, width = seen
    return replace(
        CAPTIONER_PRESETS[PRESET], vocabulary=eye.tokenizer.vocab_size, sight_tokens=tokens, sight_width=width
    )


@torch.no_grad()
def scores_of(network: CaptionNetwork, batches: CaptionBatches) -> dict[str, float]:
    """Score pictures that were held out, with the weights as they will be stored.

    Args:
        network: trained.
        batches: of the held-out pictures.

    Returns:
        Nats a token of every kind.
    """
    stored = CaptionNetwork(network.config).eval()
    stored.load_state_dict(from_storage(to_storage(network.state_dict(), STORAGE)))
    objective = CaptionObjective(stored, replace(WRITING, kinds=tuple(batches.mix.kinds)))
    pieces = -(-len(batches.rows) // batches.batch_size)
    watched = [objective(batches.batch(position), torch.Generator()).watch for position in range(pieces)]
    means = {name: sum(one[name] for one in watched) / pieces for name in watched[0]}
    return {"held_out_pictures": len(batches.rows), **{name: round(value, 4) for name, value in means.items()}}


def write_captioner(
    out: Path, parts: Mapping[str, str], networks: Mapping[str, CaptionNetwork], clip: Path, card: Mapping[str, Any]
) -> ModelFolder:
    """Put trained networks into a model folder that names its CLIP.

    Args:
        out: the model folder to write.
        parts: kind of caption -> part that writes it.
        networks: the parts.
        clip: the CLIP's folder; it must lie beside `out` when that is loaded, or among the bundled models.
        card: where all comes from.
    """
    settings = CaptionerConfig(parts=parts)
    siblings = {"clip": read_model(find_model(clip)).reference}
    head = Part({"settings": to_plain(settings), "siblings": siblings})
    own = {
        name: Part(to_plain(network.config), network.state_dict(), storage=STORAGE)
        for name, network in networks.items()
    }
    return write_model(out, kind="captioner", parts={**own, HEAD: head}, card=card)


if __name__ == "__main__":
    main(captioner)
