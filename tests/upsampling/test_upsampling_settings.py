"""Settings of upsamplers are those of any stage: a file loads as it was written, and stages are those by hand."""

import json
from dataclasses import fields

import pytest

from opendalle.base.errors import BadConfig
from opendalle.checkpoint.configs import from_plain, to_plain
from opendalle.dalle1.parts import Dalle1Config
from opendalle.dalle2.parts import Dalle2Config
from opendalle.diffusion.grids import strided
from opendalle.nn.unet import UNetConfig, UNetLevel
from opendalle.pretrained.kinds import find_model
from opendalle.samplers.settings import StageSettings
from opendalle.upsampling.network import Upsampler, UpsamplerConfig
from opendalle.upsampling.settings import UpsamplerSettings, chained


def tiny(factor: int) -> Upsampler:
    unet = UNetConfig(
        in_channels=6,
        out_channels=3,
        levels=(UNetLevel(width=32, num_blocks=1),),
        time_width=8,
        patch=factor,
        middle="none",
    )
    return Upsampler(UpsamplerConfig(picture_channels=3, factor=factor, unet=unet))


def test_they_differ_from_any_stage_in_their_defaults_alone() -> None:
    assert [one.name for one in fields(UpsamplerSettings)] == [one.name for one in fields(StageSettings)]
    own = {"prediction": "x0", "steps": 2, "clip": 1.0}
    assert to_plain(UpsamplerSettings()) == to_plain(StageSettings(**own))  # type: ignore[arg-type]


def test_a_file_of_either_generation_loads_as_it_was_written() -> None:
    old = {"schedule": "cosine", "num_train_steps": 1000, "prediction": "x0", "steps": 8, "clip": 1.0}
    assert from_plain(Dalle1Config, {"upsampler": old}).upsampler == UpsamplerSettings(steps=8)
    config = Dalle1Config(upsampler=UpsamplerSettings(), upscaler=UpsamplerSettings(steps=1))
    assert from_plain(Dalle1Config, json.loads(json.dumps(to_plain(config)))) == config
    bundled = find_model("dalle2") / "pipeline/config.json"
    settings = json.loads(bundled.read_text(encoding="utf-8"))["settings"]
    loaded = from_plain(Dalle2Config, settings)
    assert (loaded.upsampler, loaded.upscaler) == (UpsamplerSettings(), UpsamplerSettings(steps=1))
    told = json.loads(json.dumps(to_plain(loaded)))
    for stage in ("prior", "decoder", "upsampler", "upscaler"):  # a file may be silent on what came later
        known = json.loads(json.dumps(to_plain(StageSettings())))
        assert told[stage] == {**{name: known[name] for name in told[stage]}, **settings[stage]}
    assert {name: told[name] for name in settings if not isinstance(told[name], dict)} == {
        name: one for name, one in settings.items() if not isinstance(one, dict)
    }


def test_a_chain_holds_those_that_are_there_each_for_what_the_one_before_draws() -> None:
    first, second, settings = tiny(2), tiny(4), UpsamplerSettings(num_train_steps=100, steps=5)
    both = chained(16, (first, settings), (second, UpsamplerSettings()))
    assert [(one.upsampler, one.base, one.factor) for one in both] == [(first, 16, 2), (second, 32, 4)]
    assert both[0].grid == strided(100, 5)
    assert both[0].schedule.num_steps == 100
    assert (both[1].prediction, both[1].clip, len(both[1].grid)) == ("x0", 1.0, 2)
    assert [one.base for one in chained(16, (None, settings), (second, settings))] == [16]
    assert chained(16, (first, None)) == ()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 11, "num_train_steps": 10}, {"schedule": "none"}])
def test_settings_outside_their_range_are_refused(wrong: dict) -> None:
    with pytest.raises(BadConfig):
        UpsamplerSettings(**wrong)
