"""Stages walked with a network of two numbers: what is resumed, what is refused, and when it ends."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from opendalle.base.errors import BadModel, BadRequest
from opendalle.base.protocols import Losses
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.recipes.places import about, going_on, runs_beside
from opendalle.recipes.stage import Passage, Stage, Work, embark, walk
from opendalle.training.config import TrainConfig, Upkeep

CARD = {"data": "numbers", "recipe": "toy", "licence": "Apache-2.0"}
CUT = Upkeep(max_minutes=1e-9)


class Toy:
    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.net = nn.Linear(2, 1)
        self.groups = {name: self.net}
        self.name = name

    def __call__(self, batch: Tensor, rng: Generator) -> Losses:
        return Losses(total={self.name: (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()})


def numbers(position: int) -> Iterator[Tensor]:
    while True:
        yield torch.randn(4, 2, generator=torch.Generator().manual_seed(position))
        position += 1


def save(out: Path, name: str, net: nn.Module) -> ModelFolder:
    return write_model(out, kind=f"toy-{name}", parts={name: Part({}, net.state_dict())}, card=CARD)


def stage(
    out: Path,
    name: str = "one",
    data: str = "set",
    prepare: Callable[[Callable[[], bool]], bool] | None = None,
    begin: Callable[[nn.Module], None] | None = None,
    pictures: int = 16,
) -> Stage:
    def build() -> Work:
        toy = Toy(name)
        config = TrainConfig(pictures=pictures, batch_size=4, ema_halflife=8)
        filled = partial(begin, toy.net) if begin is not None else None
        finish = partial(save, out, name, toy.net)
        return Work(objective=toy, batches=numbers, config=config, finish=finish, begin=filled)

    return Stage(name=name, part=name, out=out, stamps=lambda: {"set": data}, build=build, prepare=prepare)


def weights(out: Path, name: str = "one") -> dict[str, Tensor]:
    return read_model(out).part(name).state()


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """The runs of a model whose training made one step of four."""
    runs = runs_beside(tmp_path / "cut")
    assert len(list(walk([stage(tmp_path / "cut")], Passage(runs=runs, upkeep=CUT)))) == 1
    return runs


@pytest.mark.parametrize("inside", ["", "one"])
def test_a_resume_finds_its_runs_and_ends_at_the_same_weights(cut: Path, inside: str) -> None:
    whole, out = cut.parent / "whole", cut.parent / "cut"
    list(walk([stage(whole)], Passage(runs=runs_beside(whole))))
    assert len(list(walk([stage(out)], Passage(runs=cut / inside, resume=True)))) == 3
    assert all(torch.equal(tensor, weights(out)[name]) for name, tensor in weights(whole).items())
    assert sorted(path.name for path in cut.iterdir()) == ["one"]


def test_a_fresh_network_is_filled_once_and_neither_a_save_nor_other_weights_are_written_over(tmp_path: Path) -> None:
    filled = list[nn.Module]()

    def begin(net: nn.Module) -> None:
        filled.append(net)
        nn.init.constant_(net.get_parameter("weight"), 3.0)

    out, plain, warm = tmp_path / "out", tmp_path / "plain", tmp_path / "warm"
    list(walk([stage(out, begin=begin)], Passage(runs=runs_beside(out), upkeep=CUT)))
    assert len(filled) == 1
    list(walk([stage(out, begin=begin)], Passage(runs=runs_beside(out), resume=True)))
    list(walk([stage(plain)], Passage(runs=runs_beside(plain))))
    assert not torch.equal(weights(out)["weight"], weights(plain)["weight"])
    list(walk([stage(warm, begin=begin)], Passage(runs=runs_beside(warm), warm=out)))
    assert len(filled) == 1
    other = stage(tmp_path / "other", name="other", begin=begin)  # a part that the warm start does not bring
    list(walk([stage(tmp_path / "again"), other], Passage(runs=tmp_path / "runs", warm=out)))
    assert len(filled) == 2


def test_no_pictures_leave_the_weights_that_a_warm_start_brought_and_nothing_else_is_written_so(tmp_path: Path) -> None:
    first, copy = tmp_path / "first", tmp_path / "copy"
    list(walk([stage(first)], Passage(runs=runs_beside(first))))
    assert not list(walk([stage(copy, pictures=0)], Passage(runs=runs_beside(copy), warm=first)))
    assert all(torch.equal(tensor, weights(copy)[name]) for name, tensor in weights(first).items())
    with pytest.raises(BadRequest, match=r"0 pictures.*--from"):
        list(walk([stage(tmp_path / "none", pictures=0)], Passage(runs=tmp_path / "runs")))


@pytest.mark.parametrize(
    ("folder", "why"), [("nowhere", "no folder"), ("empty", "no run of this"), ("cut.runs/one", "run of 'one'")]
)
def test_a_resume_never_begins_a_recipe_afresh(cut: Path, folder: str, why: str) -> None:
    (cut.parent / "empty").mkdir()
    other = stage(cut.parent / "other", name="other")
    with pytest.raises(BadRequest, match=f"{why}.*leave out --resume"):
        next(walk([other], Passage(runs=cut.parent / folder, resume=True)))
    assert not list(cut.rglob("other"))
    with pytest.raises(BadRequest, match="no run of this"):
        next(walk([other], Passage(runs=cut, resume=True)))


def test_a_run_is_resumed_with_its_own_data_only(cut: Path) -> None:
    with pytest.raises(BadRequest, match=r"set other \(begun with set\)"):
        next(walk([stage(cut.parent / "cut", data="other")], Passage(runs=cut, resume=True)))
    assert len(list(walk([stage(cut.parent / "cut")], Passage(runs=cut, resume=True)))) == 3


def test_only_later_stages_begin_afresh_on_a_resume(cut: Path) -> None:
    first, second = stage(cut.parent / "first", "zero"), stage(cut.parent / "cut")
    with pytest.raises(BadRequest, match="begin zero afresh, though one has begun"):
        next(walk([first, second], Passage(runs=cut, resume=True)))
    steps = list(walk([second, first], Passage(runs=cut, resume=True)))
    assert [step.stage for step in steps] == ["one"] * 3 + ["zero"] * 4


def test_a_run_that_is_there_is_named_for_resume(cut: Path) -> None:
    assert going_on(cut).endswith(f"--resume {cut}")
    assert "--resume" not in going_on(cut.parent / "nowhere")
    with pytest.raises(BadRequest, match=f"--resume {cut}"):
        next(walk([stage(cut.parent / "cut")], Passage(runs=cut)))


def test_a_model_of_another_kind_is_no_beginning(tmp_path: Path) -> None:
    save(tmp_path / "strange", "strange", nn.Linear(2, 1))
    stages = [stage(tmp_path / "a", "one"), stage(tmp_path / "b", "two")]
    with pytest.raises(BadRequest, match=r"'toy-strange', with strange.*one or two"):
        next(walk(stages, Passage(runs=tmp_path / "runs", warm=tmp_path / "strange")))
    assert not (tmp_path / "runs").exists()
    save(tmp_path / "wide", "two", nn.Linear(3, 1))
    with pytest.raises(BadModel, match=r"network 'two': weight is 1x3, not 1x2; wanted"):
        list(walk(stages, Passage(runs=tmp_path / "runs", warm=tmp_path / "wide")))


def test_a_warm_start_brings_what_belongs_to_it_and_a_resume_remembers_it(tmp_path: Path) -> None:
    save(tmp_path / "old", "one", nn.Linear(2, 1))
    asked: list[Path | None] = []

    def recipe(out: Path, like: Path | None = None) -> tuple[Stage, ...]:
        asked.append(like)
        return (stage(out), stage(out.parent / "two", "two"))

    runs, settings = tmp_path / "runs", {"out": tmp_path / "new"}
    list(embark(recipe, settings, Passage(runs=runs, warm=tmp_path / "old", upkeep=CUT)))
    assert about(runs / "one")["from"] == str((tmp_path / "old").resolve())
    list(embark(recipe, settings, Passage(runs=runs, resume=True)))
    assert asked == [tmp_path / "old", (tmp_path / "old").resolve()]
    own = tmp_path / "own"
    list(embark(recipe, {"out": own, "like": own}, Passage(runs=tmp_path / "more", warm=tmp_path / "old")))
    assert asked[-1] == own


def test_a_finished_stage_is_said_to_be_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "done", "one", nn.Linear(2, 1))
    assert list(walk([stage(tmp_path / "done")], Passage(runs=tmp_path / "runs"))) == []
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"one: nothing to do, the model {tmp_path / 'done'} is there\n")


def test_what_lies_in_a_models_place_is_refused_before_any_step(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    save(tmp_path / "strange", "strange", nn.Linear(2, 1))
    for name, why in (("taken", "exists"), ("strange", "'toy-strange'; wanted a name that is free")):
        stages = [stage(tmp_path / "a"), stage(tmp_path / name, "two")]
        with pytest.raises(BadRequest, match=why):
            next(walk(stages, Passage(runs=tmp_path / "runs")))


def test_one_clock_for_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from opendalle.recipes import stage as room

    now = 0.0
    monkeypatch.setattr(room.time, "monotonic", lambda: now)
    seen = []
    for step in walk(
        [stage(tmp_path / "a", "one"), stage(tmp_path / "b", "two"), stage(tmp_path / "c", "three")],
        Passage(runs=tmp_path / "runs", upkeep=Upkeep(max_minutes=1.0)),
    ):
        seen.append(step.stage)
        now += 10.0  # the minute is over before the second stage's third step ends
    assert seen == ["one"] * 4 + ["two"] * 3
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_what_a_stage_prepares_may_be_stopped(tmp_path: Path) -> None:
    told: list[bool] = []

    def prepare(stop: Callable[[], bool]) -> bool:
        told.append(stop())
        return not told[-1]

    one = stage(tmp_path / "a", prepare=prepare)
    assert list(walk([one], Passage(runs=tmp_path / "runs", upkeep=CUT))) == []
    assert len(list(walk([one], Passage(runs=tmp_path / "runs")))) == 4
    assert told == [True, False]


def test_a_run_goes_on_when_the_model_it_began_from_is_gone(tmp_path: Path) -> None:
    save(tmp_path / "old", "one", nn.Linear(2, 1))
    passage = Passage(runs=tmp_path / "runs", warm=tmp_path / "old", upkeep=CUT)
    list(embark(lambda out: (stage(out),), {"out": tmp_path / "new"}, passage))
    shutil.rmtree(tmp_path / "old")
    list(embark(lambda out: (stage(out),), {"out": tmp_path / "new"}, Passage(runs=tmp_path / "runs", resume=True)))
    assert (tmp_path / "new").is_dir()
