"""Lessons of the decoder: teacher and student are asked what the pipeline asks, and a student draws in few steps."""

from dataclasses import replace

import pytest
import torch

from opendalle.base.errors import BadConfig, BadRequest
from opendalle.base.request import Request
from opendalle.dalle2.decoder_objective import DecoderInputs, DecoderLossConfig
from opendalle.dalle2.lessons import DecoderLessons
from opendalle.dalle2.objectives import PairBatch
from opendalle.dalle2.parts import Dalle2Config
from opendalle.dalle2.pipeline import Dalle2
from opendalle.samplers.settings import StageSettings
from opendalle.training.few_steps import FewSteps, FewStepsConfig, Lesson

PROMPTS = ["a red apple", "", "a blue car"]
STUDENT = StageSettings(prediction="v", steps=4, taught_steps=(2, 4), taught_guidance=3.0)


def batch_of(dalle: Dalle2, prompts: list[str]) -> PairBatch:
    packed = dalle.parts.tokenizer.pack(prompts, dalle.parts.clip.config.context)
    rng = torch.Generator().manual_seed(4)
    z = torch.nn.functional.normalize(torch.randn(len(prompts), 16, generator=rng), dim=1)
    grid = torch.randn(len(prompts), 3, 4, 4, generator=rng)
    return PairBatch(z=z, ids=torch.from_numpy(packed.ids).long(), mask=torch.from_numpy(packed.mask), grid=grid)


def inputs_of(dalle: Dalle2, **shares: float) -> DecoderInputs:
    def read(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            text = dalle.parts.clip.encode_text(ids, mask)
        return text.pooled, text.states

    packed = dalle.parts.tokenizer.pack([""], dalle.parts.clip.config.context)
    empty = torch.from_numpy(packed.ids)[0], torch.from_numpy(packed.mask)[0]
    shares = {"embedding_drop": 0.0, "caption_drop": 0.0} | shares
    return DecoderInputs(read, empty, DecoderLossConfig(prediction="v", **shares))  # type: ignore[arg-type]


def test_the_teacher_is_asked_what_the_pipeline_asks(dalle: Dalle2) -> None:
    batch = batch_of(dalle, ["a red apple", "a blue car"])
    lesson = DecoderLessons(dalle.parts.decoder, inputs_of(dalle), dalle.config.decoder)(batch, torch.Generator())
    assert isinstance(lesson, Lesson)
    prompted, empty = dalle.cascade.read(["a red apple", "a blue car"]), dalle.cascade.nothing(2)
    request = Request(prompt="any that is not empty")
    theirs = dalle.cascade.denoiser(batch.z, prompted, empty, request, doubt=0.0)
    unguided = dalle.cascade.denoiser(batch.z, prompted, empty, replace(request, guidance=1.0), doubt=0.0)
    x_t, t = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([900, 300])
    with torch.no_grad():
        torch.testing.assert_close(lesson.teacher(x_t, t).x0, theirs(x_t, t).x0, atol=1e-5, rtol=1e-5)
        own = lesson.ask(dalle.parts.decoder)(x_t, t).x0
    torch.testing.assert_close(own, unguided(x_t, t).x0, atol=1e-5, rtol=1e-5)
    assert (own - theirs(x_t, t).x0).abs().max() > 1e-3


def test_nothing_is_pushed_away_from_where_the_caption_was_dropped(dalle: Dalle2) -> None:
    teacher = dalle.parts.decoder
    lessons = DecoderLessons(teacher, inputs_of(dalle, caption_drop=0.999), dalle.config.decoder)
    lesson = lessons(batch_of(dalle, PROMPTS), torch.Generator().manual_seed(0))
    x_t, t = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([900, 500, 300])
    torch.testing.assert_close(lesson.teacher(x_t, t).x0, lesson.ask(teacher)(x_t, t).x0, atol=1e-5, rtol=1e-5)


def test_a_student_without_guidance_to_learn_has_nothing_to_learn_at_the_teachers_steps(dalle: Dalle2) -> None:
    settings, losses = dalle.config.decoder, dict[float, float]()
    for guidance in (1.0, 3.0):
        lessons = DecoderLessons(dalle.parts.decoder, inputs_of(dalle), replace(settings, guidance=guidance))
        config = FewStepsConfig(grid=(999, 499), substeps=1)
        objective = FewSteps(dalle.parts.decoder, lessons, settings.make_schedule(), config)
        losses[guidance] = objective(batch_of(dalle, PROMPTS), torch.Generator().manual_seed(1)).total["decoder"].item()
    assert losses[1.0] < 1e-9
    assert losses[3.0] > 1e-4


def test_every_weight_of_the_student_learns(dalle: Dalle2) -> None:
    student = dalle.parts.decoder.requires_grad_(True)
    lessons = DecoderLessons(dalle.parts.decoder, inputs_of(dalle, embedding_drop=0.5), dalle.config.decoder)
    schedule = dalle.config.decoder.make_schedule()
    objective = FewSteps(student, lessons, schedule, FewStepsConfig(grid=(999, 499), substeps=2))
    objective(batch_of(dalle, PROMPTS * 4), torch.Generator().manual_seed(1)).total["decoder"].backward()
    assert [name for name, weight in student.named_parameters() if weight.grad is None] == []


def test_a_student_draws_in_its_own_steps_and_refuses_others(dalle: Dalle2) -> None:
    student = Dalle2(dalle.parts, replace(dalle.config, decoder=STUDENT), dalle.origin)
    asked = {"width": 16, "height": 16, "seed": 3}
    (sample,) = student.generate("a red apple", **asked)
    (again,) = student.generate("a red apple", steps=4, guidance=3.0, sampler="ddim", **asked)
    assert sample.picture.tobytes() == again.picture.tobytes(), "its teacher's guidance is not applied twice"
    list(student.generate("a red apple", steps=2, **asked))
    wrong = {"steps": 3}, {"guidance": 2.0}, {"sampler": "heun"}
    for one, said in zip(wrong, ("2 or 4", "3, which is in the weights", "ddim"), strict=True):
        with pytest.raises(BadRequest, match=said):
            student.generate("a red apple", **one, **asked)
    with pytest.raises(BadRequest, match="2 or 4"):
        student.vary(sample.picture, steps=20)


def test_settings_of_a_student_must_fit_together() -> None:
    with pytest.raises(BadConfig, match="guidance 1"):
        replace(STUDENT, guidance=2.0)
    with pytest.raises(BadConfig, match="taught"):
        replace(STUDENT, steps=20)
    assert StageSettings(taught_steps=[4], steps=4).taught_steps == (4,)  # as JSON gives it back
    assert isinstance(Dalle2Config(prior=STUDENT, decoder=STUDENT), Dalle2Config)
