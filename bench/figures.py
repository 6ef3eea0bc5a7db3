"""Make the pictures of docs/edit.md by running the commands that the page shows.

    python bench/figures.py --out docs/edit

Every block of commands is run, in order and in one empty folder, as a reader would.  The image that follows a block
shows all pictures that it wrote, side by side, nothing picked.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import tempfile
from pathlib import Path

from opendalle.cli.app import run
from opendalle.pictures import contact_sheet, fit, read_picture

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"^```sh\n(?P<body>.*?)^```\n+(?:!\[[^\]]*\]\(edit/(?P<name>[\w-]+)\.png\))?", re.MULTILINE | re.DOTALL
)
SIDE, WIDTH = 128, 1_100  # of a shown picture, and most of a row, in pixels


def main() -> None:
    """Run every block and write its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "edit.md")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "edit")
    asked = parser.parse_args()
    page, out = asked.page.read_text(encoding="utf-8"), asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for block in BLOCK.finditer(page):
            written: list[str] = []
            for line in block["body"].splitlines():
                said = io.StringIO()
                with contextlib.redirect_stdout(said):
                    code = run(shlex.split(line, comments=True)[1:])
                if code:
                    raise SystemExit(f"{line}: exit code {code}")
                written += [one for one in said.getvalue().splitlines() if one.endswith(".png")]
            if block["name"]:
                pictures = [read_picture(one) for one in written]
                if len(pictures) == 1 and pictures[0].width > WIDTH:
                    sheet = pictures[0].resize((WIDTH, pictures[0].height * WIDTH // pictures[0].width))
                elif len(pictures) == 1:
                    sheet = contact_sheet(pictures)
                else:
                    sheet = contact_sheet([fit(one, SIDE) for one in pictures], columns=len(pictures), gap=4)
                sheet.save(out / f"{block['name']}.png", optimize=True)
                print(out / f"{block['name']}.png", flush=True)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
