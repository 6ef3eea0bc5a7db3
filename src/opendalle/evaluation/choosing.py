"""Zero-shot by likelihood: a model that draws is asked which caption a real picture has, and which picture a caption.

True pictures and their captions are laid out in squares: so many things, all different, each with its picture and its
name.  One square of numbers log p(picture | caption) answers both questions, for every row and every column:

    which caption?   that under which the picture is likeliest: each is as likely beforehand, so this is Bayes' rule
    which picture?   that which the caption makes likelier than no caption does, most of all: pictures are not alike
                     beforehand, and a plain one is likely after any caption

No judge is needed, for the truth is the artwork's.  Beside it stand the same answers with what is wrong beforehand left
in, and those of CLIP.  Captions name the thing and not the style, which would give some answers away.

Source: classes by p(picture | caption) of a model that draws: Li et al., arXiv:2303.16203, section 3; taking off what
    is likely beforehand: "IG Captioner", arXiv:2311.17072.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from opendalle.base.protocols import LikelihoodProbe
from opendalle.data.emoji.lexicon import Lexicon, article
from opendalle.data.emoji.prompts import Prompt
from opendalle.data.emoji.world import World
from opendalle.evaluation.metrics import paired_difference, top_k_hits, wilson
from opendalle.evaluation.names import real_pictures
from opendalle.evaluation.score import Score, score_of

CHOICES = 20  # captions or pictures to choose from: chance is 5 %
_SEED = 20_260  # of every resample: a report repeats itself


@runtime_checkable
class Comparer(Protocol):
    """What compares pictures with captions: two probes of a pipeline that has CLIP."""

    def encode_text(self, captions: Sequence[str]) -> Float[Tensor, "b e"]:
        """Embed captions."""
        ...

    def embed(self, what: Any) -> Float[Tensor, "b e"]:
        """Embed one picture, one row."""
        ...


@dataclass(frozen=True)
class Square:
    """Different things, each with its picture and its name."""

    captions: Sequence[str]
    pictures: Sequence[Image.Image]


@dataclass(frozen=True)
class Answers:
    """What was said of one square: larger is likelier; the truth is the diagonal."""

    likelihood: Float[np.ndarray, "p c"]  # log p(picture | caption), in nats
    caption: Float[np.ndarray, " c"]  # log p(caption)
    picture: Float[np.ndarray, " p"]  # log p(picture), after no caption
    clip: Float[np.ndarray, "p c"] | None  # likeness; None: there is no CLIP


def squares(questions: Sequence[Prompt], world: World, side: int = CHOICES, size: int = 64) -> list[Square]:
    """Lay out true pictures and their names in squares of different things; what fills no square is left out.

    Args:
        questions: lone things, in an order that nobody chose.
        world: the artwork.
        side: things of a square; fewer where there are fewer questions.
        size: side of the pictures in pixels.
    """
    lexicon, found, left = Lexicon(world), list[Square](), list(questions)
    while True:
        chosen, known = list[Prompt](), set[str]()
        for one in left:
            name = lexicon.names(one.keys[0], "en")[0]
            if len(chosen) < side and not known & {*one.keys, name}:
                chosen.append(one)
                known |= {*one.keys, name}
        if len(chosen) < 2 or (found and len(chosen) < side):
            return found
        taken = {id(one) for one in chosen}
        left = [one for one in left if id(one) not in taken]
        captions = [article(lexicon.names(one.keys[0], "en")[0]) for one in chosen]
        found.append(Square(captions, real_pictures(chosen, world, size)))


def asked(pipeline: LikelihoodProbe, square: Square) -> Answers:
    """Ask a model about a square, picture by picture: each is one batch of all captions and the empty one.

    Args:
        pipeline: says how likely a picture is; with CLIP, if it has one.
        square: what is asked.
    """
    captions, rows = [*square.captions, ""], list[Float[np.ndarray, " c"]]()
    said = None
    for picture in square.pictures:
        said = pipeline.log_likelihood(captions, [picture])
        rows.append(said.picture.double().cpu().numpy())
    assert said is not None, "a square holds pictures"
    found = np.stack(rows)
    likeness = None
    if isinstance(pipeline, Comparer):
        seen = torch.cat([pipeline.embed(picture) for picture in square.pictures])
        likeness = (seen @ pipeline.encode_text(square.captions).T).double().cpu().numpy()
    return Answers(found[:, :-1], said.text.double().cpu().numpy()[:-1], found[:, -1], likeness)


def zero_shot(
    pipeline: LikelihoodProbe, questions: Sequence[Prompt], world: World, side: int = CHOICES
) -> Iterator[Score]:
    """Score which caption and which picture a model chooses, beside CLIP on the same questions.

    Args:
        pipeline: under examination.
        questions: lone things, held out or not.
        world: the artwork.
        side: captions or pictures to choose from; fewer where there are fewer questions.
    """
    laid = squares(questions, world, side)
    if not laid:
        return
    answers, side = [asked(pipeline, square) for square in laid], len(laid[0].captions)
    of_captions = {
        "": [one.likelihood for one in answers],
        "-joint": [one.likelihood + one.caption for one in answers],
        "-of-clip": [one.clip for one in answers if one.clip is not None],
    }
    of_pictures = {
        "": [(one.likelihood - one.picture[:, None]).T for one in answers],
        "-plain": [one.likelihood.T for one in answers],
        "-of-clip": [one.clip.T for one in answers if one.clip is not None],
    }
    notes = {"": f"of {side} held-out ones", "-of-clip": "CLIP, same questions"}
    yield from _told(
        "caption", of_captions, notes | {"-joint": "log p(caption) left in: names are not alike beforehand"}
    )
    yield from _told("picture", of_pictures, notes | {"-plain": "log p(picture) left in: a plain one is always likely"})
    yield Score(name="zero-shot/chance", value=1 / side, n=side * len(laid), note=f"one of {side}")


def _told(
    what: str, arms: Mapping[str, Sequence[Float[np.ndarray, "b c"]]], notes: Mapping[str, str]
) -> Iterator[Score]:
    rng, first = np.random.default_rng(_SEED), dict[str, Float[np.ndarray, " b"]]()
    for arm, numbers in arms.items():
        if not numbers:
            continue
        for k in (1, 5):
            hits = np.concatenate([top_k_hits(one, np.arange(len(one)), k) for one in numbers])
            yield score_of(f"zero-shot/{what}-top{k}{arm}", wilson(int(hits.sum()), len(hits)), note=notes[arm])
            if k == 1:
                first[arm] = hits.astype(np.float64)
    if "-of-clip" in first:
        behind = paired_difference(first[""], first["-of-clip"], rng)
        yield score_of(f"zero-shot/{what}-beyond-clip", behind, note="top 1; likelihood - CLIP, same questions")
