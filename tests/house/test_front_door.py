"""`opendalle --help` answers at once, and the Request is the only list of what can be asked."""

import resource
import statistics
from dataclasses import fields
from typing import get_args

HELP_SECONDS = 0.5
RUNS = 5

HELP = """
import sys
sys.argv = ["opendalle", *sys.argv[1:]]
from opendalle.cli.app import main
try:
    main()
finally:
    heavy = {"torch", "numpy", "PIL", "transformers"} & set(sys.modules)
    assert not heavy or sys.argv[1:] != ["--help"], heavy
    assert "torch" not in sys.modules
"""


def test_help_takes_half_a_second_and_no_torch(house):
    """Measured in processor time: on an idle machine that is what a person waits, on a busy one it is still fair."""
    times = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "generate" in house.python("-c", HELP, "--help").stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert statistics.median(times) <= HELP_SECONDS


def test_help_of_a_verb_needs_no_torch_either(house):
    for verb in ("generate", "train", "evaluate", "study", "doctor"):
        assert "Example: opendalle" in house.python("-c", HELP, verb, "--help").stdout


OWN = {  # flags and words that are no field, by verb
    "generate": {"PROMPT", "embedding", "prompts", "watch", "again", "input", "chat_url", "chat_model"},
    "vary": {"IMAGE", "PROMPT"},
    "blend": {"SOURCES"},
    "morph": {"IMAGE", "from", "to"},
    "ladder": {"IMAGE"},
    "edit": {"IMAGE", "PROMPT", "mask"},
    "upscale": {"IMAGE"},
}


def test_the_flags_are_the_request():
    """Every field has exactly one door in each verb that reads it; a flag that is no field is known here by name."""
    from opendalle.base.request import SQUARE, VERBS, fields_of
    from opendalle.cli.app import build_app
    from opendalle.cli.asked import ELSEWHERE

    assert set(OWN) == set(VERBS)
    for verb, own in OWN.items():
        arguments = build_app()[verb].assemble_argument_collection(parse_docstring=True)
        flags = {one.name.lstrip("-").replace("-", "_") for one in arguments} - {"*"}
        own = own | {"model", "out"} | ({"size"} if verb in SQUARE else set())
        assert flags - own == {one.name for one in fields_of(verb)} - set(ELSEWHERE)
        assert own <= flags


def test_the_flags_say_the_words_and_defaults_of_the_request():
    from opendalle.base.request import Request
    from opendalle.cli.asked import Asked, AskedBlend, AskedEdit, AskedLadder, AskedMorph, AskedUpscale, AskedVary

    of_request = {one.name: one for one in fields(Request)}
    for asked in (Asked, AskedVary, AskedBlend, AskedMorph, AskedLadder, AskedEdit, AskedUpscale):
        for flag in fields(asked):  # pyright: ignore[reportArgumentType]
            default = of_request[flag.name].default
            assert flag.default == (",".join(map(str, default)) if isinstance(default, tuple) else default)
            (looks,) = get_args(flag.type)[1:]
            assert looks.help == of_request[flag.name].metadata["help"]


def test_the_recipe_holds_every_field_of_the_request():
    from PIL import Image

    from opendalle.base.records import Sample
    from opendalle.base.request import Request, fields_of
    from opendalle.cli.drawing import recipe_of

    sample = Sample(picture=Image.new("RGB", (1, 1)), request=Request(prompt="a"), index=0, seed=0, step=1, num_steps=1)
    assert set(recipe_of(sample, "dalle2")["request"]) == {one.name for one in fields_of("generate")}
