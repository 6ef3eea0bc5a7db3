"""`opendalle evaluate`: does a model draw what it is asked?"""

import json
from pathlib import Path

from opendalle.base.errors import BadRequest
from opendalle.cli.console import progress
from opendalle.pictures import refuse_existing


def evaluate(model: str = "dalle2", /, *, out: Path | None = None) -> int:
    """Score a model with a judge that was trained apart, and print each score as it comes.

    Args:
        model: A bundled model, or a model folder.
        out: Also write the scores into this .json file; must not exist.

    Returns:
        The exit code.

    Raises:
        BadRequest: when the name of the file is unfit or taken.
    """
    if out is not None:
        if out.suffix.lower() != ".json":
            raise BadRequest(f"--out {out}", "a name ending in .json")
        refuse_existing(out)

    from opendalle import evaluation  # torch enters here

    scores: dict[str, float] = {}
    with progress("scoring", None) as advance:
        for name, value in evaluation.evaluate(model):
            scores[name] = value
            print(f"{name:<48} {value:.4f}", flush=True)
            advance(len(scores), name)
    if out is not None:
        with out.open("x", encoding="utf-8") as file:
            json.dump({"model": Path(model).name, "scores": scores}, file, indent=2, ensure_ascii=False)
        print(out)
    return 0
