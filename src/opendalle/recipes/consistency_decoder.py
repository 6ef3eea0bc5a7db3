"""A consistency decoder for a trained codec: its grids stay what they are, another network draws them."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from opendalle.base.errors import require
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.codec.consistency import CONSISTENCY_PRESETS, ConsistencyCodec, ConsistencyDecoder
from opendalle.codec.consistency_objective import DecoderDenoising, DecoderDistillation, DistillationConfig
from opendalle.codec.protocol import Codec
from opendalle.data.loading import LoadingConfig, PictureBatches
from opendalle.pretrained.kinds import CODEC_HEAD, find_model, load_folder, load_network
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.data import open_set, pictures_of, stamps_of
from opendalle.recipes.stage import Stage, Work
from opendalle.training.config import AdamWConfig, TrainConfig

CODEC = Path("codec-emoji")  # if nobody names another
KIND, PART = "consistency-decoder", "decoder"
SHOWN = 8  # pictures on a sheet of samples: as they are, by the codec's own decoder, by the new one


def consistency_decoder(
    data: Path,
    out: Path,
    *,
    codec: Path = CODEC,
    preset: str = "emoji",
    scenes: float = 0.3,
    denoising_pictures: int = 300_000,
    distilled_pictures: int = 100_000,
    decay: float = 0.95,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    seed: int = 6,
) -> tuple[Stage, ...]:
    """Train a consistency decoder: first as a diffusion model, then distilled to two steps.

    Command: python -m opendalle.recipes.consistency_decoder --codec codec-emoji --data world --out consistency-emoji
    Cost: 0.08 s of one CPU core a picture in the first stage, about twice that in the second.
    Expected: `python bench/consistency.py --decoder consistency-emoji --world world` compares it with the codec's own.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions (which the decoder does not read).
        out: the model folder to write; the teacher lies beside it, as OUT-teacher.
        codec: whose grids it draws, a bundled one or a folder; frozen.
        preset: of the network, a key of CONSISTENCY_PRESETS that fits the codec.
        scenes: share of a world's draws that are scenes of several things, signs with words among them.
        denoising_pictures: length of the teacher's run.
        distilled_pictures: length of the student's run.
        decay: of the slow average that the student learns from.
        batch_size: pictures a step.
        learning_rate: of the teacher, at its top; the student's is a quarter of it.
        seed: of weights, order and chance.

    Raises:
        BadConfig: when there is no such preset, or the codec's grids are not the preset's.
    """
    plan = Plan(
        data=data,
        out=out,
        codec=codec,
        preset=preset,
        scenes=scenes,
        denoising_pictures=denoising_pictures,
        distilled_pictures=distilled_pictures,
        decay=decay,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    return plan.stages()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Two stages over one frozen codec."""

    data: Path  # the picture set
    out: Path  # the model folder to write
    codec: Path  # whose grids are drawn
    preset: str  # of the network
    scenes: float  # share of a world's draws
    denoising_pictures: int  # length of the teacher's run
    distilled_pictures: int  # length of the student's run
    decay: float  # of the student's slow average
    batch_size: int  # pictures a step
    learning_rate: float  # of the teacher, at its top
    seed: int  # of weights, order and chance

    def __post_init__(self) -> None:
        known = ", ".join(CONSISTENCY_PRESETS)
        require(self.preset in CONSISTENCY_PRESETS, f"preset {self.preset!r}", f"one of {known}")

    @property
    def teacher_place(self) -> Path:
        """Where the diffusion decoder lies that the student learns from."""
        return self.out.parent / f"{self.out.name}-teacher"

    def stages(self) -> tuple[Stage, ...]:
        """Return the teacher's stage and the student's."""
        stamps = partial(stamps_of, self.data, codec=self.codec, preset=self.preset, scenes=self.scenes)
        distilled = partial(self._distilled_stamps, stamps)
        return (
            Stage(name="denoising", part=PART, out=self.teacher_place, stamps=stamps, build=self.denoising),
            Stage(name="distilled", part=PART, out=self.out, stamps=distilled, build=self.distilled),
        )

    def denoising(self) -> Work:
        """Build the teacher's run."""
        codec = self._codec()
        torch.manual_seed(self.seed)
        network = _laid_out(ConsistencyDecoder(CONSISTENCY_PRESETS[self.preset]))
        return self._work(codec, network, DecoderDenoising(codec, network), self.denoising_pictures, self.teacher_place)

    def distilled(self) -> Work:
        """Build the student's run; it begins as its teacher."""
        codec = self._codec()
        teacher, student = (_laid_out(load_network(KIND, read_model(self.teacher_place).part(PART))) for _ in range(2))
        student.requires_grad_(True)
        objective = DecoderDistillation(codec, student, teacher, DistillationConfig(decay=self.decay))
        return self._work(codec, student, objective, self.distilled_pictures, self.out, rate=0.25)

    def _codec(self) -> Codec:
        """Load the codec, and refuse one that the network does not fit before hours of work."""
        codec: Codec = load_folder(read_model(find_model(self.codec)))
        ConsistencyCodec(codec, ConsistencyDecoder(CONSISTENCY_PRESETS[self.preset]))
        return codec

    def _distilled_stamps(self, stamps: partial[dict[str, str]]) -> dict[str, str]:
        return stamps() | {"teacher": read_model(self.teacher_place).sha256, "decay": str(self.decay)}

    def _work(
        self,
        codec: Codec,
        network: ConsistencyDecoder,
        objective: DecoderDenoising | DecoderDistillation,
        pictures: int,
        out: Path,
        rate: float = 1.0,
    ) -> Work:
        loading = LoadingConfig(batch_size=self.batch_size, seed=self.seed, channels=codec.picture_channels)
        batches = PictureBatches(open_set(self.data, codec.picture_size, self.scenes), loading)
        drawing = ConsistencyCodec(codec, network)

        def finish() -> ModelFolder:
            head = {"siblings": {"encoder": read_model(find_model(self.codec)).reference}}
            parts = {
                PART: Part(to_plain(network.config), network.state_dict(), storage="int8-row"),
                CODEC_HEAD: Part(head),
            }
            card = card_of("consistency_decoder", self.data, preset=self.preset, pictures=pictures, seed=self.seed)
            return write_model(out, kind=KIND, parts=parts, card=card)

        def draw() -> list[Image.Image]:
            real = batches.batch(0).pictures[:SHOWN]
            grid = codec.encode(real)
            return [*pictures_of(real), *pictures_of(codec.decode(grid)), *pictures_of(drawing.decode(grid))]

        return Work(
            objective=objective,
            batches=batches,
            draw=draw,
            config=TrainConfig(
                pictures=pictures,
                batch_size=self.batch_size,
                seed=self.seed,
                optimiser=AdamWConfig(learning_rate=rate * self.learning_rate, weight_decay=1e-4),
                warmup_pictures=min(3_000, pictures // 10),
                final_rate=0.02,
                ema_halflife=10_000,
            ),
            finish=finish,
        )


def _laid_out(network: ConsistencyDecoder) -> ConsistencyDecoder:
    """Lay weights out as torch's convolutions read them."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


if __name__ == "__main__":
    main(consistency_decoder)
