"""Having pictures drawn for an examination: fixed seeds, any pipeline, the batched door where there is one."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from opendalle.base.errors import require
from opendalle.base.protocols import Pipeline
from opendalle.base.records import Sample
from opendalle.pictures import composite


@runtime_checkable
class BatchedPipeline(Protocol):
    """Optional protocol of a pipeline: many prompts at once, which is several times faster than one after another."""

    def generate_many(self, prompts: Sequence[str], seeds: Sequence[int], **asked: Any) -> Iterator[Sample]:
        """Draw one finished picture for each prompt, in order.

        Picture i is the one that `generate(prompts[i], count=1, seed=seeds[i], **asked)` draws.

        Args:
            prompts: what to draw.
            seeds: one a prompt.
            asked: further fields of `Request`, the same for all.
        """
        ...


class Artist:
    """A pipeline under examination.  Question number i is drawn from seed i: the first seeds in order, never chosen.

    Args:
        pipeline: any generation.
        asked: fields of `Request` for every picture, as steps or guidance.
    """

    def __init__(self, pipeline: Pipeline, **asked: Any) -> None:
        self.pipeline = pipeline
        self.asked = asked

    def draw(self, prompts: Sequence[str], size: int, first_seed: int = 0) -> Iterator[Image.Image]:
        """Draw one picture a prompt.

        Args:
            prompts: what to draw.
            size: side in pixels.
            first_seed: seed of the first prompt; the next has the next.
        """
        seeds = range(first_seed, first_seed + len(prompts))
        asked: dict[str, Any] = self.asked | {"width": size, "height": size}
        if isinstance(self.pipeline, BatchedPipeline):
            samples = self.pipeline.generate_many(list(prompts), list(seeds), **asked)
            num_drawn = 0
            for sample in samples:
                if not sample.is_preview:
                    num_drawn += 1
                    yield sample.picture
            require(num_drawn == len(prompts), f"{num_drawn} pictures", f"{len(prompts)}, one a prompt")
            return
        for prompt, seed in zip(prompts, seeds, strict=True):
            finished = [
                sample
                for sample in self.pipeline.generate(prompt, count=1, seed=seed, **asked)
                if not sample.is_preview
            ]
            require(len(finished) == 1, f"{len(finished)} pictures of one prompt", "one")
            yield finished[0].picture


def tensor_of(pictures: Sequence[Image.Image], size: int | None = None) -> Float[Tensor, "b 3 h w"]:
    """Lay pictures on white and turn them into numbers in [-1, 1], as the judge wants them.

    Args:
        pictures: RGB or RGBA, of one size.
        size: side they are brought to (antialiased bicubic); None: as they are.
    """
    rgb = np.stack([np.asarray(composite(picture)) for picture in pictures])
    values = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1
    if size is not None and tuple(values.shape[-2:]) != (size, size):
        values = F.interpolate(values, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return values.clamp(-1, 1)


def enlarge(pictures: Sequence[Image.Image], size: int) -> list[Image.Image]:
    """Enlarge pictures with a plain bicubic filter: what an upsampler has to beat.

    Transparent pictures are enlarged with premultiplied colour, so that no dark fringe helps the other side.

    Args:
        pictures: RGB or RGBA.
        size: side of the results.
    """
    enlarged = []
    for picture in pictures:
        if picture.mode == "RGBA":
            large = picture.convert("RGBa").resize((size, size), Image.Resampling.BICUBIC).convert("RGBA")
        else:
            large = picture.resize((size, size), Image.Resampling.BICUBIC)
        enlarged.append(large)
    return enlarged
