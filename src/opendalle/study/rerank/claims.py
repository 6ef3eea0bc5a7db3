"""What is said of choosing among candidates, each with the difference that tests it here.

Source: DALL·E, arXiv:2102.12092, sections 2.6 and 3.1; CogView, arXiv:2105.13290, section 3.3.
"""

from collections.abc import Callable, Sequence

from opendalle.evaluation.metrics import Interval
from opendalle.study.findings import Claim, Finding
from opendalle.study.pairing import gap
from opendalle.study.questions import SCENES, SINGLE
from opendalle.study.rerank.measures import CLIP, GAIN, GRADE, LIKELIHOOD, RIGHT, SHUFFLED
from opendalle.study.rerank.readings import RANDOM, Readings

PAPER = "DALL·E, arXiv:2102.12092"
COGVIEW = "CogView, arXiv:2105.13290, section 3.3"
FLAT = 32  # candidates after which the paper sees diminishing returns

Test = Callable[[Readings], Interval | None]


def _over(score: str, other: str, measure: str = RIGHT, groups: Sequence[str] = SINGLE) -> Test:
    """Choosing among all candidates by one score or by another."""
    return lambda readings: readings.over(score, other, readings.candidates, measure, groups)


def _growth(readings: Readings) -> Interval | None:
    """What the doubling up to FLAT adds."""
    ends = [readings.at(CLIP, k, RIGHT, SINGLE) for k in (FLAT, FLAT // 2)]
    return gap(ends[0], ends[1])


def _last_doubling(readings: Readings) -> Interval | None:
    """What the last doubling adds, less what the first does."""
    most = readings.candidates
    if most < 4:
        return None
    steps = [readings.step(CLIP, low, high, RIGHT, SINGLE) for low, high in ((most // 2, most), (1, 2))]
    return gap(steps[0], steps[1])


def _beyond(readings: Readings) -> Interval | None:
    """What the doubling from FLAT on adds, less what the one before it does."""
    steps = [readings.step(CLIP, k, 2 * k, RIGHT, SINGLE) for k in (FLAT, FLAT // 2)]
    return gap(steps[0], steps[1])


CLAIMS: Sequence[tuple[Claim, Test]] = (
    (
        Claim(
            name="clip-helps",
            says="Of many candidates, the one that CLIP likes best is better than any one of them.",
            theirs="shown in a figure, without a number",
            where=f"{PAPER}, section 2.6, figure 6",
            measured="the judge's first guess is right, chosen by CLIP among all - by lot",
            expected=1,
        ),
        _over(CLIP, RANDOM),
    ),
    (
        Claim(
            name="clip-helps-scenes",
            says="So it is with scenes of two things.",
            theirs="shown in a figure, without a number",
            where=f"{PAPER}, section 2.6, figure 6",
            measured="share of what was asked of a scene that is there, chosen by CLIP among all - by lot",
            expected=1,
        ),
        _over(CLIP, RANDOM, GRADE, (SCENES,)),
    ),
    (
        Claim(
            name="up-to-32",
            says="More candidates make better pictures up to about 32 of them.",
            theirs="FID and IS, in a figure",
            where=f"{PAPER}, section 3.1, figure 9c",
            measured="the judge's first guess is right, best of 32 by CLIP - best of 16",
            expected=1,
            note="They measured distances of whole sets, the judge marks each picture.",
        ),
        _growth,
    ),
    (
        Claim(
            name="diminishing",
            says="Returns diminish: the last doubling of the candidates gives less than the first.",
            theirs="FID and IS, in a figure",
            where=f"{PAPER}, section 3.1, figure 9c",
            measured="what the last doubling adds to being right, less what the first does",
            expected=-1,
        ),
        _last_doubling,
    ),
    (
        Claim(
            name="beyond-32",
            says="From 32 candidates on, little is added.",
            theirs="FID and IS, in a figure",
            where=f"{PAPER}, section 3.1, figure 9c",
            measured="what going from 32 to 64 adds to being right, less what going from 16 to 32 does",
            expected=-1,
            note="Needs --candidates 64 or more.",
        ),
        _beyond,
    ),
    (
        Claim(
            name="caption-counts",
            says="It is the caption that counts, not that CLIP likes some pictures better than others.",
            theirs="a control of this study",
            where=f"{PAPER}, section 2.6",
            measured="the judge's first guess is right, by CLIP with the caption - with another prompt's",
            expected=1,
        ),
        _over(CLIP, SHUFFLED),
    ),
    (
        Claim(
            name="gain-helps",
            says="The model can rerank its own pictures: by how well a picture tells its caption.",
            theirs="a figure of FID and IS",
            where=COGVIEW,
            measured="the judge's first guess is right, by log p(picture | caption) - log p(picture) - by lot",
            expected=1,
            note="CogView learned p(caption | picture) for it; here it follows from Bayes' rule.",
        ),
        _over(GAIN, RANDOM),
    ),
    (
        Claim(
            name="gain-or-clip",
            says="That can replace CLIP.",
            theirs="a figure of FID and IS",
            where=COGVIEW,
            measured="the judge's first guess is right, by gain - by CLIP",
            expected=1,
            note="Holds only if it is better; an interval that touches 0 says that neither is known to be.",
        ),
        _over(GAIN, CLIP),
    ),
    (
        Claim(
            name="likelihood-helps",
            says="The likeliest candidate is better than any one.",
            theirs="no number; the public ruDALL-E sorts its pictures by perplexity, too",
            where="a question of this study",
            measured="the judge's first guess is right, by log p(picture | caption) - by lot",
            expected=1,
        ),
        _over(LIKELIHOOD, RANDOM),
    ),
    (
        Claim(
            name="likelihood-or-gain",
            says="Plain likelihood chooses worse than what the caption adds to it, for it likes plain pictures.",
            theirs="no number",
            where="a question of this study",
            measured="the judge's first guess is right, by likelihood - by gain",
            expected=-1,
        ),
        _over(LIKELIHOOD, GAIN),
    ),
)


def findings(readings: Readings) -> list[Finding]:
    """Return every claim with what was measured of it.

    Args:
        readings: of the cells measured so far.
    """
    return [Finding(claim=claim, difference=test(readings)) for claim, test in CLAIMS]
