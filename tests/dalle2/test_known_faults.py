"""One test for each fault of earlier replicas that this code could repeat.

Most were found by users of DALLE2-pytorch; each docstring names the issue, or says that reading the code showed it.
The tests ask the public objects what a user would have seen, so they hold whatever lies behind.
"""

import ast
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

import opendalle
from opendalle.base.errors import BadModel, BadRequest
from opendalle.base.request import Request
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.checkpoint.configs import from_plain, to_plain
from opendalle.checkpoint.folder import Part, read_model, write_model
from opendalle.clip.model import CLIP, CLIPConfig
from opendalle.dalle2.decoder import Decoder
from opendalle.dalle2.decoder_objective import DecoderLossConfig, DecoderObjective
from opendalle.dalle2.objectives import PairBatch, PriorLossConfig, PriorObjective
from opendalle.dalle2.parts import Latent
from opendalle.dalle2.pipeline import Dalle2
from opendalle.diffusion.grids import strided
from opendalle.diffusion.losses import hybrid_loss
from opendalle.diffusion.predictions import Prediction, eps_beside
from opendalle.diffusion.process import q_sample
from opendalle.diffusion.schedules import Schedule, cosine
from opendalle.pretrained.kinds import load
from opendalle.samplers.course import SamplerOptions
from opendalle.samplers.guided import Denoised, GuidedDenoise
from opendalle.samplers.sample import last_state, sample

CONTEXT, EMBED, WIDTH = 12, 16, 32
CARD = {"data": "none", "recipe": "random", "licence": "none"}
ANY = Request(prompt="a red apple")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(size: int) -> PairBatch:
    """Pairs whose captions are all of one token, told apart from the empty caption by it."""
    mask = (torch.arange(CONTEXT) < 3).expand(size, -1)
    ids = torch.tensor([1, 7, 2] + [0] * (CONTEXT - 3)).expand(size, -1)
    z = torch.nn.functional.normalize(torch.randn(size, EMBED, generator=rng()), dim=-1)
    return PairBatch(z=z, ids=ids, mask=mask, grid=torch.randn(size, 3, 1, 1, generator=rng(1)))


def nothing() -> tuple[Tensor, Tensor]:
    """The empty caption."""
    return torch.tensor([1, 2] + [0] * (CONTEXT - 2)), torch.arange(CONTEXT) < 2


