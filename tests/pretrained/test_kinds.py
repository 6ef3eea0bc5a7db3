"""From a folder to a model: the closed table of kinds, and siblings that must be the very ones."""

from pathlib import Path
from typing import Any

import pytest
import torch

from opendalle.base.errors import BadModel
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, write_model
from opendalle.codec.identity import IdentityCodec, IdentityCodecConfig
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.pretrained.kinds import find_model, load, sibling
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
