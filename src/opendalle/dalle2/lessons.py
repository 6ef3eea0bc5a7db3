"""What a decoder is asked while it is distilled to few steps: the teacher under guidance, the student without.

The student sees what decoders see in training (`DecoderInputs`), the teacher the same, and beside it the empty
caption, as the pipeline's guidance wants it.  Where the caption is the empty one itself there is nothing to be pushed
away from, and the teacher is asked without guidance, as the pipeline does.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from opendalle.base.axes import Grid
from opendalle.base.protocols import Denoise
from opendalle.dalle2.decoder import Decoder
from opendalle.dalle2.decoder_objective import DecoderInputs, Told
from opendalle.dalle2.objectives import PairBatch
from opendalle.diffusion.schedules import Schedule
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.settings import StageSettings


@dataclass(frozen=True)
class DecoderLesson:
    """A batch as teacher and student are asked about it; a `Lesson`."""

    x0: Grid
    teacher: Denoise
    told: Told
    schedule: Schedule
    settings: StageSettings

    def ask(self, network: nn.Module) -> GuidedDenoise:
        """Put the prompts round the student, or round its average.

        Args:
            network: a `Decoder`.
        """
        assert isinstance(network, Decoder), "a decoder teaches decoders"
        conditioning = {"conditioning": network.condition(**self.told.given)}
        return GuidedDenoise(
            network,
            conditioning,
            schedule=self.schedule,
            prediction=self.settings.prediction,
            learned_variance=network.config.learns_variance,
        )


class DecoderLessons:
    """Makes lessons of batches of pairs.

    Args:
        teacher: trained, frozen, in evaluation mode.
        inputs: draws what both are told.
        settings: how the teacher was trained, and the guidance under which it is asked.
    """

    def __init__(self, teacher: Decoder, inputs: DecoderInputs, settings: StageSettings) -> None:
        self.teacher, self.inputs, self.settings = teacher, inputs, settings
        self.schedule = settings.make_schedule()

    def __call__(self, batch: PairBatch, rng: Generator) -> DecoderLesson:
        """Make a lesson of a batch."""
        assert batch.grid is not None, "the decoder trains on grids"
        told = self.inputs(batch, rng, has_known=self.teacher.config.has_known)
        return DecoderLesson(batch.grid, self._guided(told), told, self.schedule, self.settings)

    @torch.no_grad()
    def _guided(self, told: Told) -> Denoise:
        count = len(told.is_empty)
        with_prompt, without = (
            {"conditioning": self.teacher.condition(**given)} for given in (told.given, self._without(told.given))
        )
        scale: Float[Tensor, " b"] = told.given["z"].new_full((count,), self.settings.guidance)
        return GuidedDenoise(
            self.teacher,
            with_prompt,
            without,
            schedule=self.schedule,
            prediction=self.settings.prediction,
            scale=torch.where(told.is_empty, torch.ones_like(scale), scale),
            clip=self.settings.clip_range,
            learned_variance=self.teacher.config.learns_variance,
        )

    def _without(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the same keywords without embedding and caption."""
        count, length = given["text_mask"].shape
        ids, mask = (one[None, :length].to(given["z"].device) for one in self.inputs.empty)
        pooled, states = self.inputs.read(ids, mask)
        dropped = {"text_embedding": pooled, "text_states": states, "text_mask": mask}
        dropped = {name: one.expand(count, *one.shape[1:]) for name, one in dropped.items()}
        return given | dropped | {"has_embedding": torch.zeros_like(given["has_embedding"])}
