"""What VQGAN is trained on: look right, words near cells and cells near words, and (late) fool a critic.

The two halves of the codebook's term are told apart: `codebook` draws words towards cells, `commitment` (the paper's
beta) draws cells towards words.  The published code has them swapped by default.

A word that no cell has been near for a while begins anew at a cell of the day, so that a small set fills its codebook.

Source: Esser et al., arXiv:2012.09841, section 3.1, eq. 4 to 6; commitment, van den Oord et al., arXiv:1711.00937,
eq. 3; words begun anew, Dhariwal et al., arXiv:2005.00341, appendix A.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from opendalle.base.axes import Grid
from opendalle.base.errors import require
from opendalle.base.protocols import Losses
from opendalle.codec.codebook import CodebookUse, RangeWatch, Warnings, collapsed
from opendalle.codec.likeness import Features, Likeness, LikenessConfig, PatchCritic, PictureBatch
from opendalle.codec.objective import with_critic
from opendalle.codec.vqgan import VQGAN

REMEMBERED = 256  # pictures whose words the running count remembers
ADVICE = "Lower the learning rate, or let idle words begin anew (`renew`)."


@dataclass(frozen=True, kw_only=True)
class VQGANLossConfig(LikenessConfig):
    """Weight of each term; pixels, edges, features and critic as everywhere."""

    codebook: float = 1.0  # draws words towards cells
    commitment: float = 0.25  # draws cells towards words: the paper's beta
    renew: float = 0.0  # a word used less than this share of an even use begins anew; 0: none ever does
    renew_until: float = 0.8  # part of the run after which words are left in peace

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("codebook", "commitment"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}", "at least 0")
        for name in ("renew", "renew_until"):
            require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}", "a share from 0 to 1")


class VQGANObjective:
    """Meeting point 2 for a VQGAN.

    Args:
        codec: trained in place.
        config: weight of each term.
        features: frozen feature maps for the perceptual term.
        critic: the patch critic for the adversarial term.
        warn: told, once each, of a collapsed codebook and of pictures in a wrong range.

    Raises:
        BadConfig: when a term has weight but not the network that it needs.
    """

    def __init__(
        self,
        codec: VQGAN,
        config: VQGANLossConfig,
        *,
        features: Features | None = None,
        critic: PatchCritic | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.codec, self.config = codec, config
        self.likeness = Likeness(config, features=features, critic=critic)
        cells = (codec.picture_size // codec.factor) ** 2
        self.use = CodebookUse(codec.vocabulary, max(REMEMBERED * cells, 4 * codec.vocabulary))
        self._warnings, self._range = Warnings(warn), RangeWatch()
        self._renewed: tuple[Tensor, Tensor] | None = None  # numbers of idle words, and where they begin anew

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The autoencoder and, when there is one, its critic."""
        return with_critic(self.codec, self.likeness.critic)

    def before_step(self, pictures: int, total: int) -> None:
        """Follow the run: the critic joins late, and words come to rest."""
        self.likeness.share_done = pictures / total

    def remember(self) -> dict[str, Tensor]:
        """Return what is not in the weights: the count of words."""
        return {"counts": self.use.counts}

    def recall(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `remember` gave."""
        self.use.counts = state["counts"].double()

    def __call__(self, batch: PictureBatch, rng: Generator) -> Losses:
        """Return the loss of the codec, and of the critic when there is one."""
        config, codec, pictures = self.config, self.codec, batch.pictures
        cells = codec.cells(pictures)
        found = codec.codebook(cells)
        use = self._look(pictures, found.tokens, cells, rng)
        like = self.likeness(codec.draw(found.vectors), pictures, codec.decoder.last_layer)
        loss = like.drawer + config.codebook * found.codebook_loss + config.commitment * found.commitment
        total = {"codec": loss}
        if like.critic is not None:
            total["critic"] = like.critic
        return Losses(total=total, watch={**like.watch, **use, "commitment": found.commitment.item()})

    @torch.no_grad()
    def _look(self, pictures: Tensor, tokens: Tensor, cells: Grid, rng: Generator) -> dict[str, float]:
        """Count words, begin idle ones anew, and warn; return what is to be watched of their use."""
        self.use.see(tokens)
        is_full = self.use.is_full
        if self.config.renew and is_full and self.likeness.share_done < self.config.renew_until:
            self._renew(cells, rng)
        self._warnings.tell(self._range.look(pictures))
        perplexity = self.use.perplexity
        if is_full:
            self._warnings.tell(collapsed(perplexity, self.codec.vocabulary, ADVICE))
        return {"perplexity": perplexity, "words_used": self.use.share_used}

    @torch.no_grad()
    def after_step(self) -> None:
        """Let idle words begin anew; not earlier, since the step's gradient was still to pass through the old ones."""
        if self._renewed is not None:
            idle, places = self._renewed
            self.codec.codebook.words.weight[idle] = places
            self._renewed = None

    def _renew(self, cells: Grid, rng: Generator) -> None:
        """Give idle words cells of this batch, drawn by chance; each is counted as used evenly from then on."""
        counts = self.use.counts
        even = counts.sum() / len(counts)
        idle = (counts < self.config.renew * even).nonzero()[:, 0]
        if len(idle):
            rows = cells.detach().permute(0, 2, 3, 1).flatten(0, 2)
            chosen = rows[torch.randint(len(rows), (len(idle),), generator=rng).to(rows.device)]
            self._renewed = idle.to(rows.device), chosen
            counts[idle] = even
