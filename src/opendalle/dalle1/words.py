"""A picture's words as the pipeline uses them: out of pictures, back into them, and which are best."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from opendalle.base.axes import Mask, Pictures, Tokens
from opendalle.base.errors import BadRequest
from opendalle.base.protocols import PairLikelihood
from opendalle.base.request import Request
from opendalle.clip.embedder import ClipEmbedder
from opendalle.clip.rerank import rerank
from opendalle.dalle1.drawing import (
    Wish,
    empty_text,
    log_likelihood,
    read_captions,
    text_log_likelihood,
)
from opendalle.dalle1.parts import Dalle1Config, Dalle1Parts
from opendalle.pictures import Given
from opendalle.samplers import TokenOptions
from opendalle.upsampling.cascade import UpsamplerStage, enlarged
from opendalle.upsampling.network import native_sides
from opendalle.upsampling.settings import chained


class Words:
    """The networks of a DALL·E 1, each with its settings.

    Args:
        parts: the networks, in evaluation mode.
        config: how they draw.
    """

    def __init__(self, parts: Dalle1Parts, config: Dalle1Config) -> None:
        self.parts, self.config = parts, config
        self.device = parts.transformer.text.weight.device

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the square pictures that it draws natively, smallest first."""
        return native_sides(self.parts.codec.picture_size, self.parts.upsampler)

    @property
    def stages(self) -> tuple[UpsamplerStage, ...]:
        """The upsamplers, each with how it was trained and how it is sampled, from the smallest pictures on."""
        parts, config = self.parts, self.config
        links = (parts.upsampler, config.upsampler), (parts.upscaler, config.upscaler)
        return chained(parts.codec.picture_size, *links)

    def read(self, prompts: Sequence[str]) -> Int[Tensor, "b t"]:
        """Read captions; the empty one is what guidance pushes away from."""
        return read_captions(self.parts.tokenizer, prompts, self.parts.transformer)

    def wish(self, request: Request, prompts: Sequence[str]) -> Wish:
        """Return how words are to be drawn for captions.

        Args:
            request: guidance, temperature, top_k, top_p, lookahead.
            prompts: one a row; from an empty one there is nothing to push towards.
        """
        config = self.config

        def asked(name: str) -> float:
            value = getattr(request, name)
            return getattr(config, name) if value is None else value

        scale = torch.full((len(prompts),), float(asked("guidance")), device=self.device)
        scale[[row for row, prompt in enumerate(prompts) if not prompt]] = 1.0
        options = TokenOptions(
            temperature=asked("temperature"), top_k=int(asked("top_k")) or None, top_p=asked("top_p")
        )
        return Wish(guidance=scale, options=options, lookahead=request.lookahead)

    def encode(self, pictures: Pictures) -> Int[Tensor, "b n"]:
        """Turn pictures of the codec's size into words in raster order."""
        return self.parts.codec.encode_tokens(pictures.to(self.device)).flatten(1)

    def decode(self, tokens: Int[Tensor, "b n"]) -> Pictures:
        """Turn words in raster order into pictures."""
        config = self.parts.transformer.config
        return self.parts.codec.decode_tokens(tokens.unflatten(1, (config.grid_height, config.grid_width)))

    def half_drawn(self, tokens: Int[Tensor, "b n"]) -> Pictures:
        """Show words so far; where nothing is drawn yet, there is nothing (white, without transparency).

        Args:
            tokens: the first words of pictures.
        """
        config, factor, number = self.parts.transformer.config, self.parts.codec.factor, tokens.shape[1]
        rest = self._blank[number:].expand(len(tokens), -1)
        pictures = self.decode(torch.cat([tokens, rest], dim=1))
        cells = torch.arange(config.num_cells, device=self.device) < number
        drawn = cells.view(config.grid_height, config.grid_width).repeat_interleave(factor, 0)
        return torch.where(drawn.repeat_interleave(factor, 1), pictures, self._nothing)

    def upsample(self, small: Pictures, side: int, generators: Sequence[Generator]) -> Float[Tensor, "b c h2 w2"]:
        """Enlarge pictures with the upsampler, if they are smaller than asked.

        Args:
            small: as the codec draws them.
            side: wanted, in pixels.
            generators: one a picture.
        """
        return small if small.shape[-1] >= side else enlarged(small, (side, side), self.stages, generators)

    def likelihood(self, prompts: Sequence[str], tokens: Int[Tensor, "b n"]) -> PairLikelihood:
        """Return how likely pairs of caption and picture are.

        Args:
            prompts: captions.
            tokens: words of the pictures.
        """
        return PairLikelihood(
            text=text_log_likelihood(self.parts.transformer, self.read(prompts)).sum(dim=1),
            picture=self._said(prompts, tokens),
        )

    def rank_of(self, request: Request) -> str:
        """Return what chooses among candidates.

        Args:
            request: rank, or none: the model's own, as far as it has the networks for it.

        Raises:
            BadRequest: when CLIP is asked for and there is none.
        """
        if request.rank == "clip" and self.parts.clip is None:
            raise BadRequest("rank is 'clip', of a model without CLIP", "likelihood or gain")
        own = "likelihood" if self.config.rank == "clip" and self.parts.clip is None else self.config.rank
        return request.rank or own

    def best(self, rank: str, prompt: str, tokens: Int[Tensor, "b n"]) -> int:
        """Choose among candidates of one picture.

        Args:
            rank: from `rank_of`; of the empty caption it is always the likelihood.
            prompt: their caption.
            tokens: their words.

        Source: arXiv:2102.12092, section 2.6, for CLIP; what the caption adds is the log of p(caption | picture) but
            for what all candidates share.
        """
        if len(tokens) == 1:
            return 0
        if rank == "clip" and prompt and self.parts.clip is not None:
            return rerank(self.parts.clip, self.as_clip_sees(self.decode(tokens)), *self.as_clip_reads(prompt)).best
        said = self._said([prompt] * len(tokens), tokens)
        if rank == "gain" and prompt:
            said = said - self._said(None, tokens)
        return int(said.argmax())

    def scores(self, prompts: Sequence[str], tokens: Int[Tensor, "b n"]) -> Mapping[str, Float[Tensor, " b"]]:
        """Return all that candidates can be chosen by: what `best` compares, under the names of `Request.rank`.

        Args:
            prompts: captions, one a candidate.
            tokens: words of the pictures.
        """
        clip, said = self.parts.clip, self._said(prompts, tokens)
        found = {"likelihood": said, "gain": said - self._said(None, tokens)}
        if clip is not None:
            texts = clip.encode_text(*self.as_clip_reads(*prompts)).pooled
            found["clip"] = (clip.encode_pictures(self.as_clip_sees(self.decode(tokens))) * texts).sum(dim=1)
        return found

    def _said(self, prompts: Sequence[str] | None, tokens: Int[Tensor, "b n"]) -> Float[Tensor, " b"]:
        """Return the log-probability of pictures after captions, or after none."""
        network = self.parts.transformer
        text = empty_text(network, len(tokens)) if prompts is None else self.read(prompts)
        return log_likelihood(network, text, tokens).sum(dim=1)

    def as_codec_sees(self, given: Given) -> Pictures:
        """Fit a picture into the codec's square.

        Args:
            given: of any size and shape.
        """
        codec = self.parts.codec
        return torch.from_numpy(given.square(codec.picture_size, codec.picture_channels))[None].to(self.device)

    def as_clip_reads(self, *captions: str) -> tuple[Tokens, Mask]:
        """Spell captions for CLIP, one row each; True where a token is real.

        Args:
            *captions: any.
        """
        return self._embedder.spell(captions)

    def as_clip_sees(self, pictures: Pictures) -> Float[Tensor, "b c2 h2 w2"]:
        """Fit the codec's pictures to CLIP's size and channels.

        Args:
            pictures: in [-1, 1].
        """
        return self._embedder.fit(pictures)

    @cached_property
    def _embedder(self) -> ClipEmbedder:
        assert self.parts.clip is not None
        return ClipEmbedder(self.parts.clip, self.parts.tokenizer)

    @property
    def _nothing(self) -> float:
        """The value of a pixel that is not drawn: transparent, or white."""
        return -1.0 if self.parts.codec.picture_channels == 4 else 1.0

    @cached_property
    @torch.no_grad()
    def _blank(self) -> Int[Tensor, " n"]:
        """The words of a picture with nothing on it."""
        codec = self.parts.codec
        shape = (1, codec.picture_channels, codec.picture_size, codec.picture_size)
        return self.encode(torch.full(shape, self._nothing))[0]
