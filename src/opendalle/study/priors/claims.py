"""What the papers found about priors, each with the difference that tests it here.

Source: unCLIP, arXiv:2204.06125, sections 5 and 7; Kandinsky, arXiv:2310.03502; ECLIPSE, arXiv:2312.04655.
"""

from collections.abc import Callable, Sequence

from opendalle.evaluation.metrics import Interval
from opendalle.study.findings import Claim, Finding
from opendalle.study.priors.readings import OF_RIGHT, OWN, Readings
from opendalle.study.questions import SCENES, SINGLE

PAPER = "unCLIP, arXiv:2204.06125"
TWIN, TEXT_TWIN = "twin-embedding", "twin-caption"  # arms: trained with z_i and caption, and with the caption only
DECODER, PRIOR = "guidance", "prior_guidance"  # knobs of the guidance curves

_STAND_IN = (
    "GLIDE's part is played by the same decoder with its picture embedding left out (prior `caption`), which learned "
    "from captions alone in a part of its lessons only. "
)
_RIGHT = "Failures are diverse, too, so only prompts count that both sides draw recognisably every time."
_BUDGETS = "The priors compared here had different budgets; the model's card tells them."

Test = Callable[[Readings, tuple[float, float]], Interval | None]


def _against(other: str, measure: str, first: str = OWN) -> Test:
    return lambda readings, scales: readings.against(first, other, measure)


def _step(knob: str, measure: str) -> Test:
    """From no guidance to twice, or as near to that as was measured."""

    def test(readings: Readings, scales: tuple[float, float]) -> Interval | None:
        high, low = (readings.guided(OWN, knob, scale, measure) for scale in (2.0, 1.0))
        return readings.gap(high, low)

    return test


def _loss(readings: Readings, scales: tuple[float, float]) -> Interval | None:
    """How much less diversity unCLIP loses, over the whole range of guidance."""
    ours, theirs = (readings.change(prior, DECODER, scales, OF_RIGHT) for prior in (OWN, "caption"))
    return readings.gap(ours, theirs)


def _harm(readings: Readings, scales: tuple[float, float]) -> Interval | None:
    low, high = (readings.guided(OWN, PRIOR, scale, "top1") for scale in scales)
    return readings.gap(high, low)


def _twins(measure: str, group: str) -> Test:
    return lambda readings, scales: readings.gap(*(readings.drawn(group, arm, measure) for arm in (TWIN, TEXT_TWIN)))


