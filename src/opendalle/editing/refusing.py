"""The verbs that need a space of meanings between pictures, as those generations refuse them that have none."""

from typing import Any, ClassVar, NoReturn

from opendalle.base.errors import BadRequest
from opendalle.pictures import AnyPicture, PictureOrText


class DrawsFromWords:
    """A generation that goes from words to pictures, with no space of meanings between that one could move in."""

    name: ClassVar[str]  # as people say it

    def blend(self, *sources: PictureOrText, **asked: Any) -> NoReturn:
        """Refuse: there is nothing between two texts."""
        self._refuse("blend")

    def morph(self, picture: AnyPicture, to_text: str = "", **asked: Any) -> NoReturn:
        """Refuse: as `blend`."""
        self._refuse("morph")

    def ladder(self, picture: AnyPicture, **asked: Any) -> NoReturn:
        """Refuse: as `blend`."""
        self._refuse("ladder")

    def _refuse(self, verb: str) -> NoReturn:
        todo = "DALL·E 2 can: its pictures have a space of meanings between them."
        raise BadRequest(f"{verb} with {self.name}", "generate, vary, edit or upscale", todo)