def read(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A text tower that says whether a caption is there: its second token."""
    here = (ids[:, 1] == 7).float()
    return here[:, None].expand(-1, EMBED), here[:, None, None].expand(-1, ids.shape[1], WIDTH)


# ------------------------------------------------------------------------------------------------------- guidance


def test_prior_guidance_keeps_the_noised_embedding(dalle: Dalle2) -> None:
    """DALLE2-pytorch #285, #235, #47: the unconditional branch was denied x_t as well, so guidance was noise."""
    prior = dalle.parts.prior
    empty = dalle.cascade.read([""])
    conditioning = prior.condition(empty.text.pooled, empty.text.states, empty.mask)
    wrapped = GuidedDenoise(
        prior.step,
        {"conditioning": conditioning},
        {"conditioning": conditioning},
        schedule=cosine(),
        prediction="x0",
        scale=0.0,  # the unconditional answer alone
    )
    one, other = (wrapped(torch.randn(1, EMBED, generator=rng(k)), torch.tensor([300])).x0 for k in (0, 1))
    assert (one - other).abs().max() > 1e-3


def test_prior_training_drops_the_caption_alone(dalle: Dalle2) -> None:
    """DALLE2-pytorch #285: training dropped the noised embedding together with the caption."""
    seen: dict[str, Tensor] = {}

    class Spy:
        def __init__(self) -> None:
            self.normalise, self.denormalise = dalle.parts.prior.normalise, dalle.parts.prior.denormalise

        def __call__(self, x_t: Tensor, t: Tensor, pooled: Tensor, states: Tensor, mask: Tensor, guess: None) -> Tensor:
            seen.update(x_t=x_t, has_caption=pooled[:, 0] > 0)
            return torch.zeros_like(x_t)

    objective = PriorObjective(dalle.parts.prior, cosine(), read, nothing(), PriorLossConfig())
    objective.prior = Spy()  # type: ignore[assignment]
    objective(pairs(4000), rng())
    assert 0.08 < 1 - seen["has_caption"].float().mean() < 0.12
    assert (seen["x_t"].abs().sum(1) > 0).all()


def test_decoder_guidance_covers_picture_tokens_and_time_vector(dalle: Dalle2) -> None:
    """DALLE2-pytorch #144: the image's hidden states stayed in the unconditional pass; #38: what a drop means."""
    decoder, empty = dalle.parts.decoder, dalle.cascade.read(["", ""])
    assert decoder.null_embedding.abs().max() > 0
    z = torch.randn(2, EMBED, generator=rng())
    text = empty.text.pooled, empty.text.states, empty.mask
    dropped = decoder.condition(z, *text, has_embedding=torch.zeros(2, dtype=torch.bool))
    torch.testing.assert_close(dropped.embedding[0], dropped.embedding[1])  # nothing of two different z is left
    for layer in dropped.context.layers:
        torch.testing.assert_close(layer.keys[0], layer.keys[1])
        torch.testing.assert_close(layer.values[0], layer.values[1])
    kept = decoder.condition(z, *text)
    assert (kept.embedding[0] - kept.embedding[1]).abs().max() > 1e-3
    assert (kept.context.layers[0].keys[0] - kept.context.layers[0].keys[1]).abs().max() > 1e-3


def test_the_pipelines_unconditional_half_knows_nothing_of_the_prompt(
    dalle: Dalle2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DALLE2-pytorch #144, seen from outside: another prompt and embedding change the conditional half alone."""
    asked: list[Any] = []
    forward = dalle.parts.decoder.forward
    monkeypatch.setattr(
        dalle.parts.decoder,
        "forward",
        lambda x, t, conditioning: asked.append(conditioning) or forward(x, t, conditioning),
    )
    for k, prompt in enumerate(("a red apple", "a blue car")):
        z = torch.randn(1, EMBED, generator=rng(k))
        next(
            dalle.cascade.denoise(
                Latent(z), dalle.cascade.read([prompt]), dalle.cascade.read([""]), [picture_generator(0)], ANY
            )
        )
    one, other = asked
    assert (one.embedding[0] - other.embedding[0]).abs().max() > 1e-3
    torch.testing.assert_close(one.embedding[1], other.embedding[1])
    torch.testing.assert_close(one.context.layers[0].keys[1], other.context.layers[0].keys[1])


def test_guidance_one_needs_no_unconditional_half(dalle: Dalle2) -> None:
    """diffusers #4183: pipelines crashed without guidance."""
    asked = {"guidance": 1.0, "prior_guidance": 1.0, "width": 16, "height": 16}
    assert len(list(dalle.generate("a red apple", **asked))) == 1


def test_embedding_and_caption_are_dropped_independently(dalle: Dalle2) -> None:
    """DALLE2-pytorch #38, and trainers that never drop: 10 % and 50 %, and so 5 % both, as in the paper's figure 8."""
    seen: dict[str, Tensor] = {}

    class Spy:
        config = SimpleNamespace(learns_variance=False, has_known=False)

        def condition(self, *, text_embedding: Tensor, has_embedding: Tensor, **_: Tensor | None) -> None:
            seen.update(has_embedding=has_embedding, has_caption=text_embedding[:, 0] > 0)

        def __call__(self, x_t: Tensor, t: Tensor, conditioning: None) -> Tensor:
            return torch.zeros_like(x_t)

    objective = DecoderObjective(dalle.parts.decoder, cosine(), read, nothing(), DecoderLossConfig())
    objective.decoder = Spy()  # type: ignore[assignment]
    objective(pairs(8000), rng())
    no_embedding, no_caption = ~seen["has_embedding"], ~seen["has_caption"]
    assert abs(no_embedding.float().mean() - 0.10) < 0.015
    assert abs(no_caption.float().mean() - 0.50) < 0.025
    assert abs((no_embedding & no_caption).float().mean() - 0.05) < 0.01


# -------------------------------------------------------------------------------------------- embeddings and widths


def test_embeddings_are_scaled_once_there_and_once_back(dalle: Dalle2) -> None:
    """DALLE2-pytorch #60, #68, #299: the scale was wrong, or missing on one side; here it travels with the weights."""
    prior, z = dalle.parts.prior, torch.randn(500, EMBED, generator=rng())
    z = torch.nn.functional.normalize(z, dim=-1)
    assert abs(float(prior.normalise(z).std()) - 0.5375) < 0.02  # 17.2 / sqrt(1024), the spread of pixels
    torch.testing.assert_close(prior.denormalise(prior.normalise(z)), z)
    assert {"embedding_mean", "embedding_std"} <= set(prior.state_dict())


def test_drawn_embeddings_have_the_length_that_the_decoder_was_trained_on(dalle: Dalle2) -> None:
    """DALLE2-pytorch #68, #299; open_clip #68, clip-retrieval #290: unit and raw vectors were mixed up."""
    rows = dalle.cascade.read(["a red apple"]), dalle.cascade.read([""])
    drawn = dalle.cascade.imagine(*rows, [picture_generator(0)], ANY)
    torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(1))
    raw = Dalle2(dalle.parts, replace(dalle.config, unit_embeddings=False, candidates=1))
    assert abs(float(raw.cascade.imagine(*rows, [picture_generator(0)], ANY).norm()) - 1) > 1e-3


def test_nothing_is_scaled_in_the_callers_hands(dalle: Dalle2) -> None:
    """Seen in DALLE2-pytorch's prior: forward multiplied the caller's embeddings in place."""
    batch = pairs(6)
    kept = [one.clone() for one in (batch.z, batch.ids, batch.mask, batch.grid)]
    PriorObjective(dalle.parts.prior, cosine(), read, nothing(), PriorLossConfig())(batch, rng())
    noisy = DecoderLossConfig(prediction="v", embedding_noise=0.3)
    DecoderObjective(dalle.parts.decoder, cosine(), read, nothing(), noisy)(batch, rng())
    prompted = dalle.cascade.read(["a red apple"])
    said = prompted.text.pooled.clone(), prompted.text.states.clone()
    z = batch.z[:1]
    last_state(dalle.cascade.denoise(Latent(z), prompted, dalle.cascade.read([""]), [picture_generator(0)], ANY))
    assert all(torch.equal(*both) for both in zip((batch.z, batch.ids, batch.mask, batch.grid), kept, strict=True))
    assert torch.equal(prompted.text.pooled, said[0])
    assert torch.equal(prompted.text.states, said[1])


def test_picture_tokens_are_projected_when_widths_are_equal(dalle: Dalle2) -> None:
    """Seen in DALLE2-pytorch: with cond_dim equal to the embedding's width the four tokens became one, unprojected."""
    config = dalle.parts.decoder.config
    equal = replace(config, embedding_width=WIDTH, text_embedding_width=WIDTH)
    assert equal.embedding_width == equal.unet.context_width
    decoder = Decoder(equal)
    assert decoder.picture_to_tokens.weight.shape == (4 * WIDTH, WIDTH)
    states = torch.randn(1, CONTEXT, WIDTH)
    read_by = decoder.condition(torch.randn(1, WIDTH), torch.randn(1, WIDTH), states)
    assert read_by.context.layers[0].keys.shape[2] == 4 + CONTEXT
    assert not torch.equal(read_by.context.layers[0].keys[:, :, 0], read_by.context.layers[0].keys[:, :, 1])


def test_the_embeddings_width_is_the_joint_one_not_a_towers(dalle: Dalle2) -> None:
    """Seen in DALLE2-pytorch: the width came from the text tower, wrong where it is not the joint one (RN50)."""
    clip = dalle.parts.clip
    uneven = CLIP(replace(clip.config, picture_width=48, picture_heads=2))
    widths = {uneven.config.text_width, uneven.config.picture_width, uneven.config.embed}
    assert len(widths) == 3
    z = uneven.encode_pictures(torch.zeros(1, 4, 16, 16))
    pooled = uneven.encode_text(torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)).pooled
    assert z.shape == pooled.shape == (1, uneven.config.embed)
    assert dalle.parts.prior.config.embedding_width == uneven.config.embed
    dalle.parts.prior.normalise(z)


