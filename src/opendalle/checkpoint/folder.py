"""The model folder: what a trained model is on disk.

    NAME/
      model.json                 format version, kind, card (data, recipe, licence, ...), parts, sha256 of every file
      decoder/config.json        the network's config, plain data
      decoder/weights.safetensors
      text/config.json
      text/tokenizer.json        any further JSON that a part needs

The sha256 of model.json stands for the whole folder, since it holds the sha256 of everything else: that is how one
folder names another.  Which class a kind means is not known here; that closed table lives in `pretrained`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as repr_short
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from opendalle.base.errors import BadModel
from opendalle.checkpoint.files import checked, inside, is_there, new_folder, read_json, to_json, write_file
from opendalle.checkpoint.storage import from_storage, to_storage

FORMAT = 2  # raised when an older opendalle could not read what a newer one writes
_READABLE = (1, 2)  # 2: whole numbers may lie packed
CARD_MUST_SAY = ("data", "recipe", "licence")
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Part:
    """One network (or one table) of a model, as handed to `write_model`."""

    config: Mapping[str, Any]  # plain data from which the network is built
    state: Mapping[str, Tensor] = field(default_factory=dict)  # the network's state dict; may be empty
    storage: str = "float32"  # how the weights lie on disk: one of STORAGES
    extra: Mapping[str, Any] = field(default_factory=dict)  # file name ending in .json -> plain data
    moments: Mapping[str, Tensor] = field(default_factory=dict)  # of its layers' inputs, for storage that asks for them
    is_stored: bool = False  # whether the state is what lies on disk already, to be copied as it is


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """One part of a model folder, read only when asked for."""

    root: Path  # the model folder
    name: str  # the part's folder
    storage: str  # how its weights lie on disk
    files: Mapping[str, Any]  # the whole model's manifest

    @property
    def config(self) -> dict[str, Any]:
        """Plain data from which the network is built."""
        return read_json(self._file("config.json"))

    def extra(self, name: str) -> dict[str, Any]:
        """Read one further JSON file of the part.

        Args:
            name: as `tokenizer.json`.

        Raises:
            BadModel: when the part has no such file, or it is damaged.
        """
        return read_json(self._file(name))

    def extra_path(self, name: str) -> Path:
        """Return the checked path of a further file, for readers that want a path.

        Args:
            name: as `tokenizer.json`.
        """
        return self._file(name)

    def state(self) -> dict[str, Tensor]:
        """Read the weights: float32 whatever the storage, on the CPU.

        Raises:
            BadModel: when the file is missing or damaged.
        """
        if f"{self.name}/{WEIGHTS}" not in self.files:
            return {}
        path = self._file(WEIGHTS)
        try:
            return from_storage(read_tensors(path))
        except BadModel as error:
            raise BadModel(f"{path} with {error.came}", error.wanted, error.todo) from None

    def copied(self) -> Part:
        """Return the part as `write_model` takes it, its config and weights as they lie on disk, to the bit.

        Raises:
            BadModel: when a file is missing or damaged.
        """
        listed = f"{self.name}/{WEIGHTS}" in self.files
        return Part(self.config, read_tensors(self._file(WEIGHTS)) if listed else {}, self.storage, is_stored=True)

    def _file(self, name: str) -> Path:
        listed = f"{self.name}/{name}"
        if listed not in self.files:
            known = sorted(one for one in self.files if one.startswith(self.name + "/"))
            raise BadModel(f"no {listed} in {self.root}", "one of " + ", ".join(known))
        return checked(self.root, listed, self.files[listed])


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model folder whose model.json has been read; its parts are read, and checked, when asked for."""

    path: Path
    kind: str  # which pipeline or network it is, a key of pretrained's table
    card: dict[str, Any]  # data, recipe, licence; scores, cost, limits as the recipe says
    sha256: str  # of model.json, and so of everything
    parts: Mapping[str, StoredPart]
    files: Mapping[str, Any]  # name -> bytes and sha256

    def part(self, name: str) -> StoredPart:
        """Return one part.

        Args:
            name: the part's folder.

        Raises:
            BadModel: when the model has no such part.
        """
        if name not in self.parts:
            raise BadModel(f"no part {name!r} in {self.path}", "one of " + ", ".join(sorted(self.parts)))
        return self.parts[name]

    @property
    def reference(self) -> dict[str, str]:
        """How another folder names this one as a sibling."""
        return {"name": self.path.resolve().name, "sha256": self.sha256}

    def verify(self) -> None:
        """Read every file and compare it with its sha256.

        Raises:
            BadModel: naming the first file that is missing, damaged, or not listed.
        """
        for name, entry in self.files.items():
            checked(self.path, name, entry)
        here = {one.relative_to(self.path).as_posix() for one in self.path.rglob("*") if not one.is_dir()}
        if strays := sorted(here - set(self.files) - {"model.json"}):
            raise BadModel(f"{strays[0]} in {self.path}", "only the files that model.json lists", "Delete it.")


