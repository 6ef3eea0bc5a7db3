"""From a folder to a model: the closed table of kinds, and siblings that must be the very ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from opendalle.base.errors import BadModel
from opendalle.checkpoint import places
from opendalle.checkpoint.configs import from_plain, to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.checkpoint.places import find_model
from opendalle.codec.identity import IdentityCodec, IdentityCodecConfig
from opendalle.dalle2.parts import Dalle2Config
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.pretrained.kinds import load, load_pipeline, sibling
from opendalle.samplers.settings import StageSettings
from opendalle.upsampling.network import Upsampler, UpsamplerConfig

CARD = {"data": "none", "recipe": "by hand", "licence": "none"}
UPSAMPLER = UpsamplerConfig(
    picture_channels=3,
    factor=2,
    unet=UNetConfig(
        in_channels=6, out_channels=3, levels=(UNetLevel(width=32, num_blocks=1),), time_width=32, middle="none"
    ),
)


def write_codec(folder: Path, size: int = 8, kind: str = "codec-identity") -> ModelFolder:
    part = Part(to_plain(IdentityCodecConfig(picture_size=size)))
    return write_model(folder, kind=kind, parts={"codec": part}, card=CARD)


def write_upsampler(folder: Path, **change: Any) -> Upsampler:
    network = Upsampler(UPSAMPLER)
    state = {key: tensor for key, tensor in {**network.state_dict(), **change}.items() if tensor is not None}
    write_model(folder, kind="upsampler", parts={"upsampler": Part(to_plain(UPSAMPLER), state)}, card=CARD)
    return network


def test_a_network_comes_back_ready_to_use(tmp_path: Path) -> None:
    network = write_upsampler(tmp_path / "up")
    again = load(tmp_path / "up")
    assert isinstance(again, Upsampler)
    assert again.config == UPSAMPLER
    assert not again.training
    assert not any(weight.requires_grad for weight in again.parameters())
    assert all(torch.equal(one, network.state_dict()[name]) for name, one in again.state_dict().items())
    write_codec(tmp_path / "codec")
    assert isinstance(load(str(tmp_path / "codec")), IdentityCodec)  # a network without weights


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"unet.conv_in.bias": None}, r"unet\.conv_in\.bias"),
        ({"unet.conv_in.bias": torch.zeros(31)}, r"unet\.conv_in\.bias"),
        ({"unet.surprise": torch.zeros(1)}, r"unet\.surprise"),
    ],
)
def test_other_weights_are_refused_by_name(tmp_path: Path, change: dict, says: str) -> None:
    write_upsampler(tmp_path / "up", **change)
    with pytest.raises(BadModel, match=says):
        load(tmp_path / "up")


def test_unknown_kinds_and_missing_models_are_refused(tmp_path: Path) -> None:
    write_codec(tmp_path / "odd", kind="codec-of-tomorrow")
    with pytest.raises(BadModel, match=r"'codec-of-tomorrow'; wanted one of .*codec-identity"):
        load(tmp_path / "odd")
    for name in (tmp_path / "none", "no-such-model"):
        with pytest.raises(BadModel, match="wanted a bundled model"):
            load(name)


def test_a_sibling_is_the_very_one(tmp_path: Path) -> None:
    right = write_codec(tmp_path / "codec", size=8)
    model = write_codec(tmp_path / "model")  # who names it; any model will do
    named = {"codec": {"name": "codec", "sha256": right.sha256}}
    assert find_model("codec", beside=model.path) == right.path
    assert sibling(model, named, "codec").sha256 == right.sha256
    part = Part(to_plain(IdentityCodecConfig(picture_size=16)))
    write_model(right.path, kind="codec-identity", parts={"codec": part}, card=CARD, replace=True)
    with pytest.raises(BadModel, match=f"another codec than .*; wanted the one with sha256 {right.sha256[:12]}"):
        sibling(model, named, "codec")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundled codec and, elsewhere, an empty working folder."""
    bundled, here = tmp_path / "bundled", tmp_path / "here"
    write_codec(bundled / "codec-emoji")
    here.mkdir()
    monkeypatch.setattr(places, "bundled_folder", lambda: bundled)
    monkeypatch.chdir(here)
    return bundled


def test_a_path_is_the_folder_here_and_a_short_name_the_bundled_model(bundle: Path) -> None:
    bundled = bundle / "codec-emoji"
    for name in ("codec", "codec-emoji", Path("codec"), Path("codec-emoji")):
        assert find_model(name) == bundled
    for name in ("codec", "codec-emoji"):
        write_codec(Path(name), size=16)
        assert find_model(Path(name)) == Path(name)
        assert find_model(f"./{name}") == Path(name)
    assert find_model("codec") == bundled
    with pytest.raises(BadModel, match=r"both .*\./codec-emoji is the folder, codec the bundled one"):
        find_model("codec-emoji")
    beside = bundle.parent / "elsewhere/model"
    assert find_model("codec-emoji", beside=beside) == bundled  # a sibling is never sought where one happens to stand


