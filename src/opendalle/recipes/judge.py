"""The judge that scores pictures: trained apart from every network that draws, conditions, reranks or filters."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from opendalle.base.axes import Pictures
from opendalle.base.errors import BadData, require
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.data.emoji.world import World
from opendalle.evaluation.judge import Judge, judge_emoji, judge_emoji_256
from opendalle.evaluation.judge_batches import JudgeBatches, JudgeBatchesConfig, judge_concepts
from opendalle.evaluation.judge_objective import JudgeBatch, JudgeObjective, JudgeObjectiveConfig, sharpness_wash
from opendalle.pretrained.kinds import find_model, load_folder
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.data import is_world, stamps_of
from opendalle.recipes.stage import Stage, Work
from opendalle.training.config import AdamWConfig, TrainConfig

CALIBRATED = 16  # batches on which the judge's temperatures are fitted


def judge(
    data: Path,
    out: Path,
    *,
    codec: Path | None = None,
    size: int = 64,
    pictures: int = 300_000,
    batch_size: int = 64,
    learning_rate: float = 4e-3,
    seed: int = 40_417,
) -> tuple[Stage, ...]:
    """Train the judge on the whole world, held-out pictures included: it must know what it is to mark.

    Command: python -m opendalle.recipes.judge --data world --out judge-emoji --codec codec-emoji
    Cost: see the model's card.
    Expected: `opendalle evaluate dalle2` prints its score on real pictures beside every other.

    Args:
        data: an emoji world.
        out: the model folder to write.
        codec: a share of pictures goes through this codec first, lest its softness be marked as error.
        size: side of the pictures it sees: 64, or 256 for the judge of sharpness, whose lessons are never soft.
        pictures: length of the run.
        batch_size: pictures a step.
        learning_rate: at its top.
        seed: of weights, order and chance; no other recipe has it.

    Raises:
        BadConfig: when the size is neither.
        BadData: when the data are no emoji world, which alone has concepts to judge.
    """
    if not is_world(data):
        raise BadData(f"{data}", "an emoji world, made by `opendalle data emoji`", "A judge needs named concepts.")

    require(size in (64, 256), f"size is {size}", "64 or 256")

    def build() -> Work:
        world = World(str(data))
        preset, wash = (judge_emoji, JudgeObjectiveConfig()) if size == 64 else (judge_emoji_256, sharpness_wash())
        network = Judge(preset(judge_concepts(world), world.styles), seed)
        reconstruct = None
        if codec is not None:
            trained = load_folder(read_model(find_model(codec)))

            def through_codec(some: Pictures) -> Pictures:
                return trained.decode(trained.encode(some))

            reconstruct = through_codec

        objective = JudgeObjective(network, wash)
        lessons = JudgeBatchesConfig(batch=batch_size, size=size, seed=seed)
        if size == 256:
            lessons = replace(lessons, small=0.0)  # what is enlarged is soft
        batches = JudgeBatches(world, lessons, reconstruct)

        def finish() -> ModelFolder:
            calibrate(objective, (batches.read(pictures // batch_size + k) for k in range(1, CALIBRATED + 1)), seed)
            part = Part(to_plain(network.config), network.state_dict(), storage="bfloat16")
            card = card_of("judge", data, pictures=pictures, seed=seed)
            return write_model(out, kind="judge", parts={"judge": part}, card=card)

        torch.manual_seed(seed)
        return Work(
            objective=objective,
            batches=batches,
            config=TrainConfig(
                pictures=pictures,
                batch_size=batch_size,
                seed=seed,
                optimiser=AdamWConfig(learning_rate=learning_rate, weight_decay=0.05),
                warmup_pictures=min(5_000, pictures // 10),
                final_rate=0.01,
                ema_halflife=10_000,
            ),
            finish=finish,
        )

    stamps = partial(stamps_of, data, codec=codec, size=size)
    return (Stage(name="judge", part="judge", out=out, stamps=stamps, build=build),)


@torch.no_grad()
def calibrate(objective: JudgeObjective, batches: Iterable[JudgeBatch], seed: int) -> None:
    """Fit the judge's temperatures on batches that come after its run, washed afresh.

    It is an examiner and must have seen every drawing, so there is none that it has not; the wash is what is new.

    Args:
        objective: the judge with its wash.
        batches: a few.
        seed: of the wash.
    """
    rng, seen = torch.Generator().manual_seed(seed), list(batches)
    verdict = objective.judge.look(torch.cat([objective.wash(batch, rng) for batch in seen]))
    objective.judge.calibrate(
        verdict, torch.cat([batch.concept for batch in seen]), torch.cat([batch.style for batch in seen])
    )


if __name__ == "__main__":
    main(judge)
