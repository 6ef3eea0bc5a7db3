"""Errors that teach: what came, what was wanted, what to do.

Everything a user can get wrong raises an `OpenDalleError`; the doors (command line, HTTP) turn it into one line and
exit code 2 or status 400.  `assert` stays for our own invariants.
"""


class OpenDalleError(ValueError):
    """A mistake that the person at the keyboard can mend.

    Args:
        came: what was given, with its value.
        wanted: what would have been accepted.
        todo: the next step, when it is not obvious from `wanted`.
    """

    def __init__(self, came: str, wanted: str, todo: str = "") -> None:
        self.came = came
        self.wanted = wanted
        self.todo = todo
        super().__init__(f"{came}; wanted {wanted}" + (f". {todo}" if todo else ""))


class BadRequest(OpenDalleError):
    """A request that no model could carry out: empty prompt, impossible size, unknown sampler."""


class BadPicture(OpenDalleError):
    """A picture file that cannot be read: wrong format, too many pixels, cut short."""


class BadConfig(OpenDalleError):
    """A configuration value outside its range."""


class BadModel(OpenDalleError):
    """A model or run folder that is missing, damaged, or of an unknown kind."""


class BadData(OpenDalleError):
    """A picture set that cannot be trained on: no captions, no pictures, embeddings of another CLIP."""


class MissingExtra(OpenDalleError):
    """An optional dependency is needed and not installed.

    Args:
        package: the import that failed.
        extra: the extra of `opendalle` that brings it, as in `pip install 'opendalle[train]'`.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the package {package!r} is not installed",
            f"the extra {extra!r}",
            f"Run: pip install 'opendalle[{extra}]'",
        )


def require(condition: bool, came: str, wanted: str, todo: str = "") -> None:
    """Raise BadConfig unless `condition` holds; the one-line check of a config's `__post_init__`.

    Args:
        condition: what must be true.
        came: what was given, with its value.
        wanted: what would have been accepted.
        todo: the next step, if any.

    Raises:
        BadConfig: when the condition is false.
    """
    if not condition:
        raise BadConfig(came, wanted, todo)
