"""The priors' recipe: captions read once are those read each time, and the folder holds every prior, ready to use."""

from pathlib import Path

import pytest
import torch

from opendalle.base.errors import BadConfig, BadModel, BadRequest
from opendalle.base.rng import picture_generator
from opendalle.checkpoint.configs import from_plain
from opendalle.checkpoint.folder import Part, read_model, write_model
from opendalle.checkpoint.places import bundled_folder
from opendalle.dalle2.parts import Dalle2Config
from opendalle.dalle2.priors.protocol import Prior, Said
from opendalle.data.emoji.fixture import build_fixture
from opendalle.pretrained.kinds import PRIORS_HEAD, load, load_pipeline
from opendalle.recipes import run
from opendalle.recipes.dalle2 import dalle2
from opendalle.recipes.dalle2_folder import SIBLINGS, UPSCALER, name_sibling
from opendalle.recipes.data import PairBatches
from opendalle.recipes.places import runs_beside
from opendalle.recipes.priors import priors
from opendalle.recipes.reading import ReadCaptions
from opendalle.upsampling.settings import UpsamplerSettings

SETTINGS = {"prior": {}, "decoder": {}}


class Reader:
    """Stand in for a text tower: states are cumulated sums, so that order counts; padding would show."""

    empty = torch.tensor([1, 2, 0, 0, 0]), torch.tensor([True, True, False, False, False])
    rows = 0

    def read(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.rows += len(ids)
        states = (ids.cumsum(dim=1)[..., None] * torch.tensor([1.0, 0.5])) * mask[..., None]
        return states.sum(dim=1), states


def test_captions_read_once_are_those_read_each_time() -> None:
    length = torch.randint(1, 6, (50,), generator=picture_generator(0))
    mask = torch.arange(5) < length[:, None]
    ids = torch.randint(1, 4, (50, 5), generator=picture_generator(1)) * mask
    reader = Reader()
    again = ReadCaptions(reader, ids, mask)
    distinct = {tuple(row) for row in [*ids.tolist(), reader.empty[0].tolist()]}
    assert reader.rows == len(distinct)
    rows = torch.randperm(50, generator=picture_generator(2))[:20]
    for found, wanted in zip(again(ids[rows], mask[rows]), reader.read(ids[rows], mask[rows]), strict=True):
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(again.pooled_of(ids), reader.read(ids, mask)[0])
    empty = [one[None] for one in reader.empty]
    torch.testing.assert_close(again(*empty)[1], reader.read(*empty)[1])
    with pytest.raises(BadRequest, match="was not read"):
        again.pooled_of(torch.full((1, 5), 9))


def test_priors_want_a_clip_and_enough_pairs(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="priors without a clip"):
        priors(tmp_path, tmp_path / "out")
    with pytest.raises(BadConfig, match="pairs is 5"):
        priors(tmp_path, tmp_path / "out", pairs=5)


@pytest.mark.slow
def test_a_folder_of_priors_is_trained_scored_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = bundled_folder() / "clip-emoji"
    if not (clip / "model.json").is_file():
        pytest.skip("the bundled model is not built yet")
    world, out = tmp_path / "world", tmp_path / "priors"
    for _ in build_fixture(world):
        pass
    trained_on: set[int | None] = set()
    whole = PairBatches.__init__

    def watched(self: PairBatches, *args: object, rows: int | None = None, **named: object) -> None:
        trained_on.add(rows)
        whole(self, *args, rows=rows, **named)

    monkeypatch.setattr(PairBatches, "__init__", watched)
    few = {"projection_pictures": 128, "ar_pictures": 64, "batch_size": 16, "pairs": 160}
    codec = bundled_folder() / "codec-emoji"
    stages = {step.stage for step in run("priors", data=world, out=out, clip=clip, codec=codec, **few)}
    assert stages == {"projection", "ar"}  # the matrix takes no step
    assert trained_on == {160 - 8}
    found = load(out)
    assert sorted(found) == ["ar", "linear", "none-shifted", "projection"]
    context = 32
    said = Said(torch.eye(256)[:2], torch.zeros(2, context, 256), torch.ones(2, context, dtype=torch.bool))
    for prior in found.values():
        assert isinstance(prior, Prior)
        drawn = prior.draw(said, said, [picture_generator(0), picture_generator(1)])
        assert drawn.shape == (2, 256)
    scores = read_model(out).card["scores"]
    assert sorted(scores) == ["ar", "linear", "none", "none-shifted", "projection"]
    assert scores["linear"]["cosine"] > scores["none"]["cosine"]
    assert not runs_beside(out).joinpath("linear").exists()
    if (bundled_folder() / "dalle2-emoji/model.json").is_file():
        name_sibling(Path("dalle2"), "priors", out, tmp_path / "named")
        assert set(load(tmp_path / "named").cascade.priors) == {*found, "diffusion", "none", "caption"}
    with pytest.raises(BadModel, match="a generation such as"):
        load_pipeline(out)


def test_a_prior_of_tomorrow_and_another_clip_are_refused(tmp_path: Path) -> None:
    card = {"data": "none", "recipe": "by hand", "licence": "none"}
    clip = write_model(tmp_path / "clip", kind="clip", parts={"clip": Part({})}, card=card)
    named = {"clip": {"name": "clip", "sha256": clip.sha256}}
    parts = {PRIORS_HEAD: Part({"siblings": named}), "dream": Part({})}
    write_model(tmp_path / "odd", kind="dalle2-priors", parts=parts, card=card)
    with pytest.raises(BadModel, match=r"'dream'.*Update opendalle"):
        load(tmp_path / "odd")
    named["clip"]["sha256"] = "0" * 64
    write_model(tmp_path / "stranger", kind="dalle2-priors", parts={PRIORS_HEAD: Part({"siblings": named})}, card=card)
    with pytest.raises(BadModel, match="another clip"):
        load(tmp_path / "stranger")


def fake(folder: Path, kind: str, siblings: dict[str, Path] | None = None, head: str = "head") -> Path:
    """Write a model without networks, that names others."""
    card = {"data": "none", "recipe": "by hand", "licence": "none"}
    named = {role: {"name": one.name, "sha256": read_model(one).sha256} for role, one in (siblings or {}).items()}
    parts = {head: Part({"siblings": named, "settings": SETTINGS}), "net": Part({}, {"w": torch.eye(3)}, "int8-row")}
    write_model(folder, kind=kind, parts=parts, card=card)
    return folder


def test_a_sibling_is_added_and_no_other_byte_is_changed(tmp_path: Path) -> None:
    clip = fake(tmp_path / "clip", "clip")
    model = fake(tmp_path / "model", "dalle2", {"clip": clip}, "pipeline")
    others = fake(tmp_path / "others", "dalle2-priors", {"clip": clip}, PRIORS_HEAD)
    named = name_sibling(model, "priors", others, tmp_path / "named")
    siblings = named.part("pipeline").config["siblings"]
    assert siblings["priors"] == {"name": "others", "sha256": read_model(others).sha256}
    assert siblings["clip"]["sha256"] == read_model(clip).sha256
    for file in read_model(model).files:
        same = (model / file).read_bytes() == (named.path / file).read_bytes()
        assert same == (file != "pipeline/config.json")
    for wrong, role in ((clip, "priors"), (others, "butler")):
        with pytest.raises(BadModel, match=role):
            name_sibling(model, role, wrong, tmp_path / "never")
    with pytest.raises(BadModel, match="wanted a DALL·E 1, 2 or 3"):
        name_sibling(clip, "priors", others, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_an_upscaler_is_named_with_settings_unless_there_are_some(tmp_path: Path) -> None:
    model = fake(tmp_path / "model", "dalle2", {}, "pipeline")
    upscaler = fake(tmp_path / "upscaler", "upsampler")
    named = name_sibling(model, "upscaler", upscaler, tmp_path / "named")
    head = named.part("pipeline").config
    assert head["siblings"]["upscaler"]["name"] == "upscaler"
    assert from_plain(Dalle2Config, head["settings"]).upscaler == UPSCALER
    own = {**SETTINGS, "upscaler": {"steps": 2}}
    card = {"data": "none", "recipe": "by hand", "licence": "none"}
    write_model(tmp_path / "own", kind="dalle2", parts={"pipeline": Part({"siblings": {}, "settings": own})}, card=card)
    kept = name_sibling(tmp_path / "own", "upscaler", upscaler, tmp_path / "kept")
    assert kept.part("pipeline").config["settings"] == own
    with pytest.raises(BadModel, match="as upscaler"):
        name_sibling(model, "upscaler", model, tmp_path / "never")
    if (bundled_folder() / "dalle2-emoji/model.json").is_file():
        name_sibling(Path("dalle2"), "upscaler", bundled_folder() / "upsampler-emoji", tmp_path / "whole")
        assert [stage.base for stage in load(tmp_path / "whole").cascade.stages] == [64, 256]


def test_a_dalle1_takes_an_upscaler_too_and_no_priors(tmp_path: Path) -> None:
    model, upscaler = fake(tmp_path / "model", "dalle1", {}, "pipeline"), fake(tmp_path / "upscaler", "upsampler")
    head = name_sibling(model, "upscaler", upscaler, tmp_path / "named").part("pipeline").config
    assert head["siblings"]["upscaler"]["name"] == "upscaler"
    assert from_plain(UpsamplerSettings, head["settings"]["upscaler"]) == UPSCALER
    clip = fake(tmp_path / "clip", "clip")
    with pytest.raises(BadModel, match="as priors of a dalle1; wanted one of clip, words, upsampler, upscaler"):
        name_sibling(model, "priors", fake(tmp_path / "p", "dalle2-priors", {"clip": clip}), tmp_path / "never")


def test_the_recipe_names_an_upscaler_that_is_given_or_inherited_and_trains_none(tmp_path: Path) -> None:
    folders = {role: fake(tmp_path / role, "any") for role in ("clip", "codec", "upsampler", "upscaler")}
    like = fake(tmp_path / "like", "dalle2", folders, "pipeline")
    plain = fake(tmp_path / "plain", "dalle2", {role: folders[role] for role in SIBLINGS}, "pipeline")

    def named(**given: Path) -> dict[str, Path]:
        stages = dalle2(tmp_path, tmp_path / "out", **given)
        assert [stage.name for stage in stages] == ["guess", "prior", "sketch", "decoder"]
        return stages[-1].build.__self__.places  # type: ignore[union-attr]

    assert named(like=like)["upscaler"] == tmp_path / "upscaler"
    assert "upscaler" not in named(like=plain)
    assert named(like=plain, upscaler=tmp_path / "mine")["upscaler"] == tmp_path / "mine"


def test_priors_of_another_clip_are_refused(tmp_path: Path) -> None:
    clip, other = fake(tmp_path / "clip", "clip"), fake(tmp_path / "other", "clip", head="different")
    codec = fake(tmp_path / "codec", "codec-kl")
    strangers = fake(tmp_path / "strangers", "dalle2-priors", {"clip": other}, PRIORS_HEAD)
    siblings = {"clip": clip, "codec": codec, "priors": strangers}
    with pytest.raises(BadModel, match="priors of another CLIP"):
        load(fake(tmp_path / "model", "dalle2", siblings, "pipeline"))
