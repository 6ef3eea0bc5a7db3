"""The small prompt upsampler of our own: the decoder that was trained together with the text encoder.

    prompt ─▶ TextEncoder ─▶ states ──────────────╮
    "prompt. " ─────────────────▶ TextDecoder ─▶ the caption that follows, byte by byte

The decoder is made to begin with the prompt itself, as the paper's long prompts do, and goes on from there: so what it
adds can repeat the person's words from two places, and nothing of them can be lost.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, appendix C.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from opendalle.base.errors import BadConfig, BadRequest, require
from opendalle.base.rng import picture_generator
from opendalle.dalle3.text_decoder import START, TextToText
from opendalle.samplers.autoregressive import TokenOptions, sample_tokens
from opendalle.tokenizers import ByteTokenizer
from opendalle.tokenizers.byte_level import FIRST_BYTE

NO_UTF8 = 0xF5  # from this byte on none occurs in a text; they marked holes in training
_ENDED = re.compile(r".*[.!?。！？]", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class OwnRewriterConfig:
    """How boldly it writes, and how much."""

    context: int = 256  # bytes of a prompt at most; a longer one is not rewritten
    longest: int = 384  # bytes written at most, behind the prompt
    temperature: float = 0.7  # of every seed but 0, which takes the likeliest byte each time
    top_p: float = 0.9  # of the likeliest bytes, those that have this probability together
    says_prompt: bool = True  # the text begins with the prompt, which it then keeps whatever follows; else it does not

    def __post_init__(self) -> None:
        require(self.context >= 2, f"context {self.context}", "at least 2: a byte and the end")
        require(self.longest >= 1, f"longest {self.longest}", "at least 1 byte")
        require(self.temperature > 0, f"temperature {self.temperature}", "above 0")
        require(0 < self.top_p <= 1, f"top_p {self.top_p}", "above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written behind a prompt."""

    text: str  # one line
    is_finished: bool  # it came to its end by itself; else it was cut off


class OwnRewriter:
    """Writes captions with a text-to-text model that reads bytes.

    Args:
        network: both halves, in evaluation mode, on the device where they are to compute.
        tokenizer: of bytes.
        config: how boldly, and how much.
        name: what a picture's recipe calls it.

    Raises:
        BadConfig: when the tokenizer has more tokens than the network.
    """

    def __init__(
        self,
        network: TextToText,
        tokenizer: ByteTokenizer,
        config: OwnRewriterConfig | None = None,
        *,
        name: str = "own",
    ) -> None:
        known = network.encoder.config.vocabulary
        if tokenizer.vocab_size > known:
            raise BadConfig(f"a tokenizer of {tokenizer.vocab_size} tokens", f"at most {known}, as the network")
        self.network, self.tokenizer, self.config = network, tokenizer, config or OwnRewriterConfig()
        self._name = name
        allowed = torch.full((known,), -torch.inf)
        allowed[[tokenizer.end, *range(FIRST_BYTE, FIRST_BYTE + NO_UTF8)]] = 0
        allowed[[FIRST_BYTE + value for value in (*range(0x20), 0x7F)]] = -torch.inf  # a prompt is one line
        self._allowed = allowed

    @property
    def name(self) -> str:
        """What a picture's recipe calls it."""
        return self._name

    def rewrite(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
        """Write one caption a prompt; what was cut off ends with its last whole sentence.

        "" stands where nothing could be written: of a prompt that is too long, or when not one sentence was whole.

        Args:
            prompts: as people typed them, in any language.
            seeds: one a prompt; 0 asks for the likeliest text.

        Raises:
            BadRequest: when there is not one seed a prompt, or a prompt is empty or no valid text.
        """
        if len(prompts) != len(seeds):
            raise BadRequest(f"{len(seeds)} seeds", f"{len(prompts)}, one a prompt")
        return [self._told(prompt, self.write(prompt, seed)) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _told(self, prompt: str, written: Written) -> str:
        text = written.text
        if not written.is_finished:
            whole = _ENDED.match(text)
            text = whole[0] if whole else ""
        return opened(prompt) + text if text and self.config.says_prompt else text

    @torch.no_grad()
    def write(self, prompt: str, seed: int) -> Written:
        """Write what follows a prompt.  Each is written alone, so that no neighbour changes a rounding.

        Args:
            prompt: not empty.
            seed: 0 asks for the likeliest text.

        Raises:
            BadRequest: when the prompt is empty or no valid text.
        """
        config, network = self.config, self.network
        if not prompt.strip():
            raise BadRequest("an empty prompt to rewrite", "at least one word")
        beginning = self.tokenizer.encode(opened(prompt), limit=config.context)
        if len(beginning) == config.context:  # too long to be read, and long enough
            return Written(text="", is_finished=False)
        device = network.encoder.tokens.weight.device
        packed = self.tokenizer.pack([prompt.strip()], config.context)
        width = int(packed.mask.sum())  # padding would be read for nothing
        said = network.encoder(
            torch.from_numpy(packed.ids[:, :width]).to(device), torch.from_numpy(packed.mask[:, :width]).to(device)
        )
        begun = torch.tensor([[START, *beginning]], device=device)
        memory = network.decoder.remember(said, begun.shape[1] + config.longest, cached=True)
        chance = TokenOptions(temperature=config.temperature if seed else 0, top_p=config.top_p)
        rng = picture_generator(seed)
        tokens: Tensor = begun
        for state in sample_tokens(
            self._next_logits, begun, config.longest, generators=[rng], options=chance, cache=memory
        ):
            tokens = state.tokens
            if int(tokens[0, -1]) == self.tokenizer.end:
                break
        new = tokens[0, begun.shape[1] :].tolist()
        is_finished = new[-1] == self.tokenizer.end
        text = self.tokenizer.decode(new).replace("\ufffd", "")  # a character that was cut off, or never one
        return Written(text=" ".join(text.split()), is_finished=is_finished)

    def _next_logits(self, tokens: Int[Tensor, "b n"], cache: Any) -> Float[Tensor, "b v"]:
        logits = self.network.next_logits(tokens, cache)
        return logits.float() + self._allowed.to(logits.device)


def opened(prompt: str) -> str:
    """Return a prompt as a text that goes on behind it.

    Args:
        prompt: as a person typed it.
    """
    begun = " ".join(prompt.split())
    if begun.endswith(("。", "！", "？")):
        return begun
    is_chinese = any("\u4e00" <= one <= "\u9fff" for one in begun)
    if begun.endswith((".", "!", "?")):
        return f"{begun} "
    return f"{begun}。" if is_chinese else f"{begun}. "
