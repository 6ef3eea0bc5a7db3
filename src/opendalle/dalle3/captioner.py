"""The captioner: writes what a picture shows, in a kind and a language that are asked for.

It looks through a frozen CLIP, so what CLIP does not see is not told; the paper's three weaknesses (where things are,
what is written, rare names) begin there.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, sections 2 and 5.  How captions are
    decoded is not told there.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from opendalle.base.axes import Pictures, Tokens
from opendalle.base.errors import BadRequest, require
from opendalle.base.rng import picture_generator
from opendalle.clip.model import CLIP
from opendalle.dalle3.caption_network import KINDS, CaptionCache, CaptionNetwork, Seen, manner_of
from opendalle.dalle3.sight import see
from opendalle.samplers.autoregressive import TokenOptions, sample_tokens
from opendalle.samplers.beam import BeamOptions, beam_search
from opendalle.tokenizers.bpe import BytePairTokenizer

AT_ONCE = 64  # pictures captioned together; more are taken in pieces
TORN = "\ufffd"  # stands where a caption was cut within a character


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How a caption is found."""

    method: Literal["beam", "nucleus"] = "beam"  # beam: the likeliest; nucleus: drawn by chance from the likely ones
    beam: BeamOptions = field(default_factory=BeamOptions)  # of the search
    nucleus: TokenOptions = field(default_factory=lambda: TokenOptions(top_p=0.9))  # how boldly it is drawn
    longest: int | None = None  # tokens, the end included; None: as many as the network has places

    def __post_init__(self) -> None:
        require(self.method in ("beam", "nucleus"), f"method {self.method!r}", "beam or nucleus")
        require(self.longest is None or self.longest >= 1, f"longest is {self.longest}", "at least 1, or None")


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    """What a captioner's folder says of it besides its weights."""

    parts: Mapping[str, str]  # kind of caption -> part that writes it; one part may write several kinds
    decoding: DecodingConfig = field(default_factory=DecodingConfig)  # how captions are found

    def __post_init__(self) -> None:
        fits = isinstance(self.parts, Mapping) and set(self.parts) <= set(KINDS) and len(self.parts) > 0
        require(
            fits and all(isinstance(part, str) for part in self.parts.values()),
            f"parts {self.parts}",
            "a part for each of some kinds: " + ", ".join(KINDS),
        )


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What was written of one picture."""

    text: str  # lower case, as the tokenizer reads
    log_likelihood: float  # of all its tokens and its end after the picture, in nats
    tokens: tuple[int, ...]  # without start and end
    finished: bool  # whether it came to its end; if not, it was cut


class Captioner:
    """A captioner with the CLIP through which it sees.

    Args:
        networks: kind of caption -> network that writes it, in evaluation mode; one network may write several.
        clip: frozen.
        tokenizer: of that CLIP.
        decoding: how captions are found when nobody says otherwise.

    Raises:
        BadConfig: when they do not fit each other.
    """

    def __init__(
        self,
        networks: Mapping[str, CaptionNetwork],
        clip: CLIP,
        tokenizer: BytePairTokenizer,
        decoding: DecodingConfig | None = None,
    ) -> None:
        require(
            set(networks) <= set(KINDS) and len(networks) > 0, f"kinds {sorted(networks)}", "of " + ", ".join(KINDS)
        )
        for network in networks.values():
            known = network.config.vocabulary
            require(tokenizer.vocab_size <= known, f"a tokenizer of {tokenizer.vocab_size} tokens", f"at most {known}")
        self.networks, self.clip, self.tokenizer = dict(networks), clip, tokenizer
        self.decoding = decoding or DecodingConfig()

    @property
    def picture_size(self) -> int:
        """Side of the pictures that it reads, in pixels."""
        return self.clip.config.size

    @property
    def picture_channels(self) -> int:
        """3 for RGB, 4 for RGBA with premultiplied colour."""
        return self.clip.config.channels

    @torch.no_grad()
    def caption_many(
        self,
        pictures: Pictures,
        *,
        kind: str = "descriptive",
        language: str = "en",
        decoding: DecodingConfig | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Caption]:
        """Write one caption a picture; what is written of a picture does not hang on its neighbours.

        Args:
            pictures: any number, at `picture_size`, values in [-1, 1]; RGBA is premultiplied.
            kind: original, short or descriptive.
            language: en or zh.
            decoding: how it is found; None: the captioner's own way.
            seeds: chance of each picture, for nucleus; None: 0 for all.

        Raises:
            BadRequest: when no network here writes this kind, the pictures do not fit, or there is not one seed a
                picture.
        """
        manner, network, decoding = manner_of(kind, language), self._network(kind), decoding or self.decoding
        seeds = [0] * len(pictures) if seeds is None else list(seeds)
        if len(seeds) != len(pictures):
            raise BadRequest(f"{len(seeds)} seeds", f"{len(pictures)}, one a picture")
        captions: list[Caption] = []
        for first in range(0, len(pictures), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            seen = self._look(network, pictures[some])
            captions += self._decode(network, seen, manner, decoding, seeds[some])
        return captions

    @torch.no_grad()
    def log_likelihood(
        self, pictures: Pictures, captions: Sequence[str], *, kind: str = "descriptive", language: str = "en"
    ) -> Float[Tensor, " b"]:
        """Return how likely it is that given captions are written, ends included, in nats.

        Args:
            pictures: as `caption_many` takes them.
            captions: one a picture; one that is longer than the network's context counts as far as that reaches.
            kind: the manner in which they would be written.
            language: as kind.

        Raises:
            BadRequest: when there is not one caption a picture, or as `caption_many`.
        """
        manner, network = manner_of(kind, language), self._network(kind)
        if len(captions) != len(pictures):
            raise BadRequest(f"{len(captions)} captions", f"{len(pictures)}, one a picture")
        packed = self.tokenizer.pack(captions, network.config.context)
        ids, mask = (torch.from_numpy(one).to(pictures.device) for one in packed)
        said = [pictures.new_zeros(0)]
        for some in torch.arange(len(pictures)).split(AT_ONCE):
            seen = self._look(network, pictures[some])
            said.append(log_likelihood(network, seen, ids[some], mask[some].sum(dim=1), manner))
        return torch.cat(said)

    def _look(self, network: CaptionNetwork, pictures: Pictures) -> Seen:
        return network.look(see(self.clip, pictures, network.config.sight))

    def _network(self, kind: str) -> CaptionNetwork:
        if kind not in self.networks:
            raise BadRequest(f"{kind} captions", "a kind that this captioner writes: " + ", ".join(self.networks))
        return self.networks[kind]

    def _decode(
        self, network: CaptionNetwork, seen: Seen, manner: int, decoding: DecodingConfig, seeds: Sequence[int]
    ) -> list[Caption]:
        longest = network.config.context - 1  # its end needs no place: nothing is read after it
        longest = min(longest, decoding.longest or longest)
        start = torch.full((len(seen), 1), self.tokenizer.start, device=seen.device)
        if decoding.method == "nucleus":
            return self._drawn(network, seen, manner, longest, decoding.nucleus, seeds, start)
        following = NextCaptionToken(network, seen.repeat_interleave(decoding.beam.beams, dim=0), manner)
        states = beam_search(
            following, start, longest, end=self.tokenizer.end, options=decoding.beam, cache=following.new_cache()
        )
        (found,) = deque(states, maxlen=1)
        rows = zip(found.tokens[:, 1:], found.length, found.finished, found.log_likelihood, strict=True)
        return [
            self._written(row[: int(length) - bool(ends)], float(likely), finished=bool(ends))
            for row, length, ends, likely in rows
        ]

    def _drawn(
        self,
        network: CaptionNetwork,
        seen: Seen,
        manner: int,
        longest: int,
        options: TokenOptions,
        seeds: Sequence[int],
        start: Tokens,
    ) -> list[Caption]:
        following, end = NextCaptionToken(network, seen, manner), self.tokenizer.end
        generators = [picture_generator(seed) for seed in seeds]
        tokens = start
        for state in sample_tokens(
            following, start, longest, generators=generators, options=options, cache=following.new_cache()
        ):
            tokens = state.tokens
            if bool((tokens == end).any(dim=1).all()):
                break
        ends = (tokens == end).any(dim=1)
        length = torch.where(ends, (tokens == end).long().argmax(dim=1) + 1, tokens.shape[1])  # the start included
        likely = log_likelihood(network, seen, tokens, length, manner)
        rows = zip(tokens, length, ends, likely, strict=True)
        return [
            self._written(row[1 : int(size) - bool(ended)], float(one), finished=bool(ended))
            for row, size, ended, one in rows
        ]

    def _written(self, tokens: Int[Tensor, " n"], log_likelihood: float, *, finished: bool) -> Caption:
        ids = tuple(tokens.tolist())
        said = self.tokenizer.decode(one for one in ids if one < self.tokenizer.vocab_size)
        text = said.replace(TORN, "").strip()
        return Caption(text=text, log_likelihood=log_likelihood, tokens=ids, finished=finished)


class NextCaptionToken:
    """A network that has its pictures and its manner: `next_logits` over caption tokens.

    Args:
        network: in evaluation mode.
        seen: pictures, from `CaptionNetwork.look`, one row a caption.
        manner: kind and language.
    """

    def __init__(self, network: CaptionNetwork, seen: Seen, manner: int) -> None:
        self.network, self.seen = network, seen
        self.manner = torch.full((len(seen),), manner, device=seen.device)

    def new_cache(self) -> CaptionCache:
        """Make a cache that holds the pictures and has room for whole captions."""
        return self.network.new_cache(self.seen)

    def __call__(self, tokens: Int[Tensor, "b n"], cache: CaptionCache | None) -> Float[Tensor, "b v"]:
        """Return logits of the token after these.

        Args:
            tokens: from the start token on.
            cache: from `new_cache`; None: everything is computed anew.
        """
        if cache is not None:
            return self.network.advance(tokens[:, cache.text.length :], self.manner, cache)
        states = self.network.join(self.network.read(tokens, self.manner), self.seen)
        return self.network.read_out(states[:, -1])


def log_likelihood(
    network: CaptionNetwork, seen: Seen, ids: Tokens, length: Int[Tensor, " b"], manner: int
) -> Float[Tensor, " b"]:
    """Return the log-likelihood of captions after pictures, in nats, in one pass.

    Args:
        network: in evaluation mode.
        seen: from `CaptionNetwork.look`.
        ids: from the start token on.
        length: tokens of each that count, the start among them.
        manner: kind and language of all.
    """
    longest = int(length.amax()) if len(length) else 1
    ids = ids[:, :longest]
    manners = torch.full((len(ids),), manner, device=ids.device)
    states = network.join(network.read(ids[:, :-1], manners), seen)
    place = torch.arange(1, longest, device=ids.device)
    counts = place < length[:, None]
    said = network.read_out(states[counts]).float().log_softmax(dim=-1)
    picked = said.gather(-1, ids[:, 1:][counts][:, None])[:, 0]
    return picked.new_zeros(counts.shape).masked_scatter(counts, picked).sum(dim=1)
