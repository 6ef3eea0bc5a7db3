"""Draw the gallery of the README: fixed prompts, the first seeds, nothing picked.

python bench/gallery.py --out docs/models/dalle2-emoji.png
"""

import argparse
from pathlib import Path

import opendalle
from opendalle.pictures import contact_sheet

PROMPTS = (
    "a red apple",
    "a blue car",
    "a castle",
    "火箭",
    "三个苹果",
    "a rocket over a castle",
    "a star to the left of a heart",
    "一只猫和一棵树",
)


OUT = Path(__file__).parent / "results" / "gallery.png"


def main() -> None:
    """Draw every prompt from seed 0 on, one column a prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dalle2", help="a bundled model or a model folder")
    parser.add_argument("--seeds", type=int, default=4, help="rows: seeds 0, 1, 2, ...")
    parser.add_argument("--size", type=int, default=256, help="side of each picture in pixels")
    parser.add_argument("--shown", type=int, default=128, help="side of each picture on the sheet")
    parser.add_argument("--out", type=Path, default=OUT, help="the sheet to write; replaced if there")
    asked = parser.parse_args()
    dalle = opendalle.load(asked.model)
    drawn = [
        sample.picture.resize((asked.shown, asked.shown))
        for seed in range(asked.seeds)
        for prompt in PROMPTS
        for sample in dalle.generate(prompt, seed=seed, width=asked.size, height=asked.size)
    ]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(drawn, columns=len(PROMPTS))
    sheet.convert("RGB").quantize(255).save(asked.out, optimize=True)
    print(asked.out)


if __name__ == "__main__":
    main()
