"""`opendalle data`: picture sets to train on."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from opendalle.base.errors import BadRequest
from opendalle.cli.asked import RARE, whole_number
from opendalle.cli.captioning import CAPTIONER, Report, open_captioner
from opendalle.cli.console import progress, tell
from opendalle.cli.evaluate import print_scores
from opendalle.pictures import refuse_unwritable

data = App(
    name="data",
    help="Make a picture set to train on, or write its captions anew.",
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


@data.command(help_epilogue="Example: opendalle data caption my-pictures --kinds short,descriptive --report")
def caption(
    pictures: Path,
    /,
    *,
    out: Path | None = None,
    model: str = CAPTIONER,
    kinds: str = "short,descriptive",
    languages: str = "en",
    shard: str = "1/1",
    report: Annotated[bool, Parameter(negative="")] = False,
    clip: str | None = None,
    count: Annotated[int | None, Parameter(group=RARE, converter=whole_number)] = None,
    scenes: Annotated[float | None, Parameter(group=RARE)] = None,
    styles: Annotated[str | None, Parameter(group=RARE)] = None,
    seed: Annotated[int, Parameter(group=RARE, converter=whole_number)] = 0,
    batch: Annotated[int, Parameter(group=RARE, converter=whole_number)] = 32,
    piece: Annotated[int, Parameter(group=RARE, converter=whole_number)] = 256,
) -> int:
    """Write captions of a whole set beside its own, which are never touched.

    Stop it whenever you like: the same command goes on where it was. Several machines can share the work, each with
    its --shard; their files are then copied into one folder.

    Args:
        pictures: A folder of pictures, with captions or without, or an emoji world.
        out: The folder of the new captions; captions in the set's folder if not given.
        model: A bundled captioner, or a model folder.
        kinds: Of captions, with commas between: short, descriptive.
        languages: Of each kind, with commas between: en, zh.
        shard: Which share of the work to do, as 2/8.
        report: Print statistics of all captions when they are finished.
        clip: With --report: a bundled CLIP, or a model folder, that says how well captions fit.
        count: Draws of an emoji world that are captioned; as many as it has drawings if not given.
        scenes: Share of the draws that are composed of several things.
        styles: Of the drawings, as 3d,flat.
        seed: Of the draws, and where the captioner draws by chance.
        batch: Pictures looked at together; changes speed and memory only.
        piece: Pictures whose captions share a file: what a crash can lose.

    Returns:
        The exit code.

    Raises:
        BadRequest: when the words do not fit together.
    """
    number, slash, of = shard.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal()):
        raise BadRequest(f"--shard {shard}", "a share of the work, as 2/8")
    if clip is not None and not report:
        raise BadRequest("--clip without --report", "both")

    from opendalle.data.caption_shelf import FOLDER, Shard, ShelfConfig  # numpy enters here

    place, share = out or pictures / FOLDER, Shard(number=int(number), count=int(of))
    if not place.exists():
        refuse_unwritable(place)
    voices = ShelfConfig(kinds=_listed(kinds), languages=_listed(languages), piece=piece)
    captioner, about = open_captioner(model)  # torch enters here

    from opendalle.dalle3.recaption import WritingConfig
    from opendalle.recipes.captioned import Recaptioning

    draws = {"count": count, "seed": seed, "scenes": scenes, "styles": styles}
    writing = WritingConfig(batch=batch, seed=seed)
    work = Recaptioning(pictures, place, captioner, about, voices=voices, writing=writing, draws=draws)
    unreadable = 0
    with progress("captioning", None) as advance:
        for step in work.steps(share):
            for amiss in step.unreadable:
                tell(f"no caption of {amiss}")
            unreadable += len(step.unreadable)
            advance(step.done, f"of {step.total} pictures  {step.latest}")
    print(place)
    if missing := len(work.shelf.missing()):
        tell(f"{missing} of {work.shelf.num_pieces} pieces are still to be written, by other shards")
    elif report:
        told = Report(clip)
        work.report(told)
        print_scores(told.scores())
    return 1 if unreadable else 0


def _listed(words: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in words.split(",") if one.strip())
