"""Frames as one file: GIF, which everybody can show, or MP4, which is small."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from opendalle.base.errors import BadPicture, MissingExtra
from opendalle.pictures.sheets import WHITE, composite
from opendalle.pictures.writing import require_ending, write_gif, write_whole

ANIMATIONS = (".gif", ".mp4")
FRAME_MS = 80  # how long a frame is shown, unless it is said


def write_animation(frames: Sequence[Image.Image], path: Path | str, ms: int = FRAME_MS) -> Path:
    """Write frames as what the name ends in.

    Args:
        frames: pictures of one size, first to last; transparent ones are laid on white.
        path: a name ending in .gif or .mp4 that is free.
        ms: how long a frame is shown, in milliseconds.

    Raises:
        BadPicture: when there is no frame.
        BadRequest: when the name is taken, has another ending, or its folder cannot be written.
        MissingExtra: for .mp4, where PyAV is not installed.
    """
    if Path(path).suffix.lower() == ".mp4":
        return write_mp4(frames, path, ms)
    return write_gif(frames, path, ms)


def write_mp4(frames: Sequence[Image.Image], path: Path | str, ms: int = FRAME_MS) -> Path:
    """Write frames as an H.264 film that every browser plays.

    Args:
        frames: pictures of one size; odd sides lose their last row or column, since the format halves its colours.
        path: a name ending in .mp4 that is free.
        ms: how long a frame is shown, in milliseconds.

    Raises:
        BadPicture: when there is no frame, or one smaller than two by two.
        BadRequest: when the name is taken, has another ending, or its folder cannot be written.
        MissingExtra: where PyAV is not installed.
    """
    path = Path(path)
    require_ending(path, ".mp4")
    if not frames or min(frames[0].size) < 2:
        raise BadPicture("a film of no frames" if not frames else "a film of single pixels", "frames of some size")
    try:
        import av
    except ImportError:
        raise MissingExtra("writing .mp4", "video") from None
    width, height = (side // 2 * 2 for side in frames[0].size)

    def write(file: BinaryIO) -> None:
        with av.open(file, mode="w", format="mp4") as film:
            stream = film.add_stream("libx264", rate=max(1, round(1000 / ms)))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": "16"}
            for frame in frames:
                values = np.asarray(composite(frame, WHITE))[:height, :width]
                film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgb24")))
            film.mux(stream.encode())

    write_whole(path, write)
    return path
