"""The card that every trained model carries: where it comes from, and what it may be used for."""

import json
from pathlib import Path
from typing import Any

from opendalle.recipes.data import is_world

WEIGHTS_LICENCE = "Apache-2.0"


def card_of(recipe: str, data: Path, **settings: Any) -> dict[str, Any]:
    """Write the part of a card that is known when training ends; scores are added by who evaluates.

    Args:
        recipe: its name.
        data: what it was trained on.
        **settings: what fixed the run, as pictures and seed.
    """
    if is_world(data):
        manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
        told = {
            "name": "emoji world",
            "stamp": manifest["stamp"],
            "pictures": manifest["num_pictures"],
            "sources": manifest["sources"],
        }
        licence = WEIGHTS_LICENCE
    else:
        told = {"name": data.resolve().name, "kind": "folder of pictures with captions"}
        licence = "as the owner of the pictures decides"
    return {"data": told, "recipe": {"name": recipe, **settings}, "licence": licence}
