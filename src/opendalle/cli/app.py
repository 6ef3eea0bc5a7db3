"""`opendalle VERB ...`: which verbs there are, and what every verb does with errors, Ctrl-C and exit codes.

Exit codes: 0 done; 1 begun but not done, or something was found amiss; 2 wrong use, or a file that cannot be used, and
nothing was written.
"""

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from opendalle import __version__
from opendalle.base.errors import OpenDalleError
from opendalle.cli.console import drop, one_line, open_streams, tell

if TYPE_CHECKING:
    import cyclopts

DONE, NOT_DONE, WRONG_USE = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb: `opendalle.cli.NAME:NAME`, a function, or an App with verbs of its own (which brings its example)."""

    name: str
    help: str  # one line, told here so that `opendalle --help` need not import the verb
    example: str | None = None


VERBS = (
    Verb(
        name="generate",
        help="Draw pictures from a sentence, in any language, and print where each one lies.",
        example='opendalle generate "a red apple wearing sunglasses" --count 4 --seed 7 --background transparent',
    ),
    Verb(
        name="vary",
        help="Draw a picture anew: the same in meaning, other in what meaning does not fix.",
        example="opendalle vary cat.png --count 4 --eta 0.8",
    ),
    Verb(
        name="blend",
        help="Draw what stands between pictures, or between the pictures of sentences.",
        example='opendalle blend cat.png "a rocket" --frames 16 --out way.gif',
    ),
    Verb(
        name="morph",
        help="Lead a picture along the difference of two texts.",
        example='opendalle morph apple.png --from "a red apple" --to "a green apple" --frames 8 --out ripening.gif',
    ),
    Verb(
        name="ladder",
        help="Rebuild a picture from few and more principal components of its embedding.",
        example="opendalle ladder cat.png --components 5,20,80,200",
    ),
    Verb(
        name="edit",
        help="Draw a part of a picture anew, or let it grow; all else stays as it is, to the byte.",
        example='opendalle edit cat.png "a cat with a hat" --box 80,0,96,80',
    ),
    Verb(
        name="upscale",
        help="Enlarge a picture of any size with the upsamplers.",
        example="opendalle upscale cat.png --scale 4",
    ),
    Verb(
        name="embed",
        help="Write the CLIP embedding of a picture or a text, for generate --embedding.",
        example="opendalle embed cat.png --out cat.safetensors",
    ),
    Verb(
        name="caption",
        help="Say what pictures show, in English or Chinese, in a few words or in many.",
        example="opendalle caption holiday --kind descriptive --language en --out captions.jsonl",
    ),
    Verb(
        name="train",
        help="Train a model on your own captioned pictures: every stage of a recipe, in order.",
        example="opendalle train dalle2 --data my-pictures --out my-model --max-minutes 120",
    ),
    Verb(name="data", help="Make a picture set to train on, or write its captions anew."),
    Verb(name="evaluate", help="Score a model: does it draw what it is asked, or say what it sees?"),
    Verb(name="study", help="Measure again what the papers claim."),
    Verb(name="models", help="List, show and verify models."),
    Verb(name="doctor", help="Check that this machine is ready to draw.", example="opendalle doctor"),
)


def build_app() -> "cyclopts.App":
    """Return the command line; a verb's file is imported only when that verb is called."""
    import cyclopts  # here, and in `run`, so that Ctrl-C during this import is met by `run`, too

    app = cyclopts.App(
        name="opendalle",
        help="Draw, change, train and study text-to-image with DALL·E 2, offline.",
        help_epilogue='Example: opendalle generate "a red apple wearing sunglasses" --count 4',
        help_format="plaintext",
        version=__version__,
        suppress_keyboard_interrupt=False,
    )
    for verb in VERBS:
        more = {"help_epilogue": f"Example: {verb.example}"} if verb.example else {}
        app.command(f"opendalle.cli.{verb.name}:{verb.name}", name=verb.name, help=verb.help, **more)
    return app


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit code.

    Args:
        arguments: the words after `opendalle`.
    """
    try:
        return _call(arguments)
    except OpenDalleError as error:
        tell(str(error))
        return WRONG_USE
    except BrokenPipeError:  # whoever read our output has seen enough
        drop(sys.stdout)
        return NOT_DONE
    except OSError as error:  # the last net: full disks, rights that changed meanwhile
        where = f"{error.filename}: " if error.filename is not None else ""
        tell(f"the system refused: {where}{error.strerror or error}")
        return NOT_DONE
    except KeyboardInterrupt:
        tell("stopped; every file that was named is whole")
        return NOT_DONE


def _call(arguments: Sequence[str]) -> int:
    """Let cyclopts find the verb and call it; what cannot be read as a command line is wrong use."""
    import cyclopts

    try:
        result = build_app()(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        verb = " ".join(error.command_chain or ())
        if isinstance(error, cyclopts.UnusedCliTokensError):
            quotes = "; put a prompt of several words in quotes" if verb == "generate" else ""
            advice = f"too many{quotes} (opendalle {verb} --help tells more)"
            tell(f"{' '.join(map(repr, error.unused_tokens or ()))} {advice}")
        else:
            tell(f"{one_line(str(error))} (opendalle {verb} --help tells more)")
        return WRONG_USE
    sys.stdout.flush()  # here, where a full disk is still told in words
    return result if isinstance(result, int) else DONE


def main() -> NoReturn:
    """Run the command line of this process."""
    code = NOT_DONE
    try:
        open_streams()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill cleans up as Ctrl-C does
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        tell("stopped")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # Python would complain once more at exit
            drop(stream)
    sys.exit(code)
