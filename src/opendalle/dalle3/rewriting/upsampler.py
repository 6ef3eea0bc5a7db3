"""The prompt upsampler: rewrite, look at what came, try again, and else keep the person's own words.

    prompt ─▶ long enough? ─▶ Rewriter ─▶ tidied ─▶ failed_checks ─▶ caption
                   │              ▲                      │ failed
                   │              ╰── the next seed ◀────┤
                   ╰────────▶ the person's own words ◀───╯ too often

The seeds of a rewriting are 0, 1, 2, ... and not the picture's: the same words are always rewritten the same way, so
that another seed changes the picture and not what it shows, and picture k of a request is picture 0 of seed + k.

Source: Betker et al., "Improving Image Generation with Better Captions", section 4.1 and appendix C.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from opendalle.base.errors import BadRequest, OpenDalleError, require
from opendalle.dalle3.rewriting.kept import Failed, KeptConfig, failed_checks, tidied
from opendalle.dalle3.rewriting.language import is_chinese, num_words
from opendalle.dalle3.rewriting.protocol import Rewriter


@dataclass(frozen=True, kw_only=True)
class PromptUpsamplerConfig:
    """When a prompt is rewritten, how often that is tried, and what becomes of it."""

    long_enough: int = 15  # words from which on a prompt is left alone
    attempts: int = 3  # texts asked for before the person's own words are kept
    # rewrite: the new text alone; append: "prompt. new text", as the paper's long DrawBench prompts are put together.
    form: Literal["rewrite", "append"] = "rewrite"
    on_failure: Literal["original", "refuse"] = "original"  # when no text passes: draw the own words, or nothing
    on_silence: Literal["original", "refuse"] = "refuse"  # when the rewriter cannot work at all: no answer, wrong key
    kept: KeptConfig = field(default_factory=KeptConfig)  # what a new text must keep

    def __post_init__(self) -> None:
        require(self.long_enough >= 1, f"long_enough {self.long_enough}", "at least 1 word")
        require(1 <= self.attempts <= 16, f"attempts {self.attempts}", "1 to 16")
        require(self.form in ("rewrite", "append"), f"form {self.form!r}", "rewrite or append")
        for name in ("on_failure", "on_silence"):
            require(
                getattr(self, name) in ("original", "refuse"), f"{name} {getattr(self, name)!r}", "original, refuse"
            )


@dataclass(frozen=True, kw_only=True)
class Rewriting:
    """What became of one prompt."""

    prompt: str  # the person's words
    text: str  # what is to be drawn; the same words, if nothing else will do
    by: str  # the rewriter's name
    attempts: int = 0  # texts that were asked for
    failed: tuple[Failed, ...] = ()  # what the last one missed, if none passed
    why_kept: str = ""  # why the person's own words are drawn; empty when they are not
    error: str = ""  # what the rewriter said when it could not work; may hold its address, so no recipe tells it

    @property
    def record(self) -> dict[str, Any]:
        """What a picture's recipe tells of it besides the text: plain data."""
        told: dict[str, Any] = {"by": self.by, "attempts": self.attempts}
        return told | ({"kept": self.why_kept} if self.why_kept else {})


class PromptUpsampler:
    """Makes captions of prompts.

    Args:
        rewriter: writes them.
        config: when, how often, and what must be kept.
    """

    def __init__(self, rewriter: Rewriter, config: PromptUpsamplerConfig | None = None) -> None:
        self.rewriter, self.config = rewriter, config or PromptUpsamplerConfig()

    def rewrite(self, prompts: Sequence[str]) -> list[Rewriting]:
        """Rewrite prompts; those that are alike are rewritten once.

        Args:
            prompts: in any language; empty ones, and long ones, are left alone.

        Returns:
            One a prompt, in their order.

        Raises:
            BadRequest: when no text passes and the config says to refuse.
            OpenDalleError: when the rewriter cannot work at all and the config says to refuse.
        """
        done = {prompt: self._left_alone(prompt) for prompt in dict.fromkeys(prompts)}
        open_ones = [prompt for prompt, rewriting in done.items() if rewriting is None]
        found = self._rewritten(open_ones)
        if self.config.on_failure == "refuse" and (bad := next((one for one in found.values() if one.failed), None)):
            came = f"{bad.prompt!r:.80}, of which {bad.by} made no caption in {bad.attempts} attempts: {bad.why_kept}"
            raise BadRequest(came, "a prompt that can be rewritten", "Say it in other words, or draw it as it is.")
        return [done[prompt] or found[prompt] for prompt in prompts]

    def _left_alone(self, prompt: str) -> Rewriting | None:
        said = num_words(prompt)
        if said and said < self.config.long_enough:
            return None
        why = f"{said:.0f} words are enough" if said else "there are no words in it"
        return Rewriting(prompt=prompt, text=prompt, by=self.rewriter.name, why_kept=why)

    def _rewritten(self, prompts: Sequence[str]) -> dict[str, Rewriting]:
        name, found, failed = self.rewriter.name, dict[str, Rewriting](), dict[str, tuple[Failed, ...]]()
        for attempt in range(self.config.attempts):
            rest = [one for one in prompts if one not in found]
            if not rest:
                break
            try:
                texts = self.rewriter.rewrite(rest, seeds=[attempt] * len(rest))
            except OpenDalleError as error:
                if self.config.on_silence == "refuse":
                    raise
                silence, told = "the rewriter gave no answer", str(error)
                return found | {
                    one: Rewriting(prompt=one, text=one, by=name, why_kept=silence, error=told) for one in rest
                }
            for prompt, text in zip(rest, map(tidied, texts), strict=True):
                failed[prompt] = failed_checks(prompt, text, self.config.kept)
                if not failed[prompt]:
                    text = self._formed(prompt, text)
                    found[prompt] = Rewriting(prompt=prompt, text=text, by=name, attempts=attempt + 1)
        return found | {
            one: Rewriting(
                prompt=one,
                text=one,
                by=name,
                attempts=self.config.attempts,
                failed=failed[one],
                why_kept="; ".join(map(str, failed[one])),
            )
            for one in prompts
            if one not in found
        }

    def _formed(self, prompt: str, text: str) -> str:
        begun = " ".join(prompt.split())
        if self.config.form == "rewrite" or text.startswith(begun):  # some rewriters begin with the prompt themselves
            return text
        if begun.endswith(("。", "！", "？")):
            return begun + text
        return begun + ("。" if is_chinese(begun) else " " if begun.endswith((".", "!", "?")) else ". ") + text