def write_model(
    folder: Path, *, kind: str, parts: Mapping[str, Part], card: Mapping[str, Any], replace: bool = False
) -> ModelFolder:
    """Write a model folder in one piece and read it back to be sure.

    Args:
        folder: where; readers find the whole model there or nothing.
        kind: which pipeline or network it is.
        parts: folder name -> part.
        card: plain data; must say `data`, `recipe` and `licence`.
        replace: allow an older model in that place.

    Raises:
        BadModel: when the card is silent on something, a name is unfit, weights are not finite, or `folder` exists.
    """
    if silent := [key for key in CARD_MUST_SAY if not card.get(key)]:
        raise BadModel(f"a card without {', '.join(silent)}", "a card that says " + ", ".join(CARD_MUST_SAY))
    with new_folder(Path(folder), replace) as draft:
        files: dict[str, Any] = {}
        for name, part in parts.items():
            files |= _write_part(draft, name, part)
        head = {"format": FORMAT, "kind": kind, "card": dict(card), "files": files}
        head["parts"] = {name: {"storage": part.storage} for name, part in parts.items()}
        write_file(draft / "model.json", to_json(head))
        read_model(draft).verify()
    return read_model(folder)


def rewrite_model(
    model: ModelFolder, folder: Path, *, parts: Mapping[str, Part], card: Mapping[str, Any]
) -> ModelFolder:
    """Write a model that is another one but for some parts; all else stays as it is, to the byte.

    Args:
        model: whose kind and other parts are taken.
        folder: where.
        parts: those that are new or others.
        card: plain data; must say `data`, `recipe` and `licence`.

    Raises:
        BadModel: as `write_model`, or when a file of the model is damaged.
    """
    if silent := [key for key in CARD_MUST_SAY if not card.get(key)]:
        raise BadModel(f"a card without {', '.join(silent)}", "a card that says " + ", ".join(CARD_MUST_SAY))
    kept = {name: part for name, part in model.parts.items() if name not in parts}
    with new_folder(Path(folder)) as draft:
        files: dict[str, Any] = {}
        for listed, entry in model.files.items():
            if (name := listed.partition("/")[0]) in kept:
                (draft / name).mkdir(exist_ok=True)
                files[listed] = write_file(draft / listed, checked(model.path, listed, entry).read_bytes())
        for name, part in parts.items():
            files |= _write_part(draft, name, part)
        head = {"format": FORMAT, "kind": model.kind, "card": dict(card), "files": files}
        head["parts"] = {name: {"storage": part.storage} for name, part in {**kept, **parts}.items()}
        write_file(draft / "model.json", to_json(head))
        read_model(draft).verify()
    return read_model(folder)


def _write_part(draft: Path, name: str, part: Part) -> dict[str, Any]:
    """Write one part into a folder that is being made; return its files as model.json lists them."""
    _check_names(name, part)
    (draft / name).mkdir()
    contents = {"config.json": to_json(dict(part.config))}
    contents |= {extra: to_json(value) for extra, value in part.extra.items()}
    if part.state:
        stored = dict(part.state) if part.is_stored else to_storage(part.state, part.storage, part.moments)
        contents[WEIGHTS] = safetensors.torch.save(stored)
    return {f"{name}/{file}": write_file(draft / name / file, payload) for file, payload in contents.items()}


def read_model(folder: Path) -> ModelFolder:
    """Read model.json; each part is read and compared with its sha256 when it is asked for.

    Args:
        folder: a model folder.

    Raises:
        BadModel: when there is none, or a newer opendalle wrote it.
    """
    folder = Path(folder)
    if not is_there(folder / "model.json"):
        raise BadModel(f"no model.json in {folder}", "a model folder", _advice(folder))
    head = read_json(folder / "model.json")
    if head.get("format") not in _READABLE:
        raise BadModel(f"{folder} in format {repr_short(head.get('format'))}", f"format {FORMAT}", "Update opendalle.")
    shape = {"kind": str, "card": dict, "parts": dict, "files": dict}
    for key, wanted in shape.items():
        if not isinstance(head.get(key), wanted):
            raise BadModel(f"{folder}/model.json with {key} = {repr_short(head.get(key))}", f"a {wanted.__name__}")
    for name in (*head["files"], *head["parts"]):
        inside(name)
    for name, about in head["parts"].items():
        if not isinstance(about, dict):
            raise BadModel(f"{folder}/model.json with part {name} = {repr_short(about)}", "a dict")
    parts = {
        name: StoredPart(root=folder, name=name, storage=str(about.get("storage")), files=head["files"])
        for name, about in head["parts"].items()
    }
    digest = hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()
    return ModelFolder(
        path=folder, kind=head["kind"], card=head["card"], sha256=digest, parts=parts, files=head["files"]
    )


def verify_model(folder: Path) -> ModelFolder:
    """Read a model folder and compare every file with its sha256.

    Args:
        folder: a model folder.

    Raises:
        BadModel: naming the first file that is not what was written.
    """
    model = read_model(folder)
    model.verify()
    return model


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: the file.

    Raises:
        BadModel: when it is no safetensors file.
    """
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadModel(f"{path}, which is unreadable ({error})", "a safetensors file") from None


def _check_names(name: str, part: Part) -> None:
    for one in (name, *part.extra):
        if "/" in inside(one):
            raise BadModel(f"the name {one!r}", "a plain name without folders")
    for extra in part.extra:
        if not extra.endswith(".json") or extra in ("config.json", "model.json"):
            raise BadModel(f"the extra file {extra!r} of part {name!r}", "a name ending in .json, not config.json")


def _advice(folder: Path) -> str:
    pattern = re.compile(re.escape(f".{folder.name}.old-") + "[0-9a-f]{8}")
    aside = [one for one in folder.parent.glob(".*") if pattern.fullmatch(one.name)] if folder.parent.is_dir() else []
    if aside and not folder.exists():
        return f"A crash while replacing it left the older one whole in {aside[0]}: rename that back."
    return "`opendalle models list` shows what is there."
