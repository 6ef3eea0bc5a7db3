"""Build a world folder from the unpacked npm packages: draw, shrink, name the colours, split, write."""

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from opendalle.base.errors import BadData, require
from opendalle.data.emoji.artwork import FULL_SIZE, Draw, Trace, open_style, open_vectors
from opendalle.data.emoji.catalogue import Words, read_words
from opendalle.data.emoji.colours import colours_of_picture
from opendalle.data.emoji.holdout import HoldoutConfig, concept_held_out, held_out_styles
from opendalle.data.emoji.sources import SOURCES, STYLES, VECTOR_STYLES, source_of_style
from opendalle.data.emoji.world import FORMAT, SMALL_SIZE, VECTORS, Concept, record_of_concept, vector_name

_TWIN_DISTANCE = 0.045  # mean difference of premultiplied pixels under which two gender variants are one drawing


@dataclass(frozen=True, kw_only=True)
class BuildStep:
    """Progress of a build."""

    done: int  # concepts drawn
    total: int
    pictures: int  # drawings kept so far
    name: str  # what was drawn last
    folder: Path | None = None  # the finished world, in the last record


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One concept with its drawings of SMALL_SIZE by style; the large ones are on disk by then."""

    words: Words
    small: Mapping[str, UInt8[np.ndarray, "h w 4"]]


def protected_hexcodes() -> frozenset[str]:
    """Return the everyday objects that scenes need, which are never held out whole."""
    text = resources.files("opendalle.data.emoji").joinpath("objects.json").read_text(encoding="utf-8")
    return frozenset(json.loads(text)["objects"])


def build_world(
    packages: Path, out: Path, *, holdout: HoldoutConfig | None = None, limit: int | None = None
) -> Iterator[BuildStep]:
    """Build a world folder; it appears at `out` whole or not at all.

    Args:
        packages: folder of unpacked packages, `NAME-VERSION/package/...`, as `fetch_packages` leaves it.
        out: where the world goes; must not exist.
        holdout: what to hold out; None: the shares of the bundled models.
        limit: build only this many concepts (for a quick look), at least 1; None: all.

    Yields:
        BuildStep: one record a concept, then one with the finished folder.

    Raises:
        BadConfig: when the limit leaves none.
        BadData: when a package is missing or `out` exists.
    """
    require(limit is None or limit >= 1, f"limit is {limit}", "1 or more")
    words = read_words(packages / _words_folder() / "package")[:limit]
    folders = {style: packages / source_of_style(style).folder / "package" for style in STYLES}
    draws = {style: open_style(folder, style) for style, folder in folders.items()}
    traces = {style: open_vectors(folders[style], style) for style in VECTOR_STYLES}
    sources = [asdict(source) for source in SOURCES]
    yield from write_world(words, draws, out, holdout=holdout or HoldoutConfig(), sources=sources, traces=traces)


def write_world(
    words: Sequence[Words],
    draws: Mapping[str, Draw],
    out: Path,
    *,
    holdout: HoldoutConfig,
    sources: Sequence[Mapping[str, object]],
    traces: Mapping[str, Trace] | None = None,
) -> Iterator[BuildStep]:
    """Draw every concept in every style and write the world folder.

    Args:
        words: concepts in order.
        draws: style -> drawing function.
        out: where the world goes; must not exist.
        holdout: what to hold out.
        sources: where the drawings come from, for the manifest.
        traces: style -> what gives its drawings as vectors; they are kept too, to be drawn at any size.

    Yields:
        BuildStep: one record a concept, then one with the finished folder.

    Raises:
        BadData: when `out` exists.
    """
    if out.exists():
        raise BadData(f"{out} exists", "a new folder", "Delete it first, or choose another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        kept: dict[str, Drawn] = {}
        pictures = 0
        for number, word in enumerate(words, start=1):
            full = {style: picture for style, draw in draws.items() if (picture := draw(word.hexcode)) is not None}
            drawn = Drawn(words=word, small={style: shrink(picture, SMALL_SIZE) for style, picture in full.items()})
            if full and not (word.is_variant and _is_twin(drawn, kept.values())):
                kept[word.hexcode] = drawn
                pictures += len(full)
                for style, picture in full.items():
                    _write_png(picture, work / "sprites-256" / style / f"{word.hexcode}.png")
            yield BuildStep(done=number, total=len(words), pictures=pictures, name=word.names["en"])
        if traces:
            _write_vectors(kept.values(), traces, work / VECTORS)
        _finish(list(kept.values()), tuple(draws), work, holdout, sources)
        work.rename(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    yield BuildStep(done=len(words), total=len(words), pictures=pictures, name="", folder=out)


def shrink(picture: UInt8[np.ndarray, "h w 4"], size: int) -> UInt8[np.ndarray, "s s 4"]:
    """Resize a picture with colour weighted by alpha, so that clear pixels never bleed into edges.

    Args:
        picture: RGBA, straight alpha.
        size: wanted side in pixels.
    """
    image = Image.fromarray(picture).convert("RGBa")  # premultiplied
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=None).convert("RGBA"))


def _is_twin(drawn: Drawn, others: Iterable[Drawn]) -> bool:
    """Whether a gender variant looks like a kept member of its family in at least half of its styles."""
    for other in others:
        if other.words.family != drawn.words.family:
            continue
        shared = [style for style in drawn.small if style in other.small]
        same = [_distance(drawn.small[style], other.small[style]) < _TWIN_DISTANCE for style in shared]
        if shared and sum(same) * 2 >= len(same):
            return True
    return False


def _distance(one: UInt8[np.ndarray, "h w 4"], other: UInt8[np.ndarray, "h w 4"]) -> float:
    return float(np.abs(_premultiplied(one) - _premultiplied(other)).mean())


def _premultiplied(picture: UInt8[np.ndarray, "h w 4"]) -> np.ndarray:
    values = picture.astype(np.float32) / 255.0
    values[..., :3] *= values[..., 3:]
    return values


def _write_png(picture: UInt8[np.ndarray, "h w 4"], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, compress_level=4)


def _write_vectors(drawn: Iterable[Drawn], traces: Mapping[str, Trace], path: Path) -> None:
    """Keep the SVG documents of all drawings that have one, in one file of the same bytes every time."""
    with zipfile.ZipFile(path, "w") as file:
        for one in drawn:
            for style in one.small:
                svg = traces[style](one.words.hexcode) if style in traces else None
                if svg is not None:
                    member = zipfile.ZipInfo(vector_name(one.words.hexcode, style))  # dated 1980, as every time
                    file.writestr(member, svg, zipfile.ZIP_DEFLATED, compresslevel=9)


def _finish(
    drawn: Sequence[Drawn],
    styles: tuple[str, ...],
    work: Path,
    holdout: HoldoutConfig,
    sources: Sequence[Mapping[str, object]],
) -> None:
    """Write the array, the words and, last, the manifest."""
    rows: list[UInt8[np.ndarray, "h w 4"]] = []
    concepts = []
    protected = protected_hexcodes()
    protected_families = {one.words.family for one in drawn if one.words.hexcode in protected}
    for one in drawn:
        word = one.words
        held_out = concept_held_out(word.family, holdout) and word.family not in protected_families
        own_styles = tuple(style for style in styles if style in one.small)
        concepts.append(
            Concept(
                hexcode=word.hexcode,
                family=word.family,
                names=word.names,
                keywords=word.keywords,
                group=word.group,
                subgroup=word.subgroup,
                rows={style: len(rows) + number for number, style in enumerate(own_styles)},
                colours={style: tuple(colours_of_picture(one.small[style])) for style in own_styles},
                held_out=held_out,
                held_out_styles=() if held_out else held_out_styles(word.family, own_styles, holdout),
            )
        )
        rows += [one.small[style] for style in own_styles]
    sprites = np.stack(rows)
    text = json.dumps([record_of_concept(concept) for concept in concepts], ensure_ascii=False, indent=0)
    (work / "concepts.json").write_text(text, encoding="utf-8")
    np.save(work / "sprites-64.npy", sprites, allow_pickle=False)
    manifest = {
        "format": FORMAT,
        "styles": list(styles),
        "sizes": [SMALL_SIZE, FULL_SIZE],
        "num_concepts": len(concepts),
        "num_pictures": len(rows),
        "holdout": asdict(holdout),
        "sources": [dict(source) for source in sources],
        "stamp": hashlib.sha256(text.encode() + sprites.tobytes()).hexdigest(),
    }
    (work / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=2), encoding="utf-8")


def _words_folder() -> str:
    return next(source.folder for source in SOURCES if source.style is None)
