"""Where words stand before training: each token's vector is what a sentence encoder says of its text.

A tower that begins so knows at once that crimson is near red, also of words that no caption has.  With the word path
(`CLIPConfig.has_word_path`) it is a sentence embedding before its first step.

Common tokens say little of what a sentence is about, so their vectors are short.

Source: the weights a / (a + p) and the removal of what all vectors share are those of Arora et al., "A Simple but
Tough-to-Beat Baseline for Sentence Embeddings", ICLR 2017, section 3.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float32

from opendalle.base.errors import require
from opendalle.clip.model import TextTower
from opendalle.nn.whitening import principal_axes

COMMON = 1e-3  # a of the weights: a token this frequent counts half
SPREAD = 0.05  # standard deviation of the placed numbers; layer norms make it one, positions are 0.01

Teacher = Callable[[Sequence[str]], Float32[np.ndarray, "b t"]]


@torch.no_grad()
def place_words(tower: TextTower, words: Sequence[str], counts: Sequence[int], teacher: Teacher) -> None:
    """Set the token vectors of a fresh tower, in place; with a word path its output is then their weighted sum.

    Args:
        tower: its tokens are as wide as the joint space, and no wider than the teacher's vectors.
        words: the text of every token, empty where a token is no text of its own; such a one begins as zeros.
        counts: how often each token occurs in what will be read.
        teacher: embeds texts.

    Raises:
        BadConfig: when the numbers do not fit the tower, or there are fewer words than a vector is wide.
    """
    num, width = tower.tokens.weight.shape
    require(len(words) == len(counts) == num, f"{len(words)} words and {len(counts)} counts", f"{num} of each")
    told = torch.tensor([bool(word) for word in words])
    require(int(told.sum()) >= width, f"{int(told.sum())} words", f"at least {width}, one for each axis")
    vectors = torch.from_numpy(teacher([word for word in words if word])).double()
    require(vectors.shape[1] >= width, f"a teacher of {vectors.shape[1]} numbers", f"at least {width}")
    mean, axes, _ = principal_axes(vectors)
    frequency = torch.tensor(counts, dtype=torch.float64)[told] / max(1, sum(counts))
    placed = ((vectors - mean) @ axes[:, :width]) * (COMMON / (COMMON + frequency))[:, None]
    tower.tokens.weight.zero_()
    tower.tokens.weight[told] = (placed / placed.std() * SPREAD).to(tower.tokens.weight)
    if tower.words is not None:
        require(tower.words.weight.shape == (width, width), "a joint space of another width", f"{width}, as the tokens")
        tower.words.weight.copy_(torch.eye(width))
        tower.project.weight.zero_()  # the transformer begins by adding nothing
