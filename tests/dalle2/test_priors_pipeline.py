"""A whole DALL·E 2 with other priors than its own: which of them imagines, and what the decoder then sees."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from opendalle.base.errors import BadRequest
from opendalle.base.request import PRIORS, Request
from opendalle.base.rng import picture_generator
from opendalle.dalle2.pipeline import Dalle2
from opendalle.dalle2.priors.linear import LinearPrior, LinearPriorConfig
from opendalle.dalle2.priors.untrained import ShiftedText, ShiftedTextConfig

ASKED = {"width": 64, "height": 64, "seed": 3}


@pytest.fixture
def other(dalle: Dalle2) -> Dalle2:
    """The same model, with a matrix and a shift beside its own prior."""
    torch.manual_seed(1)
    width = dalle.parts.prior.config.embedding_width
    shift = ShiftedText(ShiftedTextConfig(embedding_width=width))
    shift.gap.normal_()
    matrix = LinearPrior(LinearPriorConfig(embedding_width=width)).eval().requires_grad_(False)
    parts = dataclasses.replace(dalle.parts, priors={"linear": matrix, "none-shifted": shift})
    return Dalle2(parts, dalle.config, dict(dalle.origin))


def drawn(dalle: Dalle2, **asked: object) -> bytes:
    (sample,) = dalle.generate("a red apple", **ASKED, **asked)
    assert sample.recipe["request"]["prior"] == asked.get("prior")
    return sample.picture.tobytes()


def test_every_name_that_can_be_asked_draws_its_own_picture(other: Dalle2) -> None:
    own = drawn(other)
    assert own == drawn(other, prior="diffusion")
    named = {name: drawn(other, prior=name) for name in sorted(other.cascade.priors)}
    assert set(named) < set(PRIORS)
    assert len(set(named.values())) == len(named) == 5


def test_what_each_prior_hands_to_the_decoder(other: Dalle2) -> None:
    cascade = other.cascade
    said, empty = cascade.read(["a red apple", ""]), cascade.read(["", ""])

    def imagined(name: str) -> torch.Tensor | None:
        rows = [picture_generator(0), picture_generator(1)]
        return cascade.imagine(said, empty, rows, Request(prompt="a red apple", prior=name))

    pooled = cascade.pooled(said)
    torch.testing.assert_close(imagined("none"), F.normalize(pooled, dim=-1))
    shifted, linear = other.parts.priors["none-shifted"], other.parts.priors["linear"]
    assert isinstance(shifted, ShiftedText)
    assert isinstance(linear, LinearPrior)
    torch.testing.assert_close(imagined("none-shifted"), F.normalize(pooled + shifted.gap, dim=-1))
    torch.testing.assert_close(imagined("linear"), F.normalize(linear(pooled), dim=-1))
    assert imagined("caption") is None


def test_the_caption_alone_is_the_decoders_null_embedding(dalle: Dalle2) -> None:
    cascade, request = dalle.cascade, Request(prompt="a red apple")
    said, empty = cascade.read(["a red apple"]), cascade.read([""])
    found = cascade.denoiser(None, said, empty, request, doubt=0.0)
    no = torch.zeros(2, dtype=torch.bool)
    both = [torch.cat([one, other]) for one, other in ((said.text.states, empty.text.states), (said.mask, empty.mask))]
    pooled = torch.cat([cascade.pooled(said), cascade.pooled(empty)])
    any_z = torch.randn(2, pooled.shape[1], generator=picture_generator(9))
    wanted = dalle.parts.decoder.condition(any_z, pooled, *both, has_embedding=no)
    torch.testing.assert_close(found.conditioning["conditioning"].embedding, wanted.embedding)


def test_what_cannot_be_asked_is_refused_before_anything_is_drawn(dalle: Dalle2, other: Dalle2) -> None:
    with pytest.raises(BadRequest, match=r"the prior 'linear'.*caption, diffusion, none.*folder of priors"):
        dalle.generate("a red apple", prior="linear", **ASKED)
    with pytest.raises(BadRequest, match=r"candidates 3.*'linear'"):
        other.generate("a red apple", prior="linear", candidates=3, **ASKED)
    with pytest.raises(BadRequest, match="prior is 'dream'"):
        other.generate("a red apple", prior="dream", **ASKED)
    with pytest.raises(BadRequest, match="an embedding and the prior"):
        other.generate("a red apple", embedding=torch.zeros(1, 16), prior="none", **ASKED)


def test_a_text_to_blend_is_imagined_by_the_prior_that_is_asked_for(other: Dalle2) -> None:
    def blended(prior: str | None) -> bytes:
        (sample,) = other.blend("a red apple", "a blue car", prior=prior, steps=2, **ASKED)
        return sample.picture.tobytes()

    assert len({blended(None), blended("linear"), blended("caption")}) == 3
