"""The only list of what can be asked.

Command-line flags, HTTP fields, the recipe inside a PNG and the OpenAPI document are derived from `Request`;
a house test compares them.  A field's metadata carries its help line and its closed set of choices, so that
every door says the same words.
"""

import numbers
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from types import MappingProxyType, NoneType
from typing import Any, get_args, get_origin

from opendalle.base.errors import BadRequest

BACKGROUNDS = ("auto", "white", "transparent")
SAMPLERS = ("ddim", "ddpm", "dpm++2m", "unipc", "euler", "heun", "consistency")
VERBS = ("generate", "vary", "blend", "morph", "ladder", "edit", "upscale")  # what can be asked of a pipeline
SQUARE = ("generate", "vary", "blend", "morph", "ladder")  # those whose pictures have a size that is asked for
WANDERING = ("generate", "vary", "edit")  # those that draw by chance
CHANGING = ("vary", "blend", "morph", "ladder")  # those that begin with pictures
DRAWING = (*SQUARE, "edit")  # those that ask the decoder
IMAGINING = ("generate", "blend", "edit")  # those that ask the prior
NOISES = ("led", "fixed")
RANKS = ("clip", "likelihood", "gain")
REWRITES = ("off", "own", "http", "local")
PRIOR_FIELDS = ("prior", "prior_steps", "prior_guidance")  # read by generations that have a prior, and by no other
DENOISING_FIELDS = (  # read by generations that denoise, and by no other
    *("steps", "sampler", "refinements", "resamplings", "rescale", "threshold", "renew"),
    *PRIOR_FIELDS,
)
TOKEN_FIELDS = ("temperature", "top_k", "top_p", "rank", "lookahead")  # read by generations that draw words
PRIORS = ("diffusion", "ar", "linear", "projection", "none", "none-shifted", "caption")
MAX_PROMPT_CHARACTERS = 10_000
MAX_COUNT = 1_000
MAX_STEPS = 1_000
MAX_FRAMES = 1_000
MAX_REFINEMENTS = 50
MAX_RESAMPLINGS = 50
MAX_SCALE = 64
MAX_SIDE = 4_096
MAX_SEED = 2**63 - 1

_words_from_type: Mapping[type, str] = MappingProxyType(
    {str: "text", int: "a whole number", float: "a number", bool: "True or False"}
)


