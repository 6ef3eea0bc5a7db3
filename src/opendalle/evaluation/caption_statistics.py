"""What captions are like, by numbers that need no truth: how long, how varied, which habits.

These are the habits that blending is for: a captioner writes everything in one length, one case, one beginning.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, section 3: what a generator would learn
    of its captioner beside the pictures.  The paper prints no such table.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from opendalle.base.errors import BadData
from opendalle.clip.model import CLIP
from opendalle.evaluation.metrics import Interval, bootstrap_mean, wilson
from opendalle.evaluation.score import Score, score_of
from opendalle.pictures import fit, to_array
from opendalle.pictures.sheets import composite
from opendalle.tokenizers.bpe import BytePairTokenizer

WINDOW = 1_000  # words of a stretch whose variety is measured: longer texts repeat themselves more
_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+(?:['’-][^\W_{_HAN}]+)*")
_SEED = 20_260  # of every resample: a report repeats itself


@dataclass(frozen=True)
class Words:
    """The words of some captions, lower case; a Chinese character counts as one."""

    of_caption: Sequence[Sequence[str]]

    @property
    def lengths(self) -> Float[np.ndarray, " b"]:
        """How many each caption has."""
        return np.array([len(words) for words in self.of_caption], dtype=np.float64)

    @property
    def variety(self) -> tuple[float, float]:
        """Different words over all words: of all captions, and on average over stretches of WINDOW words."""
        everything = [word for words in self.of_caption for word in words]
        stretches = [everything[start : start + WINDOW] for start in range(0, len(everything) - WINDOW + 1, WINDOW)]
        ratios = [len(set(one)) / len(one) for one in stretches or [everything] if one]
        return (len(set(everything)) / len(everything), float(np.mean(ratios))) if everything else (0.0, 0.0)


def words_of(captions: Iterable[str]) -> Words:
    """Cut captions into words."""
    return Words([[word.casefold() for word in _WORD.findall(text)] for text in captions])


def language_of(caption: str) -> str:
    """Return zh for a caption with Chinese characters, en for one in Latin letters alone, other for all else.

    Other languages in Latin letters count as en: nothing but letters is looked at.
    """
    if re.search(rf"[{_HAN}]", caption) and not re.search("[\u3040-\u30ff\uac00-\ud7af]", caption):
        return "zh"
    letters = [one for one in caption if one.isalpha()]
    return "en" if letters and all(one < "\u0250" for one in letters) else "other"


_HABITS: dict[str, tuple[Callable[[str], bool], str]] = {
    "starts-with-a": (lambda text: bool(re.match(r"an?\b", text.strip(), re.IGNORECASE)), "a or an"),
    "lower-case": (lambda text: text == text.lower(), "no capital letter"),
    "ends-in-period": (lambda text: text.rstrip().endswith((".", "。")), ""),
    "english": (lambda text: language_of(text) == "en", "Latin letters alone"),
    "chinese": (lambda text: language_of(text) == "zh", "holds Chinese characters"),
    "empty": (lambda text: not text.strip(), ""),
}


def statistics(captions: Sequence[str], prefix: str = "captions") -> Iterator[Score]:
    """Describe captions.

    Args:
        captions: at least one.
        prefix: of the scores' names.

    Raises:
        BadData: when there is none.
    """
    if not captions:
        raise BadData("no captions to describe", "at least one")
    words, count = words_of(captions), len(captions)
    lengths, rng = words.lengths, np.random.default_rng(_SEED)
    yield score_of(f"{prefix}/words-mean", bootstrap_mean(lengths, rng), note="a caption")
    yield Score(name=f"{prefix}/words-median", value=float(np.median(lengths)), n=count)
    yield Score(name=f"{prefix}/words-max", value=float(lengths.max()), n=count)
    overall, in_window = words.variety
    yield Score(name=f"{prefix}/type-token", value=overall, n=count, note="different words over all words")
    yield Score(name=f"{prefix}/type-token-{WINDOW}", value=in_window, n=count, note=f"the same in {WINDOW} words")
    distinct = len(set(captions))
    yield Score(name=f"{prefix}/distinct", value=distinct / count, n=count, note=f"{distinct} different captions")
    for habit, (has, note) in _HABITS.items():
        yield score_of(f"{prefix}/{habit}", wilson(sum(map(has, captions)), count), note=note)


@torch.inference_mode()
def clip_similarities(
    pictures: Sequence[Image.Image], captions: Sequence[str], clip: CLIP, tokenizer: BytePairTokenizer
) -> Float[np.ndarray, " b"]:
    """Return 100 times the cosine of each picture and its caption.

    Args:
        pictures: of any size; each is fitted into CLIP's square.
        captions: one a picture; what goes beyond CLIP's context is not read.
        clip: in evaluation mode.
        tokenizer: of that CLIP.

    Source: Hessel et al., "CLIPScore", 2021, without its factor 2.5, as in the tables of Betker et al.
    """
    size, channels = clip.config.size, clip.config.channels
    fitted = [fit(picture, size) for picture in pictures]
    values = np.stack([to_array(one if channels == 4 else composite(one)) for one in fitted])
    ids, mask = tokenizer.pack(list(captions), clip.config.context)
    seen: Float[Tensor, "b e"] = clip.encode_pictures(torch.from_numpy(values))
    read = clip.encode_text(torch.from_numpy(ids), torch.from_numpy(mask)).pooled
    return (100 * (seen * read).sum(dim=1)).double().numpy()


def clip_score(similarities: Float[np.ndarray, " b"], prefix: str = "captions") -> Score:
    """Average similarities.

    Args:
        similarities: of pictures and captions, from `clip_similarities`.
        prefix: of the score's name.
    """
    interval: Interval = bootstrap_mean(similarities, np.random.default_rng(_SEED))
    return score_of(f"{prefix}/clip", interval, note="100 x cosine of picture and caption")
