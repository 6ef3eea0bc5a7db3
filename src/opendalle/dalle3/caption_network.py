"""The captioner's network: a language model that sees a picture, and compares both on the way.

    ids ─▶ vectors, manner at the start ─▶ text half ─┬─▶ joint half ─▶ which token comes next
                                                      ╰─▶ at the end token: the caption's vector ─╮
    picture as CLIP sees it ─▶ projected, with places ┬─▶ keys and values of the joint half       ├─ contrast
                                                      ╰─▶ one learned query: the picture's vector ╯

The text half sees words alone, so its last state can be compared with pictures; the joint half goes on from there and
looks at the picture.  Both halves are causal.  In the joint half a token looks at the picture and at the words before
it in one attention, where CoCa has two in a row.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, section 2.1; the halves, the poolers and
    the two losses: Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", arXiv:2205.01917.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from opendalle.base.axes import Embeddings, Mask, States, Tokens
from opendalle.base.errors import BadRequest, require
from opendalle.dalle3.sight import SIGHTS, Sight
from opendalle.nn.attention import Attention
from opendalle.nn.embeddings import LearnedPositions
from opendalle.nn.kv_cache import KVCache
from opendalle.nn.transformer import Transformer, TransformerConfig
from opendalle.tokenizers.bpe import BytePairTokenizer

KINDS = ("original", "short", "descriptive")  # as people wrote it; the main subject alone; all there is to see
LANGUAGES = ("en", "zh")
MAX_SCALE = 100.0  # of the contrastive logits, as CLIP's
Sights = Float[Tensor, "b m s"]  # pictures as CLIP shows them: m tokens of width s
Seen = Float[Tensor, "b m d"]  # the same as the network takes them up
UNSAID = (BytePairTokenizer.pad, BytePairTokenizer.start)  # tokens that no caption goes on with


def manner_of(kind: str, language: str) -> int:
    """Number a way of writing captions.

    Args:
        kind: one of KINDS.
        language: one of LANGUAGES.

    Raises:
        BadRequest: when there is no such kind or language.
    """
    for what, one, known in (("kind", kind, KINDS), ("language", language, LANGUAGES)):
        if one not in known:
            raise BadRequest(f"captions of {what} {one!r}", "one of " + ", ".join(known))
    return KINDS.index(kind) * len(LANGUAGES) + LANGUAGES.index(language)


@dataclass(frozen=True, kw_only=True)
class CaptionNetworkConfig:
    """Shape of the network."""

    vocabulary: int  # tokens of the tokenizer, which is CLIP's
    context: int  # longest caption in tokens, start and end included
    sight_tokens: int  # tokens of a picture as CLIP shows it
    sight_width: int  # of such a token
    width: int  # of a token here
    text_depth: int  # blocks that see words alone
    joint_depth: int  # blocks that see the picture too
    heads: int  # attention heads; they divide width
    embed: int  # width of the space in which captions and pictures are compared
    sight: Sight = "patches"  # what CLIP shows of a picture
    queries: int = 0  # learned queries through which the joint half sees; 0: it sees every token of the picture
    dropout: float = 0.0  # of attention weights and residual branches, in training

    def __post_init__(self) -> None:
        sizes = (self.vocabulary, self.sight_tokens, self.sight_width, self.embed)
        require(min(sizes) >= 1, f"sizes {sizes}", "at least 1 each")
        require(self.context >= 2, f"context is {self.context}", "at least 2: start and end")
        require(self.sight in SIGHTS, f"sight {self.sight!r}", "one of " + ", ".join(SIGHTS))
        require(self.queries >= 0, f"queries is {self.queries}", "0 (none) or more")
        _ = self.text, self.joint  # they check the rest

    @property
    def text(self) -> TransformerConfig:
        """The first half."""
        return TransformerConfig(
            width=self.width, depth=self.text_depth, heads=self.heads, is_causal=True, dropout=self.dropout
        )

    @property
    def joint(self) -> TransformerConfig:
        """The second half, which sees the picture."""
        return TransformerConfig(
            width=self.width,
            depth=self.joint_depth,
            heads=self.heads,
            is_causal=True,
            dropout=self.dropout,
            context_width=self.width,
        )


@dataclass(frozen=True)
class CaptionCache:
    """Keys and values of both halves; the joint half's begin with the picture's."""

    text: KVCache
    joint: KVCache

    def reorder(self, index: Int[Tensor, " b"]) -> None:
        """Let every row go on from a row of its choice, of the same picture."""
        self.text.reorder(index)
        self.joint.reorder(index, first=self.joint.length - self.text.length)


class Pooler(nn.Module):
    """Learned queries that gather a picture's tokens into a few of their own.

    Source: CoCa, section 3.2, "Attentional poolers".
    """

    def __init__(self, queries: int, width: int, heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.attention = Attention(width, heads, context_width=width)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: States) -> Seen:
        """Gather the tokens of every picture."""
        asked = repeat(self.queries, "m d -> b m d", b=len(tokens))
        return self.norm(self.attention(asked, context=self.attention.project_context(tokens)))


class CaptionNetwork(nn.Module):
    """Says of every token of a caption what it was likely to be, after those before it and the picture."""

    def __init__(self, config: CaptionNetworkConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.tokens = nn.Embedding(config.vocabulary, width)  # also reads tokens out
        self.kinds = nn.Embedding(len(KINDS), width)
        self.languages = nn.Embedding(len(LANGUAGES), width)
        self.places = LearnedPositions(config.context, width)
        self.text_half = Transformer(config.text)
        self.joint_half = Transformer(config.joint)
        self.sight_norm = nn.LayerNorm(config.sight_width)
        self.sight_in = nn.Linear(config.sight_width, width)
        self.sight_places = LearnedPositions(config.sight_tokens, width, std=0.02)
        self.pooler = Pooler(config.queries, width, config.heads) if config.queries else None
        self.picture_pooler = Pooler(1, width, config.heads)
        self.picture_out = nn.Linear(width, config.embed, bias=False)
        self.text_out = nn.Linear(width, config.embed, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for table in (self.tokens, self.languages):
            nn.init.normal_(table.weight, std=0.02)
        nn.init.zeros_(self.kinds.weight)  # a new kind begins as the base writes
        for out in (self.picture_out, self.text_out):
            nn.init.normal_(out.weight, std=width**-0.5)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by, at most MAX_SCALE."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def forward(self, sight: Sights, ids: Tokens, manner: Int[Tensor, " b"]) -> Float[Tensor, "b n v"]:
        """Return logits of the token after each.

        Args:
            sight: pictures as CLIP sees them.
            ids: captions from their start token on; padding comes last.
            manner: kind and language of each, from `manner_of`.

        Raises:
            BadRequest: when they do not fit the network.
        """
        return self.read_out(self.join(self.read(ids, manner), self.look(sight)))

    def look(self, sight: Sights) -> Seen:
        """Return what there is to see of pictures, as tokens of this network's width.

        Args:
            sight: pictures as CLIP sees them.

        Raises:
            BadRequest: when CLIP sees in another shape.
        """
        wanted = (self.config.sight_tokens, self.config.sight_width)
        if tuple(sight.shape[1:]) != wanted:
            raise BadRequest(f"pictures seen as {tuple(sight.shape[1:])}", f"{wanted}: tokens, width")
        return self.sight_places(self.sight_in(self.sight_norm(sight)))

    def read(self, ids: Tokens, manner: Int[Tensor, " b"], cache: KVCache | None = None) -> States:
        """Return the text half's state of every token.

        Args:
            ids: captions from their start token on; with a cache only what follows what it holds.
            manner: kind and language of each.
            cache: of the text half.

        Raises:
            BadRequest: when a caption is longer than the context.
        """
        first = 0 if cache is None else cache.length
        if first + ids.shape[1] > self.config.context:
            raise BadRequest(f"captions of {first + ids.shape[1]} tokens", f"at most {self.config.context}")
        vectors = self.places(self.tokens(ids), start=first)
        if first == 0:
            kinds, languages = manner // len(LANGUAGES), manner % len(LANGUAGES)
            begin = vectors[:, :1] + (self.kinds(kinds) + self.languages(languages))[:, None]
            vectors = torch.cat([begin, vectors[:, 1:]], dim=1)
        return self.text_half(vectors, cache=cache)

    def join(self, states: States, seen: Seen) -> States:
        """Return the joint half's state of every token.

        Args:
            states: from `read`.
            seen: from `look`.
        """
        seen = seen if self.pooler is None else self.pooler(seen)
        return self.joint_half(states, context=self.joint_half.prepare_context(seen))

    def read_out(self, states: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Read logits of the token that follows out of joint states; what no caption goes on with is forbidden."""
        logits = F.linear(states, self.tokens.weight)
        return logits.index_fill(-1, torch.tensor(UNSAID, device=logits.device), float("-inf"))

    def picture_vector(self, seen: Seen) -> Embeddings:
        """Return one unit vector a picture, from what `look` returned."""
        return F.normalize(self.picture_out(self.picture_pooler(seen)[:, 0]), dim=-1)

    def text_vector(self, states: States, mask: Mask) -> Embeddings:
        """Return one unit vector a caption, from its end token's state.

        Args:
            states: from `read`.
            mask: True from start to end.
        """
        rows = torch.arange(len(states), device=states.device)
        return F.normalize(self.text_out(states[rows, mask.sum(dim=1) - 1]), dim=-1)

    def new_cache(self, seen: Seen) -> CaptionCache:
        """Make a cache for the captions of pictures, and put these into it.

        Args:
            seen: from `look`, one row a caption.
        """
        seen = seen if self.pooler is None else self.pooler(seen)
        context = self.config.context
        joint = self.joint_half.new_cache(len(seen), seen.shape[1] + context)
        self.joint_half.prepare_context(seen).fill(joint)
        return CaptionCache(text=self.text_half.new_cache(len(seen), context), joint=joint)

    def advance(self, ids: Tokens, manner: Int[Tensor, " b"], cache: CaptionCache) -> Float[Tensor, "b v"]:
        """Take in the tokens that follow; return logits of the one after the last.

        Args:
            ids: one or more, after those in the cache; the very first is the start token.
            manner: kind and language of each caption.
            cache: from `new_cache`.
        """
        states = self.joint_half(self.read(ids, manner, cache.text), cache=cache.joint)
        return self.read_out(states[:, -1])


CAPTIONER_PRESETS: Mapping[str, CaptionNetworkConfig] = MappingProxyType(
    {
        "emoji": CaptionNetworkConfig(
            vocabulary=12_288,
            context=64,
            sight_tokens=16,
            sight_width=256,
            width=128,
            text_depth=3,
            joint_depth=3,
            heads=4,
            embed=128,
        ),
        # Behind OpenAI's ViT-L/14 at 224 px: 256 patches and the class token.
        "small": CaptionNetworkConfig(
            vocabulary=49_408,
            context=128,
            sight_tokens=257,
            sight_width=1_024,
            width=512,
            text_depth=6,
            joint_depth=6,
            heads=8,
            embed=512,
            queries=64,
        ),
        # The paper tells no size; this is CoCa-Base's decoder: 12 + 12 layers of 768, 256 queries.
        "paper-like": CaptionNetworkConfig(
            vocabulary=49_408,
            context=256,
            sight_tokens=257,
            sight_width=1_024,
            width=768,
            text_depth=12,
            joint_depth=12,
            heads=12,
            embed=768,
            queries=256,
        ),
    }
)
