"""`opendalle caption`: what pictures show, in words."""

import json as plain_json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from opendalle.base.errors import BadPicture, BadRequest
from opendalle.cli.asked import RARE, whole_number
from opendalle.cli.captioning import CAPTIONER, Report, open_captioner, plain
from opendalle.cli.console import one_line, progress, tell
from opendalle.cli.drawing import FILES
from opendalle.cli.pictures_in import STANDARD_INPUT, picture_of
from opendalle.pictures import Given, fit, refuse_unwritable
from opendalle.pictures.fitting import PICTURE_ENDINGS
from opendalle.pictures.writing import write_whole

ENDINGS = (".jsonl", ".txt")  # of a file of captions


def caption(
    *pictures: Annotated[str, Parameter(allow_leading_hyphen=True)],
    kind: Literal["short", "descriptive", "original"] = "descriptive",
    language: Literal["en", "zh"] = "en",
    model: str = CAPTIONER,
    json: Annotated[bool, Parameter(negative="")] = False,
    report: Annotated[bool, Parameter(negative="")] = False,
    clip: str | None = None,
    out: Annotated[Path | None, Parameter(group=FILES)] = None,
    seed: Annotated[int, Parameter(group=RARE, converter=whole_number)] = 0,
    batch: Annotated[int, Parameter(group=RARE, converter=whole_number)] = 16,
) -> int:
    """Say what pictures show: a line each, with the picture's name before it where there are several.

    A file that is no picture is told of and left out; the exit code is then 1, or 2 where nothing could be captioned.

    Args:
        pictures: Picture files, folders of them (with all below), or - for standard input.
        kind: short names the main thing; descriptive tells all; original writes as the training set did.
        language: English or Chinese.
        model: A bundled captioner, or a model folder.
        json: Print lines of JSON: name, kind, language, text, score (log likelihood, in nats).
        report: Also print statistics of the captions: words, variety, habits.
        clip: With --report: a bundled CLIP, or a model folder, that says how well captions fit.
        out: Write the lines into this file instead, .txt or .jsonl. Nothing is overwritten.
        seed: Where the captioner draws by chance: picture k uses seed + k.
        batch: Pictures looked at together; changes speed and memory only.

    Returns:
        The exit code.

    Raises:
        BadRequest: when the words do not fit together.
    """
    if batch < 1 or seed < 0:
        raise BadRequest(f"--batch {batch}, --seed {seed}", "at least 1, and at least 0")
    if clip is not None and not report:
        raise BadRequest("--clip without --report", "both")
    if out is not None:
        if out.suffix.lower() not in ENDINGS:
            raise BadRequest(f"the name {out.name!r}", "a name ending in " + " or ".join(ENDINGS))
        refuse_unwritable(out)
    words = _found(pictures)
    named = len(words) > 1 or words != list(pictures)

    captioner, _ = open_captioner(model)  # torch enters here
    work = _Work(captioner, kind, language, seed, batch, Report(clip) if report else None)
    written: list[str] = []
    with progress("captioning", len(words)) as advance:
        for told in work.captions(words):
            as_json = json or (out is not None and out.suffix.lower() == ".jsonl")
            line = plain_json.dumps(told, ensure_ascii=False) if as_json else _line(told, named=named)
            written.append(line)
            if out is None:
                print(line, flush=True)
            advance(len(written), told["name"])
    if out is not None and written:
        write_whole(out, lambda file: file.write(("\n".join(written) + "\n").encode("utf-8", "surrogateescape")))
        print(out)
    if work.report is not None and written:
        _print_report(work.report, as_json=json)
    if work.amiss:
        return 1 if written else 2
    return 0


@dataclass
class _Work:
    """Captioning files, batch by batch; those that are no pictures are told of."""

    captioner: Any
    kind: str
    language: str
    seed: int
    batch: int
    report: Report | None
    amiss: list[str] = field(default_factory=list)

    def captions(self, words: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield what is said of each picture that can be read, in order."""
        for start in range(0, len(words), self.batch):
            seen = list[tuple[int, str, Given]]()
            for place, word in enumerate(words[start : start + self.batch], start=start):
                try:
                    seen.append((place, word, picture_of(word)))
                except BadPicture as error:
                    self.amiss.append(word)
                    tell(str(error))
            if seen:
                yield from self._told(seen)

    def _told(self, seen: Sequence[tuple[int, str, Given]]) -> Iterator[dict[str, Any]]:
        import numpy as np

        from opendalle.dalle3.recaption import WritingConfig, write_captions

        side = self.captioner.picture_size
        written = write_captions(
            self.captioner,
            np.stack([np.asarray(fit(given.picture, side)) for _, _, given in seen]),
            kind=self.kind,
            language=self.language,
            places=[place for place, _, _ in seen],
            config=WritingConfig(seed=self.seed),
        )
        if self.report is not None:
            self.report.add("captions", [text for text, _ in written], [given.picture for _, _, given in seen])
        for (_, word, _), (text, score) in zip(seen, written, strict=True):
            yield {"name": word, "kind": self.kind, "language": self.language, "text": text, "score": score}


def _found(words: Sequence[str]) -> list[str]:
    """Return the pictures that words name, folders opened."""
    if not words:
        raise BadRequest("no picture", "picture files, a folder of them, or - for standard input")
    found = list[str]()
    for word in words:
        if word == STANDARD_INPUT or not Path(word).is_dir():
            found.append(word)
            continue
        inside = sorted(
            str(path) for path in Path(word).rglob("*") if path.suffix.lower() in PICTURE_ENDINGS and path.is_file()
        )
        if not inside:
            raise BadPicture(f"{word} holds no pictures", "files ending in " + ", ".join(PICTURE_ENDINGS))
        found += inside
    return found


def _line(told: dict[str, Any], *, named: bool) -> str:
    text = one_line(told["text"])
    return f"{told['name']}\t{text}" if named else text


def _print_report(report: Report, *, as_json: bool) -> None:
    from opendalle.cli.evaluate import print_scores

    if as_json:
        for score in report.scores():
            print(plain_json.dumps(plain(score), ensure_ascii=False))
    else:
        print_scores(report.scores())