def asked(
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    rare: bool = False,
    verbs: tuple[str, ...] = VERBS,
) -> Any:
    """Declare one field of the Request together with the words that every door shows for it.

    Args:
        default: the value when nothing is asked.
        help: one line, shown by `--help` and in the OpenAPI document.
        choices: the closed set of accepted words, if it is closed.
        rare: folded away in `--help`, since few people need it.
        verbs: which of a pipeline's verbs read it; the doors of the others do not show it.
    """
    return field(default=default, metadata={"help": help, "choices": choices, "rare": rare, "verbs": verbs})


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asks of a pipeline.  Plain data: it can be written to JSON and read back.

    `None` means "what the model's card says is best".

    Raises:
        BadRequest: when a value is of another type or outside its range; nothing has been drawn then.
    """

    prompt: str = asked(
        "", "what to draw, in any language; empty is the unconditional model (Python only)", verbs=WANDERING
    )
    count: int = asked(1, "how many pictures", verbs=WANDERING)
    seed: int = asked(0, "seed of the first picture; picture k, from 0, uses seed + k")
    rewrite: str | None = asked(
        None,
        "who turns the prompt into a longer one: the model's own rewriter, a chat address, or a local chat model",
        REWRITES,
        verbs=("generate",),
    )
    revised_prompt: str = asked(
        "", "draw this text, as the rewriting of the prompt; nothing is rewritten then", rare=True, verbs=("generate",)
    )
    width: int = asked(256, "picture width in pixels", verbs=SQUARE)
    height: int = asked(256, "picture height in pixels", verbs=SQUARE)
    background: str = asked("auto", "what lies behind the picture", choices=BACKGROUNDS)
    box: str = asked("", "where to edit, as x,y,width,height in pixels", verbs=("edit",))
    extend: str = asked("", "how far the picture grows, as left=128,top=64", verbs=("edit",))
    mask_white: bool = asked(False, "edit where the mask is white, not where it is transparent", verbs=("edit",))
    keep: str = asked("", "what stays untouched, as x,y,width,height in pixels", verbs=("vary",))
    frames: int = asked(1, "pictures of the way, evenly spaced; 1 is the end of it", verbs=("blend", "morph"))
    weights: tuple[float, ...] = asked((), "how much of each picture; none: of all alike", verbs=("blend",))
    noise: str = asked(
        "led", "the noise of a blend: led from picture to picture, or fixed, one for all", NOISES, verbs=("blend",)
    )
    from_text: str = asked("", "what the picture shows now, as a text; empty: just a picture", verbs=("morph",))
    to_text: str = asked("", "what it shall become", verbs=("morph",))
    strength: float = asked(0.5, "how far the way goes, as a share of the angle, 0 to 1", verbs=("morph",))
    components: tuple[int, ...] = asked(
        (20, 30, 40, 80, 120, 160, 200), "how many principal components each rung keeps", verbs=("ladder",)
    )
    scale: int = asked(4, "how many times the sides grow", verbs=("upscale",))
    renew: float = asked(0.0, "share of the picture's noise that is drawn anew, 0 to 1", verbs=("vary",))
    steps: int | None = asked(None, "denoising steps of the decoder", verbs=DRAWING)
    guidance: float | None = asked(None, "guidance scale of the decoder; 1 is off", verbs=DRAWING)
    sampler: str | None = asked(None, "sampler of the decoder", choices=SAMPLERS, verbs=("generate",))
    eta: float | None = asked(
        None, "fresh noise in each step, 0 to 1: of a variation its strength, 0 rebuilds the picture", verbs=WANDERING
    )
    refinements: int | None = asked(
        None, "network calls that refine each step of the inversion", rare=True, verbs=CHANGING
    )
    resamplings: int | None = asked(
        None, "how often each stretch is drawn again until old and new agree", rare=True, verbs=("edit", "vary")
    )
    context: float = asked(
        0.5, "known ground round what is edited, as a share of its longer side, 0 to 8", rare=True, verbs=("edit",)
    )
    rescale: float = asked(
        0.0, "pull guided predictions back to their unguided spread, 0 to 1", rare=True, verbs=DRAWING
    )
    threshold: float = asked(1.0, "quantile of dynamic thresholding; 1 is off", rare=True, verbs=DRAWING)
    prior: str | None = asked(
        None, "what leads from caption to picture embedding, if the model has it", PRIORS, verbs=IMAGINING
    )
    prior_steps: int | None = asked(None, "denoising steps of the prior", rare=True, verbs=IMAGINING)
    prior_guidance: float | None = asked(None, "guidance scale of the prior; 1 is off", rare=True, verbs=IMAGINING)
    candidates: int | None = asked(
        None,
        "how many are drawn for each picture (by DALL·E 2: embeddings), of which the best is kept",
        rare=True,
        verbs=IMAGINING,
    )
    rank: str | None = asked(
        None,
        "what chooses among DALL·E 1's candidates: CLIP, the model's own likelihood, or what the caption adds to it",
        RANKS,
        rare=True,
        verbs=("generate",),
    )
    temperature: float | None = asked(
        None, "how boldly DALL·E 1 draws words; 0 takes the likeliest", rare=True, verbs=WANDERING
    )
    top_k: int | None = asked(None, "only so many of the likeliest words; 0: all", rare=True, verbs=WANDERING)
    top_p: float | None = asked(
        None, "only the likeliest words that have this probability together; 1: all", rare=True, verbs=WANDERING
    )
    lookahead: int = asked(
        1,
        "words that DALL·E 1 computes in a pass, the same ones at any number; changes speed only",
        rare=True,
        verbs=WANDERING,
    )
    batch: int = asked(4, "pictures drawn at once; changes speed and memory only", rare=True, verbs=SQUARE)
    exact: bool = asked(False, "draw so that a picture's bytes never depend on its batch", rare=True, verbs=SQUARE)
    previews: int = asked(0, "previews of each picture while it is drawn", rare=True, verbs=DRAWING)

    @classmethod
    def of(cls, prompt: Any = "", verb: str = "generate", **asked: Any) -> "Request":
        """Make a Request of keywords that a person typed: a field that does not exist is named, with the likeliest one.

        Args:
            prompt: what to draw.
            verb: what is asked of the pipeline: fields that it does not read are refused, too.
            **asked: the other fields.

        Raises:
            BadRequest: when there is no such field, or a value that the Request refuses.
        """
        known = [one.name for one in fields_of(verb)]
        if strangers := [name for name in asked if name not in known]:
            near = get_close_matches(strangers[0], known, n=1)
            raise BadRequest(
                f"{strangers[0]!r}, which cannot be asked",
                "one of " + ", ".join(known),
                f"Did you mean {near[0]}?" if near else "",
            )
        given = {"prompt": prompt, **asked}
        return cls(
            **{one.name: _plain(one.name, one.type, given[one.name]) for one in fields(cls) if one.name in given}
        )

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, _plain(one.name, one.type, getattr(self, one.name)))
        for text in (self.prompt, self.revised_prompt, self.from_text, self.to_text):
            _check_prompt(text)
        _check_range("count", self.count, 1, MAX_COUNT)
        _check_range("seed", self.seed, 0, MAX_SEED - MAX_COUNT)
        _check_range("width", self.width, 1, MAX_SIDE)
        _check_range("height", self.height, 1, MAX_SIDE)
        _check_range("steps", self.steps, 1, MAX_STEPS)
        _check_range("guidance", self.guidance, 0.0, 100.0)
        _check_range("eta", self.eta, 0.0, 1.0)
        _check_range("frames", self.frames, 1, MAX_FRAMES)
        _check_range("strength", self.strength, 0.0, 1.0)
        _check_range("scale", self.scale, 1, MAX_SCALE)
        _check_range("renew", self.renew, 0.0, 1.0)
        _check_range("context", self.context, 0.0, 8.0)
        _check_range("resamplings", self.resamplings, 1, MAX_RESAMPLINGS)
        _check_range("refinements", self.refinements, 0, MAX_REFINEMENTS)
        for weight in self.weights:
            _check_range("a weight", weight, 0.0, 1e6)
        for number in self.components:
            _check_range("a number of components", number, 1, MAX_SIDE)
        _check_range("rescale", self.rescale, 0.0, 1.0)
        _check_range("threshold", self.threshold, 0.5, 1.0)
        _check_range("prior_steps", self.prior_steps, 1, MAX_STEPS)
        _check_range("prior_guidance", self.prior_guidance, 0.0, 100.0)
        _check_range("candidates", self.candidates, 1, 64)
        _check_range("temperature", self.temperature, 0.0, 100.0)
        _check_range("top_k", self.top_k, 0, 1_000_000)
        _check_range("top_p", self.top_p, 1e-6, 1.0)
        _check_range("lookahead", self.lookahead, 1, 65_536)
        _check_range("batch", self.batch, 1, 256)
        _check_range("previews", self.previews, 0, MAX_STEPS)
        for one in fields(self):
            choices, value = one.metadata["choices"], getattr(self, one.name)
            if choices and value is not None and value not in choices:
                raise BadRequest(f"{one.name} is {value!r}", "one of " + ", ".join(choices))

    def asked_of(self, verb: str) -> dict[str, Any]:
        """Return the fields that a verb reads, as a recipe keeps them and a pipeline's method takes them.

        Args:
            verb: one of VERBS.
        """
        return {one.name: getattr(self, one.name) for one in fields_of(verb)}

    def refuse(self, unread: Iterable[str], model: str) -> None:
        """Refuse wishes that a model would ignore.

        Args:
            unread: fields that it does not read.
            model: its name, for the message.

        Raises:
            BadRequest: when one of them was asked for.
        """
        of_class = {one.name: one.default for one in fields(self)}
        for name in unread:
            if getattr(self, name) != of_class[name]:
                raise BadRequest(f"{name} is {getattr(self, name)!r}", f"no {name}: {model} does not read it")

    def refuse_unwritten(self, model: str) -> None:
        """Refuse to draw the prompt as it is when somebody else was to rewrite it first.

        Args:
            model: that does not rewrite, for the message.

        Raises:
            BadRequest: when a rewriting was asked for and none is there.
        """
        if self.rewrite in (None, "off") or self.revised_prompt or not self.prompt.strip():
            return
        todo = "The command line rewrites by http and local; in Python see opendalle.dalle3.rewriting."
        came = f"rewrite is {self.rewrite!r}, and no revised_prompt is there"
        raise BadRequest(came, f"a prompt that was rewritten before: {model} does not do it", todo)

    @property
    def caption(self) -> str:
        """The text that is drawn: the prompt, or what was made of it."""
        return self.revised_prompt or self.prompt

    def seeds(self) -> tuple[int, ...]:
        """Seeds of the pictures asked for, in order."""
        return tuple(range(self.seed, self.seed + self.count))


def fields_of(verb: str) -> tuple[Field[Any], ...]:
    """Return the fields that a verb reads, in their order.

    Args:
        verb: one of VERBS.
    """
    return tuple(one for one in fields(Request) if verb in one.metadata["verbs"])


def _plain(name: str, hint: Any, value: Any) -> Any:
    """Return the value as one of Python's own types, since a recipe is JSON: NumPy's numbers are welcome, too."""
    if get_origin(hint) is tuple:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise BadRequest(f"{name} is {value!r:.80}", "several numbers")
        return tuple(_plain(name, get_args(hint)[0], one) for one in value)
    kinds = get_args(hint) or (hint,)
    if value is None and NoneType in kinds:
        return None
    kind: type = kinds[0]
    if isinstance(value, bool) == (kind is bool):  # True is a 1 to Python, and no count of pictures
        if isinstance(value, kind):
            return value
        if kind is int and isinstance(value, numbers.Integral):
            return int(value)
        if kind is float and isinstance(value, numbers.Real):
            return value if isinstance(value, int) else float(value)
    came = f"{value!r:.80}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"
    raise BadRequest(f"{name} is {came}", _words_from_type[kind])


def _check_range(name: str, value: float | int | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:  # also refuses NaN
        raise BadRequest(f"{name} is {value}", f"{low} to {high}")


def _check_prompt(prompt: str) -> None:
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise BadRequest(f"a prompt of {len(prompt)} characters", f"at most {MAX_PROMPT_CHARACTERS}")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        if "\udc80" <= prompt[error.start] <= "\udcff":  # so Python hands on what a terminal sent and it cannot decode
            raise BadRequest(
                "a prompt with bytes that are not UTF-8", "text in UTF-8", "Is the terminal set to another alphabet?"
            ) from None
        raise BadRequest("a prompt with half a surrogate pair", "valid Unicode text") from None
