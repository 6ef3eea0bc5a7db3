"""Fitting pictures of any shape into what a network takes, and finding them there again."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image

from opendalle.base.errors import BadPicture
from opendalle.pictures.arrays import to_array
from opendalle.pictures.reading import Source, plain_picture, read_bytes, read_picture
from opendalle.pictures.sheets import composite

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, kw_only=True)
class Given:
    """A picture that somebody handed in, and how a recipe names it."""

    picture: Image.Image  # RGB or RGBA, upright
    name: str  # of the file, without its place
    sha256: str  # of the file's bytes; of a picture in memory, of its pixels

    @property
    def is_clear(self) -> bool:
        """Whether something shines through somewhere."""
        return self.picture.mode == "RGBA" and self.picture.getextrema()[3][0] < 255  # type: ignore[index]

    def record(self) -> dict[str, str]:
        """What a recipe keeps of it."""
        return {"name": self.name, "sha256": self.sha256}

    def square(self, side: int, channels: int) -> Float32[np.ndarray, "c h w"]:
        """Return it as numbers in [-1, 1], fitted into a square.

        Args:
            side: of the square, in pixels.
            channels: 4 keeps transparency, also round a picture that is no square; 3 lays all on white.
        """
        return self.fitted(side, side, channels)

    def fitted(self, width: int, height: int, channels: int) -> Float32[np.ndarray, "c h w"]:
        """Return it as numbers in [-1, 1], fitted into a rectangle.

        Args:
            width: of the rectangle, in pixels.
            height: of the rectangle.
            channels: as in `square`.
        """
        fitted = fit(self.picture, width, height)
        return to_array(fitted if channels == 4 else composite(fitted))


AnyPicture = Source | Image.Image | Given
PictureOrText = AnyPicture | str


def take_or_text(source: PictureOrText) -> Given | str:
    """Take a picture, or a text: of words, those that name a file or end like a picture's name are a picture.

    Args:
        source: what `take` takes, or a text.

    Raises:
        BadPicture: as `take`.
    """
    if isinstance(source, str) and not source.lower().endswith(PICTURE_ENDINGS):
        try:
            is_file = Path(source).is_file()
        except (OSError, ValueError):  # longer than a name may be, or with a zero byte
            is_file = False
        if not is_file:
            return source
    return take(source)


def take(source: AnyPicture) -> Given:
    """Read a picture, or take one that is in memory.

    Args:
        source: what `read_picture` reads, a Pillow image of any mode, or what was taken already.

    Raises:
        BadPicture: as `read_picture`.
    """
    if isinstance(source, Given):
        return source
    if isinstance(source, Image.Image):
        picture = plain_picture(source)
        told = f"{picture.mode} {picture.size} ".encode() + picture.tobytes()
        return Given(picture=picture, name="picture", sha256=hashlib.sha256(told).hexdigest())
    data = read_bytes(source)
    name = Path(source).name if isinstance(source, Path | str) else "picture"
    try:
        picture = read_picture(data)
    except BadPicture as error:
        raise BadPicture(error.came.replace("the picture", str(source), 1), error.wanted, error.todo) from None
    return Given(picture=picture, name=name, sha256=hashlib.sha256(data).hexdigest())


def fit_box(width: int, height: int, wide: int, high: int | None = None) -> Box:
    """Say where a picture lies in a rectangle that it is fitted into: in the middle, as large as it can be.

    Args:
        width: of the picture, in pixels.
        height: of the picture.
        wide: width of the rectangle.
        high: height of the rectangle; None: it is a square.
    """
    high = wide if high is None else high
    if width * high >= height * wide:
        across, down = wide, max(1, round(height * wide / width))
    else:
        across, down = max(1, round(width * high / height)), high
    left, top = (wide - across) // 2, (high - down) // 2
    return left, top, left + across, top + down


def fit(picture: Image.Image, wide: int, high: int | None = None) -> Image.Image:
    """Fit a picture into a rectangle, transparent where it does not reach.

    Args:
        picture: RGB or RGBA with straight alpha.
        wide: width of the rectangle, in pixels.
        high: height of the rectangle; None: it is a square.

    Returns:
        RGBA with straight alpha.
    """
    high = wide if high is None else high
    left, top, right, bottom = fit_box(picture.width, picture.height, wide, high)
    ground = Image.new("RGBA", (wide, high), (0, 0, 0, 0))
    ground.paste(resize(picture.convert("RGBA"), right - left, bottom - top), (left, top))
    return ground


def resize(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Resize with premultiplied colour, so that what lies hidden under transparency does not leak into edges.

    Args:
        picture: RGB or RGBA with straight alpha.
        width: wanted, in pixels.
        height: wanted.
    """
    if picture.size == (width, height):
        return picture.copy()
    if picture.mode == "RGB":
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    return picture.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
