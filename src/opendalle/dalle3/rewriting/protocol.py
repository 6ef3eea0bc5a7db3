"""What writes the longer prompt: our own small model, a language model in a folder, or one behind an address."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Rewriter(Protocol):
    """Turns prompts into captions.  It promises nothing about them: `kept` looks at every one."""

    @property
    def name(self) -> str:
        """What a picture's recipe calls it; no address, no key, no place of this machine."""
        ...

    def rewrite(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
        """Write one caption a prompt.

        Args:
            prompts: as people typed them, in any language; none is empty.
            seeds: one a prompt; with equal seeds a rewriter writes the same, as far as it can promise it.

        Returns:
            One text a prompt, in their order; "" where nothing usable was written.

        Raises:
            OpenDalleError: when nothing can be written at all: no answer, no model.
        """
        ...
