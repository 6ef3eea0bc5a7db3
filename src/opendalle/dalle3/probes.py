"""What a study may ask of a DALL·E 3 besides pictures: captions of pictures, how well it denoises them, embeddings."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from opendalle.base.axes import Embeddings, Pictures
from opendalle.base.errors import BadRequest
from opendalle.base.request import Request
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.clip.embedder import ClipEmbedder
from opendalle.dalle3.captioner import Caption
from opendalle.dalle3.cascade import Cascade
from opendalle.dalle3.parts import Dalle3Parts
from opendalle.diffusion.grids import strided
from opendalle.diffusion.process import q_sample
from opendalle.pictures import AnyPicture, PictureOrText, take, take_or_text

LEVELS = 10  # noise levels on which a loss is measured, evenly spread
LONGEST_KIND = ("descriptive", "short", "original")  # of caption, that which says most first


class Probes:
    """Meeting point 5 for DALL·E 3: `caption`, `denoise_loss`, and with a CLIP `embed` and `encode_text`."""

    parts: Dalle3Parts
    cascade: Cascade

    def caption(self, picture: AnyPicture, *, kind: str = "", language: str = "en") -> Caption:
        """Say what a picture shows.

        Args:
            picture: of any size and shape.
            kind: original, short or descriptive; "": the longest that the captioner writes.
            language: en or zh.

        Raises:
            BadPicture: when the picture cannot be read.
            BadRequest: when the model has no captioner, or it does not write so.
        """
        given = take(picture)
        if self.parts.captioner is None:
            raise BadRequest("a model without a captioner", "one that has it, or words of your own")
        captioner = self.parts.captioner()
        kind = kind or next(one for one in LONGEST_KIND if one in captioner.networks)
        values = torch.from_numpy(given.square(captioner.picture_size, captioner.picture_channels))[None]
        (caption,) = captioner.caption_many(values.to(self.cascade.device), kind=kind, language=language)
        return caption

    @torch.no_grad()
    def denoise_loss(
        self, captions: Sequence[str], pictures: Pictures | Sequence[AnyPicture], seeds: Sequence[int] | None = None
    ) -> Float[Tensor, " b"]:
        """Return the mean squared error of the noise that the model finds in captioned pictures, guidance off.

        Args:
            captions: one a picture.
            pictures: of any size and shape, fitted into a square; or a tensor of the codec's size, in [-1, 1].
            seeds: of each picture's noise; None: 0 for all, so that captions of one picture can be compared.

        Raises:
            BadPicture: when a picture cannot be read.
            BadRequest: when there is not one caption and one seed a picture.
        """
        seeds = [0] * len(captions) if seeds is None else seeds
        if not len(captions) == len(pictures) == len(seeds):
            came = f"{len(captions)} captions, {len(pictures)} pictures, {len(seeds)} seeds"
            raise BadRequest(came, "one caption and one seed a picture")
        cascade, codec = self.cascade, self.parts.codec
        if not isinstance(pictures, Tensor):
            arrays = [take(one).square(codec.picture_size, codec.picture_channels) for one in pictures]
            pictures = torch.stack([torch.from_numpy(one) for one in arrays])
        grid = codec.encode(pictures.to(cascade.device))
        denoise = cascade.denoiser(cascade.read(captions), Request(guidance=1.0), clips=False)
        generators = [picture_generator(seed) for seed in seeds]
        total = grid.new_zeros(len(grid))
        for step in strided(cascade.schedule.num_steps, LEVELS):
            t = torch.full((len(grid),), step, device=grid.device)
            eps = normal_like_rows(generators, grid.shape[1:], grid.device)
            found = denoise(q_sample(grid, t, eps, cascade.schedule), t).eps
            total += (found - eps).square().flatten(1).mean(1)
        return total / LEVELS

    @torch.no_grad()
    def embed(self, what: PictureOrText | Pictures) -> Embeddings:
        """Return the embedding that its CLIP makes of a picture or a text, one row.

        Args:
            what: a picture, or a text, as `pictures.take_or_text` tells them apart; or many square pictures.

        Raises:
            BadPicture: when the picture cannot be read.
            BadRequest: when the model has no CLIP.
        """
        clip = self._clip()
        if isinstance(what, Tensor):
            return clip.pictures(what.to(self.cascade.device))
        taken = take_or_text(what)
        if isinstance(taken, str):
            return clip.texts([taken])
        config = clip.clip.config
        values = torch.from_numpy(taken.square(config.size, config.channels))[None]
        return clip.pictures(values.to(self.cascade.device))

    def encode_text(self, captions: Sequence[str]) -> Embeddings:
        """Return the embeddings that its CLIP makes of captions, one row each.

        Args:
            captions: in any language.

        Raises:
            BadRequest: when the model has no CLIP.
        """
        return self._clip().texts(captions)

    def _clip(self) -> ClipEmbedder:
        if self.parts.clip is None:
            raise BadRequest("a model without CLIP", "one that has it, to embed with")
        return self.parts.clip()