def test_token_states_and_pooled_embeddings_are_not_taken_for_each_other(dalle: Dalle2) -> None:
    """DALLE2-pytorch #241: text embeddings were passed where token encodings belong, and nothing said so."""
    prompted = dalle.cascade.read(["a red apple"])
    pooled, states, mask = prompted.text.pooled, prompted.text.states, prompted.mask
    z, t = torch.randn(1, EMBED), torch.tensor([5])
    wrong = (BadRequest, TypeCheckError, RuntimeError)
    with pytest.raises(wrong):
        dalle.parts.prior(z, t, pooled, pooled[:, None], mask)
    with pytest.raises(wrong):
        dalle.parts.prior(z, t, states[:, 0], states, mask)
    with pytest.raises(wrong):
        dalle.parts.decoder.condition(z, states[:, 0], states, mask)
    with pytest.raises(wrong):
        dalle.parts.decoder.condition(z, pooled, pooled[:, None], mask)


def test_captions_of_any_length_fit_the_context(dalle: Dalle2) -> None:
    """DALLE2-pytorch #246, #278: the adapters' token length was fixed, and long captions crashed."""
    longest = dalle.cascade.read(["a red apple " * 200, "", "红苹果"])
    assert longest.mask.shape[1] <= CONTEXT
    assert longest.mask[0].sum() == CONTEXT
    dalle.cascade.imagine(longest, dalle.cascade.read([""] * 3), [picture_generator(k) for k in range(3)], ANY)