def test_only_models_that_are_there_are_advised(bundle: Path) -> None:
    for name in ("dalle2", "", "..", "a" * 300, Path("b" * 300), "/"):
        with pytest.raises(BadModel, match=r"wanted a bundled model \(codec, codec-emoji\) or"):
            find_model(name)


def test_a_folder_that_cannot_be_looked_into_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(BadModel, match=r"mine/model.json, which cannot be read \(Permission denied\)"):
        find_model("/mine")


def test_a_network_is_no_generation(bundle: Path) -> None:
    with pytest.raises(BadModel, match="codec-emoji, a codec-identity; wanted a generation such as dalle2"):
        load_pipeline("codec")


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ([1], "with codec = None"),
        ({"codec": 5}, "with codec = 5"),
        ({"codec": {"name": 5, "sha256": "0"}}, "a sibling's plain name"),
        ({"codec": {"name": "../codec", "sha256": "0"}}, "a sibling's plain name"),
        ({"codec": {"name": "codec", "sha256": None}}, "a sibling's plain name"),
        ({"codec": {"name": "up", "sha256": "0"}}, "up, a upsampler, as the codec of .*; wanted codec-identity or"),
    ],
)
def test_a_sibling_is_named_in_plain_words_and_plays_its_role(tmp_path: Path, named: Any, says: str) -> None:
    write_upsampler(tmp_path / "up")
    head = Part({"siblings": {"clip": named, **named} if isinstance(named, dict) else named, "settings": {}})
    model = write_model(tmp_path / "model", kind="dalle2", parts={"pipeline": head}, card=CARD)
    with pytest.raises(BadModel, match=says):
        sibling(model, model.part("pipeline").config["siblings"], "codec")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ([], r"Dalle2Config = \[\]; wanted an object"),
        ({"prior": None, "decoder": {}}, "StageSettings = None"),
        ({"prior": "x", "decoder": {}}, "StageSettings = 'x'"),
        ({"prior": {"steps": "9"}, "decoder": {}}, "StageSettings.steps = '9'; wanted a whole number"),
        ({"prior": {"steps": True}, "decoder": {}}, "StageSettings.steps = True; wanted a whole number"),
        ({"prior": {"guidance": []}, "decoder": {}}, r"StageSettings.guidance = \[\]; wanted a number"),
        ({"prior": {"prediction": "y"}, "decoder": {}}, "StageSettings.prediction = 'y'; wanted one of eps"),
        ({"prior": {"noise_power": 5}, "decoder": {}}, "StageSettings.noise_power = 5; wanted a list"),
        ({"prior": {}, "decoder": {}, "unit_embeddings": 1}, "unit_embeddings = 1; wanted true or false"),
    ],
)
def test_settings_of_wrong_types_are_refused_by_name(settings: Any, says: str) -> None:
    with pytest.raises(BadModel, match=says):
        from_plain(Dalle2Config, json.loads(json.dumps(settings)))


def test_settings_from_before_there_was_an_upscaler_have_none() -> None:
    plain = json.loads(json.dumps(to_plain(Dalle2Config(prior=StageSettings(), decoder=StageSettings()))))
    del plain["upscaler"]
    assert from_plain(Dalle2Config, plain).upscaler is None


@pytest.mark.parametrize("role", ["upsampler", "upscaler"])
def test_an_upsampler_without_settings_is_refused(tmp_path: Path, role: str) -> None:
    write_upsampler(tmp_path / "up")
    write_codec(tmp_path / "codec")
    write_model(tmp_path / "clip", kind="clip", parts={}, card=CARD)
    named = {"clip": tmp_path / "clip", "codec": tmp_path / "codec", role: tmp_path / "up"}
    siblings = {one: {"name": place.name, "sha256": read_model(place).sha256} for one, place in named.items()}
    head = Part({"siblings": siblings, "settings": {"prior": {}, "decoder": {}}})
    write_model(tmp_path / "model", kind="dalle2", parts={"pipeline": head}, card=CARD)
    with pytest.raises(BadModel, match=f"with an {role} but no settings for it"):
        load(tmp_path / "model")


def test_a_model_of_wrong_shape_is_refused_in_words(tmp_path: Path) -> None:
    for number, (head, says) in enumerate(
        [
            ({"siblings": [1], "settings": {"prior": {}, "decoder": {}}}, "with clip = None"),
            ({"siblings": {}, "settings": []}, "Dalle2Config = "),
            ({"siblings": {}}, "without settings"),
        ]
    ):
        folder = tmp_path / str(number)
        write_model(folder, kind="dalle2", parts={"pipeline": Part(head)}, card=CARD)
        with pytest.raises(BadModel, match=says):
            load(folder)
    write_model(tmp_path / "bare", kind="clip", parts={}, card=CARD)
    with pytest.raises(BadModel, match="0 parts"):
        load(tmp_path / "bare")
