"""`opendalle data`: picture sets to train on."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from opendalle.base.errors import BadRequest
from opendalle.cli.asked import whole_number
from opendalle.cli.console import progress
from opendalle.pictures import refuse_unwritable

data = App(
    name="data",
    help="Make a picture set to train on.",
    help_format="plaintext",
    help_epilogue="Example: opendalle data emoji --out emoji",
)


@data.command(help_epilogue="Example: opendalle data emoji --out emoji")
def emoji(
    *,
    out: Path,
    packages: Path | None = None,
    limit: Annotated[int | None, Parameter(converter=whole_number)] = None,
) -> int:
    """Build the emoji world: 1,500 concepts in four styles, with names in many languages.

    The freely licensed artwork comes from npm packages of fixed versions; `npm` must be installed.

    Args:
        out: The folder to write; must not exist.
        packages: Where the packages are kept; fetched into your cache folder if not given.
        limit: Build only so many concepts, for a quick look.

    Returns:
        The exit code.

    Raises:
        BadRequest: when the words do not fit together.
    """
    if limit is not None and limit < 1:
        raise BadRequest(f"--limit {limit}", "1 or more")
    refuse_unwritable(out)

    from opendalle.data.emoji import build, fetch, sources  # resvg and numpy enter here

    if packages is None:
        packages = sources.packages_place()
        fetch.fetch_packages(packages, (*sources.SOURCES, sources.WORDNET))
    with progress("drawing concepts", None) as advance:
        for step in build.build_world(packages, out, limit=limit):
            advance(step.done, f"of {step.total}, {step.pictures} pictures, {step.name}")
    print(out)
    return 0