# ---------------------------------------------------------------------------------------------- variance and samplers


@pytest.mark.parametrize("wild", [-1e6, -30.0, 30.0, 1e6])
def test_a_learned_variance_stays_finite(wild: float) -> None:
    """DALLE2-pytorch #138, #135, #311: the learned variance went NaN; the advice was to switch it off."""
    schedule, shape = cosine(), (4, 3, 4, 4)
    x0, eps = torch.rand(shape, generator=rng()) * 2 - 1, torch.randn(shape, generator=rng(1))
    t = torch.tensor([0, 1, 500, 999])
    output = torch.cat([eps, torch.full(shape, wild)], dim=1).requires_grad_()
    loss = hybrid_loss("eps", output, x0, eps, q_sample(x0, t, eps, schedule), t, schedule).total.mean()
    loss.backward()
    assert loss.isfinite()
    assert output.grad is not None
    assert output.grad.isfinite().all()
    grid = strided(1000, 4)
    walk = sample(
        GuidedDenoise(
            lambda x, t: torch.cat([x, torch.full_like(x, wild)], 1),
            {},
            schedule=schedule,
            clip=(-1.0, 1.0),
            learned_variance=True,
            grid=grid,
        ),
        torch.randn(shape, generator=rng(2)),
        grid,
        schedule=schedule,
        sampler="ddpm",
        options=SamplerOptions(variance="learned"),
        generators=[picture_generator(k) for k in range(4)],
    )
    assert all(state.x_t.isfinite().all() for state in walk)


def knowing(x0: Tensor, schedule: Schedule) -> Any:
    """A network that knows the answer."""

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        return Denoised(x0.expand_as(x_t), eps_beside(x0.expand_as(x_t), x_t, t, schedule))

    return denoise


def test_ddim_ends_on_the_clean_step() -> None:
    """Seen in DALLE2-pytorch's decoder: sampling stopped at t = 0, one step before the picture was clean."""
    schedule, x0 = cosine(), torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    end = last_state(sample(knowing(x0, schedule), torch.randn(2, 3, 4, 4), strided(1000, 5), schedule=schedule))
    assert end.t == -1
    torch.testing.assert_close(end.x_t, x0.expand(2, -1, -1, -1))


def test_ddim_reads_signal_and_noise_of_the_very_step() -> None:
    """Seen in DALLE2-pytorch's prior: DDIM read a table shifted by one step."""
    schedule, grid = cosine(), strided(1000, 20)
    x0, eps = torch.randn(1, EMBED, generator=rng(1)).double(), torch.randn(1, EMBED, generator=rng(2)).double()
    start = q_sample(x0, torch.tensor([grid[0]]), eps, schedule)
    for state in sample(knowing(x0, schedule), start, grid, schedule=schedule):  # the noise never changes on the way
        torch.testing.assert_close(state.x_t, q_sample(x0, torch.tensor([state.t]), eps, schedule))


def test_eta_counts(dalle: Dalle2) -> None:
    """Seen in DALLE2-pytorch: the argument was overwritten, so DDIM drew noise whatever was asked."""
    rows = dalle.cascade.read(["a red apple"]), dalle.cascade.read([""])
    z = torch.nn.functional.normalize(torch.randn(1, EMBED, generator=rng()), dim=-1)
    noise = normal_like_rows([picture_generator(1)], (3, 8, 8))[:, :, :4, :4]
    ends = []
    for eta, seed in ((0.0, 1), (0.0, 2), (0.5, 1), (1.0, 1), (1.0, 2)):
        walk = sample(
            GuidedDenoise(
                dalle.parts.decoder,
                {"conditioning": dalle.parts.decoder.condition(z, rows[0].text.pooled, rows[0].text.states)},
                schedule=cosine(),
                prediction="v",
            ),
            noise,
            strided(1000, 4),
            schedule=cosine(),
            options=SamplerOptions(eta=eta),
            generators=[picture_generator(seed)],
        )
        ends.append(last_state(walk).x_t)
    assert torch.equal(ends[0], ends[1])  # eta 0 draws nothing
    assert not torch.equal(ends[3], ends[4])  # eta 1 does
    assert min(float((ends[2] - one).abs().max()) for one in (ends[0], ends[3])) > 1e-3


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_a_single_step_is_possible(prediction: Prediction) -> None:
    """Seen in Karlo's scheduler: a grid of one step divided by zero."""
    schedule, x = cosine(), torch.randn(1, 3, 4, 4)
    wrapped = GuidedDenoise(lambda x, t: x, {}, schedule=schedule, prediction=prediction, clip=(-1.0, 1.0))
    assert last_state(sample(wrapped, x, (999,), schedule=schedule)).x_t.isfinite().all()


