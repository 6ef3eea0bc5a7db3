"""Twins: two small decoders of equal compute; one is shown z_i and the caption, the other the caption only.

Whether unCLIP binds worse than a decoder of captions cannot be seen on one decoder, which has learned with z_i what it
then has to do without.  So two are trained through the recipes' machinery: one shape and one set of first weights, the
same pairs in the same order, the same noise, as many pictures.  All that differs is how often z_i is left out: in a
tenth of the lessons, as in the paper, or in all.  Neither has a sketch, and both are the paper's plain decoder.

Source: unCLIP, arXiv:2204.06125, sections 2.1 and 7; GLIDE, arXiv:2112.10741, for the decoder of captions.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from opendalle.base.axes import Embeddings, Mask, States, Tokens
from opendalle.base.errors import BadRequest
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.files import read_json, replace_file, to_json
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.dalle2.decoder import Decoder, DecoderConfig
from opendalle.dalle2.decoder_objective import DecoderLossConfig, DecoderObjective
from opendalle.dalle2.objectives import CaptionReader
from opendalle.dalle2.pipeline import Dalle2
from opendalle.data.embeddings import EmbeddingStore
from opendalle.nn.grid_transformer import GridTransformerConfig
from opendalle.pretrained.kinds import load_network
from opendalle.recipes.card import card_of
from opendalle.recipes.dalle2_folder import SETTINGS, Shared, siblings_of
from opendalle.recipes.data import PairBatches
from opendalle.recipes.pairs import PairsPlan
from opendalle.recipes.places import is_begun, runs_beside, say
from opendalle.recipes.reading import ReadCaptions
from opendalle.recipes.stage import Passage, Stage, Work, walk
from opendalle.study.cells import Measured
from opendalle.study.priors.claims import TEXT_TWIN, TWIN
from opendalle.study.priors.plan import Twins
from opendalle.training.chance import batch_generator
from opendalle.training.config import AdamWConfig, TrainConfig

DROPS: Mapping[str, float] = {TWIN: 0.1, TEXT_TWIN: 1.0}  # of the lessons, those without z_i: all that differs
CAPTION_DROP = 0.2  # of both; GLIDE's share
PAIRS, SCENES_SHARE = 20_000, 0.6  # draws that both learn from, and how many of them are scenes
BATCH, RATE = 32, 1.4e-3  # pictures a step, and the learning rate at its top
TRIED = 8.0  # seconds of training that tell how many pictures fit into the minutes
PAIR_SECONDS = 0.015  # about what encoding a pair and reading its caption takes a core
HEAD = "twins.json"


@dataclass(frozen=True, kw_only=True)
class TwinsPlan(PairsPlan):
    """Both trainings, over one frozen CLIP and codec and one store of pairs."""

    pictures: int  # that each of them sees
    width: int = 192  # of their tokens
    depth: int = 4  # their blocks

    def stages(self) -> tuple[Stage, ...]:
        """Return one stage a twin."""
        shared = {"stamps": self.stamps, "prepare": self.encode}
        return tuple(
            Stage(name=arm, part="decoder", out=self.place_of(arm), build=partial(self.work, arm), **shared)
            for arm in DROPS
        )

    def work(self, arm: str) -> Work:
        """Build one twin's run.

        Args:
            arm: which one.
        """
        shared, store = self.open()
        torch.manual_seed(self.seed)
        network = Decoder(self.shape(shared))
        loss = DecoderLossConfig(
            prediction=SETTINGS.decoder.prediction, embedding_drop=DROPS[arm], caption_drop=CAPTION_DROP
        )
        schedule, read = SETTINGS.decoder.make_schedule(), _reader(shared, store)

        def finish() -> ModelFolder:
            part = Part(to_plain(network.config), network.state_dict())
            card = card_of("twins", self.data, pictures=self.pictures, seed=self.seed, embedding_drop=DROPS[arm])
            return write_model(self.place_of(arm), kind="dalle2-decoder", parts={"decoder": part}, card=card)

        return Work(
            objective=DecoderObjective(network, schedule, read, shared.empty, loss),
            batches=PairBatches(store, BATCH, self.seed, with_grid=True),
            config=TrainConfig(
                pictures=self.pictures,
                batch_size=BATCH,
                seed=self.seed,
                optimiser=AdamWConfig(learning_rate=RATE),
                warmup_pictures=min(5_000, self.pictures // 10),
                final_rate=0.02,
                ema_halflife=min(15_000, self.pictures // 10),
            ),
            finish=finish,
        )

    def shape(self, shared: Shared) -> DecoderConfig:
        """Return the shape of both: a transformer over the codec's grid.

        Args:
            shared: CLIP and codec, which say how wide embeddings and grid are.
        """
        clip, channels = shared.clip.config, shared.codec.grid_channels
        side = shared.codec.picture_size // shared.codec.factor
        body = GridTransformerConfig(
            in_channels=channels,
            out_channels=channels,
            patch=2 if side % 2 == 0 else 1,
            width=self.width,
            depth=self.depth,
            heads=max(1, self.width // 64),
            time_width=self.width,
            context_width=self.width,
        )
        return DecoderConfig(
            embedding_width=clip.embed,
            text_width=clip.text_width,
            text_embedding_width=clip.embed,
            transformer=body,
            embedding_scale=clip.embed**0.5,
        )

    def count_for(self, minutes: float) -> int:
        """Return how many pictures each twin can see so that both take so long together, on this machine as it is now.

        Args:
            minutes: of both.
        """
        work = self.work(TWIN)
        optimiser = torch.optim.AdamW(work.objective.groups["decoder"].parameters(), lr=1e-6)
        seen, began, batches = -BATCH, time.perf_counter(), work.batches(0)  # the first step warms up
        while seen <= 0 or time.perf_counter() - began < TRIED:
            losses = work.objective(next(batches), batch_generator(self.seed, 0))
            optimiser.zero_grad()
            losses.total["decoder"].backward()
            optimiser.step()
            seen += BATCH
            began = time.perf_counter() if seen == 0 else began
        rate = seen / (time.perf_counter() - began)
        return max(1, round(minutes * 60 / 2 * rate / BATCH)) * BATCH


def _reader(shared: Shared, store: EmbeddingStore) -> CaptionReader:
    """Return what looks captions up that have been read once; the objective asks with their padding cut off."""
    ids = torch.from_numpy(store.array("ids")).long()
    mask = torch.arange(ids.shape[1]) < torch.from_numpy(store.array("length"))[:, None]
    known, context, pad = ReadCaptions(shared, ids, mask), ids.shape[1], shared.tokenizer.pad

    def read(ids: Tokens, mask: Mask) -> tuple[Embeddings, States]:
        missing = (0, context - ids.shape[1])
        pooled, states = known(F.pad(ids, missing, value=pad), F.pad(mask, missing, value=False))
        return pooled, states[:, : ids.shape[1]]

    return read


def open_twins(
    subject: Dalle2, model: Path, data: Path, out: Path, minutes: float | None, pairs: int = PAIRS, **shape: int
) -> Twins | None:
    """Say how twins are trained for a study, and how they draw.

    Args:
        subject: the model whose other networks they use.
        model: its folder.
        data: the emoji world.
        out: the study's folder.
        minutes: of both trainings together; None: as the folder has begun, if it has.
        pairs: draws of the world that they learn from.
        **shape: width and depth, if other than the plan's.

    Returns:
        None where nobody asks for twins.

    Raises:
        BadRequest: when the folder has begun with other minutes.
    """
    head = out / "twins" / HEAD
    begun = read_json(head) if head.is_file() else {}
    asked = begun.get("minutes") if minutes is None else minutes
    if asked is None:
        return None
    if begun and begun["minutes"] != asked:
        raise BadRequest(f"--twins {asked:g} for {out}", f"--twins {begun['minutes']:g}, as it was begun with")
    settings = {"minutes": asked, "pairs": pairs}
    plan = TwinsPlan(
        data=data,
        out=head.parent / "decoder",
        places={role: place for role, place in siblings_of(model).items() if role in ("clip", "codec")},
        pairs=pairs,
        scenes=SCENES_SHARE,
        styles=None,
        seed=11,
        pictures=begun.get("pictures", BATCH),
        **shape,
    )

    @cache
    def twin(arm: str) -> Dalle2:
        decoder = load_network("dalle2-decoder", read_model(plan.place_of(arm)).part("decoder"))
        return Dalle2(replace(subject.parts, decoder=decoder, sketch=None), subject.config, subject.origin)

    def told() -> dict[str, Any]:
        return settings | ({"pictures each": read_json(head)["pictures"]} if head.is_file() else {})

    return Twins(
        seconds=60 * asked + PAIR_SECONDS * pairs, told=told, train=lambda: _trained(plan, head, settings), subject=twin
    )


def _trained(plan: TwinsPlan, head: Path, settings: Mapping[str, Any]) -> Measured:
    """Train both, or go on training them.

    Raises:
        KeyboardInterrupt: when they were stopped; what they have learned is kept.
    """
    head.parent.mkdir(parents=True, exist_ok=True)
    if not plan.encode(lambda: False):
        raise KeyboardInterrupt
    if not head.is_file():
        replace_file(head, to_json({**settings, "pictures": plan.count_for(settings["minutes"])}))
    plan = replace(plan, pictures=read_json(head)["pictures"])
    runs, told = runs_beside(plan.out), -1
    seconds: dict[str, float] = {}
    for step in walk(plan.stages(), Passage(runs=runs, resume=any(is_begun(runs / arm) for arm in DROPS))):
        seconds[step.stage] = step.pictures / step.pictures_per_second if step.pictures_per_second else 0.0
        if (tenth := 10 * step.pictures // plan.pictures) != told:
            told = tenth
            say(f"{step.stage}: {10 * tenth} % of {plan.pictures:,} pictures")
    if not all((plan.place_of(arm) / "model.json").is_file() for arm in DROPS):
        raise KeyboardInterrupt
    return Measured(values={}, seconds=seconds)
