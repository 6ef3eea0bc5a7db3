"""A study's folder: its settings, one file a cell, and the report.

    study.json           the study's name and settings; a run with others is refused
    cells/NAME.json      one number a question, written when the cell is done
    pictures/NAME.png    sheets of the first seeds
    results.json, results.txt, index.html

Every file is replaced in one piece, and a cell's numbers come after its pictures: what has numbers is done.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opendalle.base.errors import BadModel, BadRequest
from opendalle.checkpoint.files import read_json, replace_file, to_json
from opendalle.pictures import refuse_unwritable
from opendalle.study.cells import Measured, Study
from opendalle.study.page import page
from opendalle.study.report import Report, results, text

HEAD, CELLS, PICTURES = "study.json", "cells", "pictures"


def check_folder(out: Path) -> None:
    """Refuse a folder in which no study can be kept, before anything is computed.

    Args:
        out: one that is free, or holds a study.

    Raises:
        BadRequest: when something else lies there.
    """
    if (out / HEAD).is_file():
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    refuse_unwritable(out)


class Notebook:
    """A study's folder, new or begun.

    Args:
        out: the folder; made if missing.
        study: whose it is.

    Raises:
        BadRequest: when another study, or this one with other settings, has begun in it.
    """

    def __init__(self, out: Path, study: Study) -> None:
        check_folder(out)
        self.out = out
        wanted = json.loads(to_json({"study": study.name, "settings": study.settings}))
        if (out / HEAD).is_file():
            _refuse_other(out, read_json(out / HEAD), wanted)
        for folder in (out, out / CELLS, out / PICTURES):
            folder.mkdir(parents=True, exist_ok=True)
        if not (out / HEAD).is_file():
            replace_file(out / HEAD, to_json(wanted))

    def has(self, name: str) -> bool:
        """Whether a cell has been measured."""
        return self._place(name).is_file()

    def read(self, name: str) -> Measured:
        """Return what a cell left, without its pictures, which lie in their folder.

        Args:
            name: of the cell.

        Raises:
            BadModel: when its file is damaged.
        """
        told = read_json(self._place(name))
        try:
            return Measured(values=dict(told["values"]), seconds=dict(told["seconds"]))
        except (KeyError, TypeError, ValueError):
            raise BadModel(f"a damaged {self._place(name)}", "numbers as a study writes them", "Delete it.") from None

    def write(self, name: str, measured: Measured) -> None:
        """Keep what a cell leaves.

        Args:
            name: of the cell.
            measured: numbers and pictures.
        """
        for sheet, picture in measured.sheets.items():
            draft = self.out / PICTURES / f".{sheet}.png"
            picture.save(draft, format="PNG", optimize=True)
            draft.replace(self.out / PICTURES / f"{sheet}.png")
        told = {"values": measured.values, "seconds": measured.seconds}
        replace_file(self._place(name), to_json(told))

    def write_report(self, report: Report) -> None:
        """Write the report as JSON, text and page.

        Args:
            report: of the cells measured so far.
        """
        replace_file(self.out / "results.json", to_json(results(report)))
        replace_file(self.out / "results.txt", (text(report) + "\n").encode())
        replace_file(self.out / "index.html", page(report).encode())

    def _place(self, name: str) -> Path:
        return self.out / CELLS / f"{name}.json"


def _refuse_other(out: Path, begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    todo = "The same command as before goes on; for another study, name another folder."
    if begun.get("study") != wanted["study"]:
        raise BadRequest(f"{out}, where a study of {begun.get('study')} has begun", wanted["study"], todo)
    old, new = begun.get("settings"), wanted["settings"]
    old = old if isinstance(old, dict) else {}
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            came, was = f"{name} {_short(new.get(name))} for {out}", f"{_short(old.get(name))}, as it was begun with"
            raise BadRequest(came, was, todo)


def _short(value: Any) -> str:
    words = value if isinstance(value, str) else json.dumps(value)
    return words if len(words) <= 60 else words[:57] + "..."