# ----------------------------------------------------------------------------------------- devices, batches, folders


def test_no_device_is_written_into_the_code() -> None:
    """Seen in DALLE2-pytorch: moving networks to and fro hard-coded cuda."""
    found = []
    rooms = ("base", "clip", "codec", "dalle2", "diffusion", "nn", "pretrained", "samplers", "upsampling")
    root = Path(opendalle.__file__).parent
    for path in sorted(file for room in rooms for file in (root / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "cuda" and ast.unparse(node) != "torch.cuda":
                found.append(f"{path.name}:{node.lineno}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "to":
                found += [f"{path.name}:{one.lineno}" for one in node.args if is_text(one, "cuda")]
    assert found == []


def is_text(node: ast.expr, text: str) -> bool:
    return isinstance(node, ast.Constant) and str(node.value).startswith(text)


def test_networks_compute_where_their_weights_are(dalle: Dalle2) -> None:
    """The same, from outside: on a device that holds no numbers, nothing that was made elsewhere gets mixed in."""
    prior, decoder = dalle.parts.prior.to("meta"), dalle.parts.decoder.to("meta")
    with torch.device("meta"):
        z, pooled, states = torch.zeros(2, EMBED), torch.zeros(2, EMBED), torch.zeros(2, CONTEXT, WIDTH)
        mask, t, x = torch.ones(2, CONTEXT, dtype=torch.bool), torch.zeros(2, dtype=torch.long), torch.zeros(2, 3, 2, 2)
    assert prior.step(z, t, prior.condition(pooled, states, mask)).device.type == "meta"
    kept = torch.ones(2, dtype=torch.bool, device="meta")
    assert decoder(x, t, decoder.condition(z, pooled, states, mask, has_embedding=kept)).device.type == "meta"


def test_batch_sizes_that_do_not_divide_the_count_serve(dalle: Dalle2) -> None:
    """Seen in DALLE2-pytorch: sample_batch_size read attributes that nobody had set."""
    drawn = list(dalle.generate("a red apple", count=3, batch=2, width=16, height=16))
    assert [one.index for one in drawn] == [0, 1, 2]


def test_what_one_hand_writes_the_other_reads(dalle: Dalle2, tmp_path: Path) -> None:
    """DALLE2-pytorch #272, #229, #282: checkpoints lacked the keys that the reader wanted, or gave noise."""
    parts = (("dalle2-prior", dalle.parts.prior), ("dalle2-decoder", dalle.parts.decoder), ("clip", dalle.parts.clip))
    for kind, network in parts:
        part = Part(to_plain(network.config), network.state_dict())
        write_model(tmp_path / kind, kind=kind, parts={"network": part}, card=CARD)
        again = load(tmp_path / kind)
        assert again.config == network.config
        for name, tensor in network.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name


def test_half_a_network_is_not_loaded(dalle: Dalle2, tmp_path: Path) -> None:
    """DALLE2-pytorch #282: weights that did not fit were passed over, and the network drew noise."""
    prior = dalle.parts.prior
    state = {name: tensor for name, tensor in prior.state_dict().items() if name != "out.bias"}
    part = Part(to_plain(prior.config), state)
    write_model(tmp_path / "half", kind="dalle2-prior", parts={"network": part}, card=CARD)
    assert read_model(tmp_path / "half").kind == "dalle2-prior"
    with pytest.raises(BadModel, match=r"out\.bias"):
        load(tmp_path / "half")


def test_the_activation_travels_with_the_weights(dalle: Dalle2) -> None:
    """open_clip #915: OpenAI's weights, saved and loaded again, lost quick GELU and gave other results."""
    quick = replace(dalle.parts.clip.config, activation="quick_gelu")
    assert from_plain(CLIPConfig, to_plain(quick)).activation == "quick_gelu"
    torch.manual_seed(0)
    one, other = CLIP(quick), CLIP(replace(quick, activation="gelu"))
    other.load_state_dict(one.state_dict())
    ids, mask = torch.tensor([[1, 5, 2]]), torch.ones(1, 3, dtype=torch.bool)
    assert (one.encode_text(ids, mask).raw - other.encode_text(ids, mask).raw).abs().max() > 1e-5
