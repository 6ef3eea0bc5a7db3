"""How many steps are enough: quality of the decoder's grids by sampler and number of steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from opendalle.base.request import Request
from opendalle.base.rng import picture_generator
from opendalle.dalle2.parts import Latent, Prompted
from opendalle.dalle2.pipeline import Dalle2
from opendalle.pictures import composite, from_array
from opendalle.samplers.sample import last_state

REFERENCE = ("heun", 100)  # where the noiseless samplers lead when nothing is saved
NOISY = ("ddpm", "consistency")  # end elsewhere each time: no distance to a reference says how good they are
TOLERANCE = 0.01  # of the best
SENTENCES = (  # for a look without the emoji world
    "a red apple",
    "a rocket",
    "a smiling face with sunglasses",
    "a cat on a blue background",
    "two green cars",
    "a slice of pizza, flat",
    "一只熊猫",
    "a castle above a cloud",
)


@dataclass(frozen=True)
class Asked:
    """Prompts as far as the prior carries them, so that every setting starts from the same embedding and noise."""

    z: Tensor
    prompted: Prompted
    empty: Prompted
    states: tuple[Tensor, ...]  # of the pictures' generators

    def generators(self) -> list[Generator]:
        """Set the generators back to where the prior left them."""
        made = [torch.Generator() for _ in self.states]
        for generator, state in zip(made, self.states, strict=True):
            generator.set_state(state)
        return made


def calls(sampler: str, steps: int) -> int:
    """How often a sampler asks the network; guidance puts both halves into one call."""
    return 2 * steps - 1 if sampler == "heun" else steps


@torch.no_grad()
def ask(dalle: Dalle2, prompts: Sequence[str], batch: int) -> list[Asked]:
    """Read prompts and draw their embeddings; prompt i has seed i."""
    asked = []
    for first in range(0, len(prompts), batch):
        part = list(prompts[first : first + batch])
        generators = [picture_generator(first + k) for k in range(len(part))]
        prompted, empty = dalle.cascade.read(part), dalle.cascade.read([""] * len(part))
        z = dalle.cascade.imagine(prompted, empty, generators, Request(prompt=part[0]))
        assert z is not None, "the model's own prior draws"
        asked.append(Asked(z, prompted, empty, tuple(one.get_state() for one in generators)))
    return asked


@torch.no_grad()
def grids(dalle: Dalle2, asked: Sequence[Asked], sampler: str, steps: int) -> Tensor:
    """Denoise the grids of all prompts."""
    request = Request(prompt="any that is not empty: guidance is on", sampler=sampler, steps=steps)
    return torch.cat(
        [
            last_state(
                dalle.cascade.denoise(
                    Latent(one.z, doubt=dalle.config.doubt), one.prompted, one.empty, one.generators(), request
                )
            ).x_t
            for one in asked
        ]
    )


def by_distance(
    dalle: Dalle2, prompts: Sequence[str], samplers: Sequence[str], steps: Sequence[int], batch: int
) -> Iterator[dict[str, Any]]:
    """Compare grids with those of the reference: root mean square distance over the reference's own size."""
    asked = ask(dalle, prompts, batch)
    reference = grids(dalle, asked, *REFERENCE)
    for sampler in (one for one in samplers if one not in NOISY):
        for num in steps:
            distance = (grids(dalle, asked, sampler, num) - reference).norm() / reference.norm()
            row = {"sampler": sampler, "steps": num, "calls": calls(sampler, num), "distance": distance.item()}
            yield row | {"enough": distance.item() <= TOLERANCE}


def by_judge(
    dalle: Dalle2,
    judge: Any,
    world: Path,
    num: int,
    samplers: Sequence[str],
    steps: Sequence[int],
    batch: int,
) -> Iterator[dict[str, Any]]:
    """Let the judge name the pictures of seen names; the last rows to come may still change what is best.

    Args:
        dalle: who draws.
        judge: who names.
        world: folder of the emoji world.
        num: names asked, the first ones of the examination's list.
        samplers: to compare.
        steps: to compare.
        batch: pictures drawn at once.
    """
    from opendalle.data.emoji.prompts import seen_names
    from opendalle.data.emoji.world import World

    questions = seen_names(World(world), num)
    asked = ask(dalle, [question.prompt for question in questions], batch)
    for sampler in samplers:
        for count in steps:
            drawn = grids(dalle, asked, sampler, count)
            row: dict[str, Any] = {"sampler": sampler, "steps": count, "calls": calls(sampler, count)}
            yield row | named(dalle, judge, questions, drawn, batch)


def named(dalle: Dalle2, judge: Any, questions: Sequence[Any], drawn: Tensor, batch: int) -> dict[str, float]:
    """Let the judge name drawn grids: shares of right names, with their intervals."""
    from opendalle.evaluation.metrics import wilson
    from opendalle.evaluation.names import judged

    small = torch.cat([dalle.parts.codec.decode(part) for part in drawn.split(batch)])
    pictures = [composite(from_array(one.numpy())) for one in small]
    answers, found = judged(questions, pictures, judge), dict[str, float]()
    for k in (1, 5):
        hits = answers.hits(k)
        interval = wilson(int(hits.sum()), len(hits))
        found |= {f"top{k}": float(hits.mean()), f"top{k}_low": interval.low, f"top{k}_high": interval.high}
    return found


def mark_enough(rows: Sequence[dict[str, Any]]) -> None:
    """Mark the judge's rows within 1 % of the best, in top-1 and in top-5."""
    best = {name: max((row[name] for row in rows), default=0.0) for name in ("top1", "top5")}
    for row in rows:
        row["enough"] = all(row[name] >= (1 - TOLERANCE) * value > 0 for name, value in best.items())


def fewest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cheapest row of each sampler that is enough, cheapest sampler first."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["enough"] and (row["sampler"] not in found or row["calls"] < found[row["sampler"]]["calls"]):
            found[row["sampler"]] = row
    return sorted(found.values(), key=lambda row: row["calls"])