CLAIMS: Sequence[tuple[Claim, Test]] = (
    (
        Claim(
            name="prior-or-text",
            says="A prior is needed: the caption's own embedding in a picture's place draws worse.",
            theirs="FID 7.99 with a prior, 16.55 without",
            where=f"{PAPER}, section 5.1",
            measured="the judge's first guess is right, diffusion - none",
            expected=1,
        ),
        _against("none", "top1"),
    ),
    (
        Claim(
            name="prior-or-caption",
            says="With neither, from the caption alone, the decoder draws worst.",
            theirs="shown in a figure, without a number",
            where=f"{PAPER}, section 5.1",
            measured="the judge's first guess is right, none - caption",
            expected=1,
        ),
        _against("caption", "top1", "none"),
    ),
    (
        Claim(
            name="diffusion-or-ar",
            says="The diffusion prior beats the autoregressive one.",
            theirs="FID 10.39 against 10.63; 45.3 % against 41.1 % of votes for caption match",
            where=f"{PAPER}, sections 5.2 and 5.4",
            measured="the judge's first guess is right, diffusion - ar",
            expected=1,
            note=_BUDGETS,
        ),
        _against("ar", "top1"),
    ),
    (
        Claim(
            name="diffusion-or-ar-diversity",
            says="The diffusion prior's pictures are more diverse than the autoregressive one's.",
            theirs="70.5 % against 62.6 % of votes, each against GLIDE",
            where=f"{PAPER}, section 5.2",
            measured="diversity of one caption's pictures, diffusion - ar",
            expected=1,
            note=f"{_BUDGETS} {_RIGHT}",
        ),
        _against("ar", OF_RIGHT),
    ),
    (
        Claim(
            name="guidance-helps",
            says="Guiding the decoder makes better pictures.",
            theirs="better aesthetics, without recall being lost",
            where=f"{PAPER}, section 5.5",
            measured="the judge's first guess is right, decoder guidance 2 - 1",
            expected=1,
        ),
        _step(DECODER, "top1"),
    ),
    (
        Claim(
            name="guidance-and-diversity",
            says="Guidance costs unCLIP less diversity than a decoder that knows only the caption.",
            theirs="at guidance 2 GLIDE is as good but less diverse",
            where=f"{PAPER}, section 5.3",
            measured="change of diversity from least to most guidance, diffusion - caption",
            expected=1,
            note=_STAND_IN + _RIGHT,
        ),
        _loss,
    ),
    (
        Claim(
            name="diversity",
            says="One caption's pictures are more diverse than those of a decoder that knows only the caption.",
            theirs="70.5 % of votes against GLIDE",
            where=f"{PAPER}, section 5.2",
            measured="diversity of one caption's pictures, diffusion - caption",
            expected=1,
            note=_STAND_IN + _RIGHT,
        ),
        _against("caption", OF_RIGHT),
    ),
    (
        Claim(
            name="prior-guidance",
            says="Guiding the prior does harm.",
            theirs="worse aesthetics, without a number",
            where=f"{PAPER}, section 5.5",
            measured="the judge's first guess is right, most prior guidance - none",
            expected=-1,
            note="They asked for beauty, the judge asks what it is.",
        ),
        _harm,
    ),
    (
        Claim(
            name="binding",
            says="unCLIP binds colours to things worse than a decoder that knows only the caption.",
            theirs="shown in a figure of red and blue cubes, without a number",
            where=f"{PAPER}, section 7",
            measured="every thing has its own colour, twin with z_i - twin without",
            expected=-1,
            note="Two small decoders of equal compute, trained for this study; see --twins.",
        ),
        _twins("binding", SCENES),
    ),
    (
        Claim(
            name="twins-diversity",
            says="Its pictures are more diverse than those of a decoder of equal compute that knows only the caption.",
            theirs="70.5 % of votes against GLIDE",
            where=f"{PAPER}, section 5.2",
            measured="diversity of one caption's pictures, twin with z_i - twin without",
            expected=1,
            note=f"Two small decoders of equal compute, trained for this study; see --twins. {_RIGHT}",
        ),
        _twins(OF_RIGHT, SINGLE[1]),
    ),
    (
        Claim(
            name="linear",
            says="A diffusion prior follows the caption better than a linear map, which is good enough for FID.",
            theirs="FID 8.03 for the map, the best of all; CLIP score and votes for the diffusion prior",
            where="Kandinsky, arXiv:2310.03502, section on results",
            measured="the judge's first guess is right, diffusion - linear",
            expected=1,
            note=_BUDGETS,
        ),
        _against("linear", "top1"),
    ),
    (
        Claim(
            name="projection",
            says="A small projection, taught to be found among others, composes better than a diffusion prior.",
            theirs="63.4 % of votes on composition, against far larger models",
            where="ECLIPSE, arXiv:2312.04655, abstract",
            measured="both things are there, projection - diffusion",
            expected=1,
            note=_BUDGETS,
        ),
        _against(OWN, "objects", "projection"),
    ),
)


def findings(readings: Readings, scales: tuple[float, float]) -> list[Finding]:
    """Return every claim with what was measured of it.

    Args:
        readings: of the cells measured so far.
        scales: least and most guidance of the curves.
    """
    return [Finding(claim=claim, difference=test(readings, scales)) for claim, test in CLAIMS]
