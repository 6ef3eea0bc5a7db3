"""How DALL·E 1 is trained: every token of caption and picture from those before it, the picture's counting seven times.

Source: arXiv:2102.12092, section 2.2 and appendix B.2.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from opendalle.base.axes import Tokens
from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.dalle1.gradient_scaling import BranchScale, GradientScaleConfig
from opendalle.dalle1.transformer import Dalle1Transformer, padded_text
from opendalle.training.chance import draw_share


@runtime_checkable
class WordsBatch(Protocol):
    """What the objective needs of a batch."""

    @property
    def ids(self) -> Tokens:
        """Caption tokens; behind a caption's length anything."""
        ...

    @property
    def length(self) -> Int[Tensor, " b"]:
        """Tokens of each caption."""
        ...

    @property
    def tokens(self) -> Int[Tensor, "b m"]:
        """Words of the pictures, in raster order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Dalle1LossConfig:
    """Weights of the two halves of the sentence, and what training hides."""

    text: float = 1 / 8  # weight of the caption's cross-entropy
    picture: float = 7 / 8  # weight of the picture's
    caption_drop: float = 0.1  # share of captions that are hidden, for guidance; the paper has none of it
    # Open in the paper: whether padding is a target.  If not, a caption's end is learned by its first padding token.
    counts_padding: bool = True
    scales: GradientScaleConfig | None = None  # one gradient scale a residual branch, for float16; None: not needed

    def __post_init__(self) -> None:
        require(min(self.text, self.picture) >= 0, f"weights {self.text}, {self.picture}", "at least 0")
        require(self.text + self.picture > 0, f"weights {self.text}, {self.picture}", "one of them above 0")
        require(0 <= self.caption_drop < 1, f"caption_drop {self.caption_drop}", "0 to below 1")


class Dalle1Objective:
    """Meeting point 2 for DALL·E 1's transformer.

    Args:
        network: to be trained.
        config: weights and shares.
    """

    def __init__(self, network: Dalle1Transformer, config: Dalle1LossConfig) -> None:
        self.network, self.config = network, config
        # Scales are no weights: after a resume they begin anew, and are right again after a few hundred updates.
        self.scales: tuple[BranchScale, ...] = ()
        if config.scales is not None:
            self.scales = network.scale_gradients(config.scales)

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The one trainable module."""
        return {"transformer": self.network}

    def __call__(self, batch: WordsBatch, rng: Generator) -> Losses:
        """Return the weighted cross-entropies of one micro-batch, and the perplexity of either half.

        Args:
            batch: captions with their pictures' words.
            rng: which captions are hidden.
        """
        config, shape = self.config, self.network.config
        hidden = draw_share(config.caption_drop, len(batch.ids), rng).to(batch.ids.device)
        length = batch.length.masked_fill(hidden, 0)
        text = padded_text(batch.ids, length, shape.text_vocabulary)
        text_states, word_states = self.network.states(text, batch.tokens)
        of_text = self._text_loss(text_states, text, length, hidden)
        logits = self.network.word_logits(word_states.flatten(0, 1))
        of_picture = F.cross_entropy(logits.float(), batch.tokens.flatten())
        total = config.text * of_text + config.picture * of_picture
        watch = {}
        for name, loss in (("text", of_text), ("picture", of_picture)):
            watch[f"{name}_perplexity"] = math.exp(min(loss.item(), 50.0))
        return Losses(total={"transformer": total}, watch=watch)

    def after_step(self) -> None:
        """Move the gradient scales."""
        for scale in self.scales:
            scale.after_step()

    def _text_loss(
        self,
        states: Float[Tensor, "b t d"],
        text: Tokens,
        length: Int[Tensor, " b"],
        hidden: Tensor,
    ) -> Float[Tensor, ""]:
        """Average over the captions that were not hidden: that there is none is nothing to learn."""
        unpredicted = text.shape[1] - states.shape[1]  # without a start token nothing says the first one
        targets = text[:, unpredicted:]
        counts = ~hidden[:, None].expand_as(targets)
        if not self.config.counts_padding:  # a caption's first padding token says that it has ended, and stays
            place = torch.arange(unpredicted, text.shape[1], device=text.device)
            counts = counts & (place <= length[:, None])
        logits = self.network.text_logits(states[counts])  # of these alone: the vocabulary is most of a small network
        return F.cross_entropy(logits.float(), targets[counts], reduction="sum") / counts.sum().clamp(min=1)
