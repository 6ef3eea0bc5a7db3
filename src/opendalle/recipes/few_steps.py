"""A generation that draws in few steps: its denoiser is distilled, all else of its folder stays as it is.

Which generations can be is the table SCHOOLS: kind -> what it brings.  The objective itself knows none of them.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import cast

from PIL import Image
from torch import nn

from opendalle.base.errors import BadModel, require
from opendalle.checkpoint.configs import from_plain, to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, rewrite_model
from opendalle.dalle2.decoder import Decoder
from opendalle.dalle2.decoder_objective import DecoderInputs, DecoderLossConfig
from opendalle.dalle2.lessons import DecoderLessons
from opendalle.dalle2.pipeline import Dalle2
from opendalle.pictures import composite
from opendalle.pretrained.kinds import find_model, load_folder, load_network
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.dalle2 import DOUBT_SHARE, EMBEDDING_NOISE, KNOWN_SHARE, SHOWN
from opendalle.recipes.dalle2_folder import PIPELINE, named_siblings
from opendalle.recipes.data import PairBatches, open_set, some_captions
from opendalle.recipes.pairs import PairsPlan
from opendalle.recipes.stage import Stage, Work
from opendalle.samplers.settings import StageSettings
from opendalle.training.batches import Batches
from opendalle.training.config import AdamWConfig, TrainConfig
from opendalle.training.few_steps import FewSteps, FewStepsConfig, Reach, Teach

TEACHER = Path("dalle2-emoji")  # if nobody names another
SAMPLER_OF: Mapping[str, str] = MappingProxyType({"stride": "ddim", "clean": "consistency"})  # reach -> sampler


def few_steps(
    data: Path,
    out: Path,
    *,
    model: Path = TEACHER,
    steps: int = 4,
    substeps: int = 5,
    reach: str = "stride",
    guidance: float | None = None,
    pairs: int = 50_000,
    scenes: float | None = None,
    styles: str | None = None,
    pictures: int = 200_000,
    batch_size: int = 32,
    learning_rate: float = 2e-4,
    seed: int = 5,
) -> tuple[Stage, ...]:
    """Distil a generation's denoiser to few steps, guidance included.

    Command: python -m opendalle.recipes.few_steps --model dalle2-emoji --data world --out dalle2-few
    Cost: by rows through the network, a picture costs 4.3 times that of the denoiser's own training at 5 substeps.
    Expected: `python bench/steps.py --student dalle2-few --world world` draws quality against steps.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions: best that which the model was trained on.
        out: the model folder to write; it names the same siblings.
        model: the generation, a bundled one or a folder: teacher, and where the student begins.
        steps: that the student will take.
        substeps: of the teacher's in each of them.
        reach: `stride`, for the teacher's own pictures in exactly so many steps; `clean`, for a consistency model,
            which may take fewer, but draws noise between them.
        guidance: of the teacher; without, as the model's settings say.
        pairs: draws of the set that are encoded once and trained on many times.
        scenes: share of a world's draws that are scenes of several things; without, the world's own.
        styles: of a world's drawings, as 3d,flat; without, all.
        pictures: length of the run.
        batch_size: pictures a step.
        learning_rate: at its top.
        seed: of order and chance.

    Raises:
        BadConfig: when there are no pairs, or no such reach.
        BadModel: when the model is no generation that can be distilled.
    """
    require(pairs >= 1, f"pairs is {pairs}", "1 or more")
    require(reach in SAMPLER_OF, f"reach {reach!r}", " or ".join(SAMPLER_OF))
    folder = read_model(find_model(model))
    if folder.kind not in SCHOOLS:
        raise BadModel(f"{folder.path}, a {folder.kind}, to distil", "a " + " or ".join(SCHOOLS))
    plan = Plan(
        data=data,
        out=out,
        places=named_siblings(folder),
        pairs=pairs,
        scenes=scenes,
        styles=styles,
        seed=seed,
        folder=folder,
        steps=steps,
        substeps=substeps,
        reach=cast(Reach, reach),
        guidance=guidance,
        pictures=pictures,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    part = SCHOOLS[folder.kind].part
    return (Stage(name="few-steps", part=part, out=out, stamps=plan.all_stamps, prepare=plan.encode, build=plan.build),)


@dataclass(frozen=True, kw_only=True)
class Schooling:
    """What a generation brings to its distillation."""

    student: nn.Module  # with the teacher's weights
    teach: Teach
    batches: Batches
    draw: Callable[[StageSettings], Sequence[Image.Image]]  # a sheet, by the student as it stands


@dataclass(frozen=True, kw_only=True)
class School:
    """How a kind of generation is distilled."""

    part: str  # its denoiser: a part of its folder, and the field of its settings
    open: Callable[["Plan", StageSettings], Schooling]  # settings of the teacher


@dataclass(frozen=True, kw_only=True)
class Plan(PairsPlan):
    """The one stage: a student over frozen siblings and a store of pairs."""

    folder: ModelFolder  # the teacher's
    steps: int  # of the student
    substeps: int  # of the teacher's in each of them
    reach: Reach  # of an answer
    guidance: float | None  # of the teacher; None: as its settings say
    pictures: int  # length of the run
    batch_size: int  # pictures a step
    learning_rate: float  # at its top

    @property
    def school(self) -> School:
        """How this kind of generation is distilled."""
        return SCHOOLS[self.folder.kind]

    def all_stamps(self) -> dict[str, str]:
        """Say what the student learns from: the pairs, and the teacher as it is asked."""
        taught = {"steps": self.steps, "substeps": self.substeps, "reach": self.reach, "guidance": self.guidance}
        return self.stamps() | {"teacher": self.folder.sha256} | {name: str(one) for name, one in taught.items()}

    def build(self) -> Work:
        """Build the student's run."""
        head = self.folder.part(PIPELINE).config
        teacher = from_plain(StageSettings, head["settings"][self.school.part])
        if teacher.taught_steps:
            raise BadModel(f"{self.folder.path}, itself a student of {teacher.taught_steps} steps", "its teacher")
        guidance = teacher.guidance if self.guidance is None else self.guidance
        schooling = self.school.open(self, replace(teacher, guidance=guidance))
        schedule = teacher.make_schedule()
        grid = teacher.grid(schedule, self.steps)
        settings = replace(
            teacher,
            steps=self.steps,
            sampler=SAMPLER_OF[self.reach],
            guidance=1.0,
            taught_guidance=guidance,
            taught_steps=taught_steps(teacher, self.steps, self.reach),
        )
        config = FewStepsConfig(grid=grid, substeps=self.substeps, reach=self.reach)

        def finish() -> ModelFolder:
            head["settings"][self.school.part] = to_plain(settings)
            stored = self.folder.part(self.school.part)
            student = Part(stored.config, schooling.student.state_dict(), storage=stored.storage)
            told = {"pictures": self.pictures, "seed": self.seed, "steps": self.steps, "reach": self.reach}
            card = card_of("few_steps", self.data, **told, guidance=guidance, teacher=self.folder.reference)
            return rewrite_model(
                self.folder, self.out, parts={self.school.part: student, PIPELINE: Part(head)}, card=card
            )

        return Work(
            objective=FewSteps(schooling.student, schooling.teach, schedule, config, self.school.part),
            batches=schooling.batches,
            draw=lambda: schooling.draw(settings),
            config=TrainConfig(
                pictures=self.pictures,
                batch_size=self.batch_size,
                seed=self.seed,
                optimiser=AdamWConfig(learning_rate=self.learning_rate, weight_decay=0.0),
                warmup_pictures=min(2_000, self.pictures // 10),
                final_rate=0.02,
                ema_halflife=5_000,
            ),
            finish=finish,
        )


def taught_steps(settings: StageSettings, steps: int, reach: Reach) -> tuple[int, ...]:
    """Return the numbers of steps that a student can make.

    One that answers with clean data can begin anew at any step that it knows, so it can make every smaller number whose
    steps are among its own.

    Args:
        settings: of its teacher, which say how steps are spaced.
        steps: that it is taught.
        reach: of an answer.
    """
    if reach == "stride":
        return (steps,)
    schedule = settings.make_schedule()
    known = set(settings.grid(schedule, steps))
    return tuple(count for count in range(1, steps + 1) if known.issuperset(settings.grid(schedule, count)))


def _dalle2(plan: Plan, settings: StageSettings) -> Schooling:
    """DALL·E 2's decoder, on pairs as it was trained on; captions stay more often, since that is how it is used."""
    shared, store = plan.open()
    teacher: Decoder = load_network("dalle2-decoder", plan.folder.part("decoder"))
    student = copy.deepcopy(teacher).requires_grad_(True)
    sketch = load_network("dalle2-sketch", plan.folder.part("sketch")) if teacher.config.has_sketch else None
    shares = DecoderLossConfig(
        prediction=settings.prediction,
        embedding_noise=EMBEDDING_NOISE,
        caption_drop=0.1,
        doubt_share=DOUBT_SHARE if sketch is not None else 0.0,
        known_share=KNOWN_SHARE if teacher.config.has_known else 0.0,
    )
    inputs = DecoderInputs(shared.read, shared.empty, shares, sketch, shared.words)
    prompts = some_captions(open_set(plan.data, shared.codec.picture_size, 0.0, plan.styles), SHOWN, plan.seed)
    whole: Dalle2 = load_folder(plan.folder)

    def draw(settings: StageSettings) -> list[Image.Image]:
        dalle = Dalle2(replace(whole.parts, decoder=student), replace(whole.config, decoder=settings))
        side = shared.codec.picture_size
        samples = dalle.generate_many(prompts, range(len(prompts)), width=side, height=side)
        return [composite(sample.picture) for sample in samples]

    return Schooling(
        student=student,
        teach=DecoderLessons(teacher, inputs, settings),
        batches=PairBatches(store, plan.batch_size, plan.seed, with_grid=True),
        draw=draw,
    )


SCHOOLS: Mapping[str, School] = MappingProxyType({"dalle2": School(part="decoder", open=_dalle2)})


if __name__ == "__main__":
    main(few_steps)
