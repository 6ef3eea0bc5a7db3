"""OpenDALLE: text-to-image in one readable house; DALL·E 2 today.

    import opendalle
    dalle = opendalle.load("dalle2")
    for sample in dalle.generate("a red apple wearing sunglasses", count=4, seed=7): ...

This is the roof: a few names, each fetched from its room when it is first asked for.  Importing does nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors and type checkers know the names
    from opendalle.base.errors import BadConfig as BadConfig
    from opendalle.base.errors import BadData as BadData
    from opendalle.base.errors import BadModel as BadModel
    from opendalle.base.errors import BadPicture as BadPicture
    from opendalle.base.errors import BadRequest as BadRequest
    from opendalle.base.errors import MissingExtra as MissingExtra
    from opendalle.base.errors import OpenDalleError as OpenDalleError
    from opendalle.base.protocols import Hooks as Hooks
    from opendalle.base.protocols import Pipeline as Pipeline
    from opendalle.base.records import Sample as Sample
    from opendalle.base.records import TrainStep as TrainStep
    from opendalle.base.request import Request as Request
    from opendalle.checkpoint.places import bundled_models as bundled_models
    from opendalle.pictures import contact_sheet as contact_sheet
    from opendalle.pictures import read_picture as read_picture
    from opendalle.pictures import read_recipe as read_recipe
    from opendalle.pictures import write_png as write_png
    from opendalle.pretrained import load as load

__version__ = "0.1.0"

_room_from_name = {
    "BadConfig": "opendalle.base.errors",
    "BadData": "opendalle.base.errors",
    "BadModel": "opendalle.base.errors",
    "BadPicture": "opendalle.base.errors",
    "BadRequest": "opendalle.base.errors",
    "MissingExtra": "opendalle.base.errors",
    "OpenDalleError": "opendalle.base.errors",
    "Hooks": "opendalle.base.protocols",
    "Pipeline": "opendalle.base.protocols",
    "Sample": "opendalle.base.records",
    "TrainStep": "opendalle.base.records",
    "Request": "opendalle.base.request",
    "contact_sheet": "opendalle.pictures",
    "read_picture": "opendalle.pictures",
    "read_recipe": "opendalle.pictures",
    "write_png": "opendalle.pictures",
    "bundled_models": "opendalle.checkpoint.places",
    "load": "opendalle.pretrained",
}

__all__ = ["__version__", *_room_from_name]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Fetch a name from its room, the first time it is asked for."""
    if name not in _room_from_name:
        raise AttributeError(f"opendalle has no name {name!r}; it has {', '.join(_room_from_name)}")
    return getattr(import_module(_room_from_name[name]), name)


def __dir__() -> list[str]:
    return __all__
