"""A pipeline that draws noise: everything of the front door can be tested before, and without, a trained model."""

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


@dataclass
class FakePipeline:
    asked: list = field(default_factory=list)  # every Request it was given
    loaded: list = field(default_factory=list)  # every name or folder it was loaded by
    drawn: int = 0
    stop_at: int | None = None  # raises KeyboardInterrupt instead of this picture, counted over all
    refuse: str | None = None  # a prompt that is refused

    def generate(self, prompt="", *, hooks=None, **asked):
        from opendalle.base.errors import BadRequest
        from opendalle.base.records import Sample
        from opendalle.base.request import Request

        request = Request(prompt=prompt, **asked)
        self.asked.append(request)
        if prompt == self.refuse:
            raise BadRequest("a picture of that size", "64 or 256")
        steps = request.steps or 8
        batch = 1 if request.exact else request.batch
        for start in range(0, request.count, batch):
            rows = range(start, min(start + batch, request.count))
            for done in range(request.previews):
                for index in rows:
                    yield Sample(
                        picture=self.picture(request, index, len(rows), done + 1),
                        request=request,
                        index=index,
                        seed=request.seed + index,
                        step=done,
                        num_steps=steps,
                        is_preview=True,
                    )
            for index in rows:
                if self.drawn == self.stop_at:
                    raise KeyboardInterrupt
                self.drawn += 1
                yield Sample(
                    picture=self.picture(request, index, len(rows)),
                    request=request,
                    index=index,
                    seed=request.seed + index,
                    step=steps,
                    num_steps=steps,
                    recipe={"weights": "abc", "batch": [len(rows), 4, 8, 8]},
                )

    def vary(self, given, prompt="", *, hooks=None, **asked):
        return self.changed("vary", [given], prompt, asked, lambda request: request.count)

    def blend(self, *sources, hooks=None, **asked):
        return self.changed("blend", sources, "", asked, lambda request: request.frames)

    def morph(self, given, to_text="", *, hooks=None, **asked):
        return self.changed("morph", [given], "", asked | {"to_text": to_text}, lambda request: request.frames)

    def ladder(self, given, *, hooks=None, **asked):
        return self.changed("ladder", [given], "", asked, lambda request: len(request.components))

    def changed(self, verb, sources, prompt, asked, count):
        from opendalle.base.records import Sample
        from opendalle.base.request import Request
        from opendalle.pictures import take_or_text

        request = Request.of(prompt, verb=verb, **asked)
        self.asked.append(request)
        taken = [take_or_text(one) for one in sources]
        inputs = [{"text": one} if isinstance(one, str) else one.record() for one in taken]
        for index in range(count(request)):
            yield Sample(
                picture=self.picture(request, index, 1),
                request=request,
                index=index,
                seed=request.seed,
                step=1,
                num_steps=1,
                recipe={"verb": verb, "inputs": inputs},
            )

    @staticmethod
    def picture(request, index, rows, noise=0):
        # The batch's size is mixed in: a test would notice if --again drew in another batch.
        words = sum(request.prompt.encode())
        rng = np.random.default_rng([request.seed + index, words, rows, noise])
        return Image.fromarray(rng.integers(0, 256, (8, 8, 4), dtype=np.uint8))


@pytest.fixture
def pipeline(monkeypatch):
    """Stand in for the whole room `pretrained`, so that no network is imported."""
    import opendalle

    fake, room = FakePipeline(), ModuleType("opendalle.pretrained")

    def load(model):
        from opendalle.base.errors import BadModel

        if model == "missing":
            raise BadModel("no model 'missing'", "a bundled model")
        fake.loaded.append(model)
        return fake

    for door in ("load", "load_pipeline"):
        setattr(room, door, load)
    monkeypatch.setitem(sys.modules, "opendalle.pretrained", room)
    monkeypatch.setattr(opendalle, "pretrained", room, raising=False)
    return fake


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def opendalle(capfd):
    """Run one command line; returns (exit code, lines of output, lines of errors)."""
    from opendalle.cli.app import run

    def call(*arguments: str):
        capfd.readouterr()
        code = run(arguments)
        said = capfd.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    return call


@pytest.fixture
def one_model(tmp_path, monkeypatch):
    """A bundled folder with one small whole model in it."""
    import torch

    from opendalle.checkpoint import places
    from opendalle.checkpoint.folder import Part, write_model

    bundled = tmp_path / "bundled"
    part = Part(config={"width": 2}, state={"weight": torch.arange(4.0)})
    write_model(
        bundled / "toy-emoji", kind="toy", parts={"net": part}, card={"data": "d", "recipe": "r", "licence": "MIT"}
    )
    monkeypatch.setattr(places, "bundled_folder", lambda: bundled)
    yield bundled / "toy-emoji"
    shutil.rmtree(bundled)
