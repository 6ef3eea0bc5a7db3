"""From sentences to what the denoiser looks at: a tokenizer and the text encoder that was trained with it."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from opendalle.base.errors import require
from opendalle.checkpoint.configs import to_plain
from opendalle.dalle3.text_encoder import TextEncoder, TextStates
from opendalle.tokenizers import Packed


@runtime_checkable
class SpellsCaptions(Protocol):
    """A tokenizer as the encoder needs it: bytes, or likeliest pieces."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        ...

    def pack(self, texts: Sequence[str], context: int) -> Packed:
        """Encode captions into one rectangle."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return plain data that tells it from every other tokenizer."""
        ...


class CaptionReader:
    """Reads captions with a frozen encoder.

    Args:
        encoder: in evaluation mode, on the device where it is to compute.
        tokenizer: of that encoder.
        context: tokens a caption, its end included; every caption is brought to this length, so what is read of it does
            not hang on its neighbours.  DALL·E 3's is not told; PixArt takes 120 for captions of this kind.

    Raises:
        BadConfig: when the tokenizer has more tokens than the encoder.
    """

    def __init__(self, encoder: TextEncoder, tokenizer: SpellsCaptions, *, context: int) -> None:
        known = encoder.config.vocabulary
        require(
            tokenizer.vocab_size <= known, f"a tokenizer of {tokenizer.vocab_size} tokens", f"at most {known}, as here"
        )
        require(context >= 1, f"context is {context}", "at least 1: the end")
        self.encoder, self.tokenizer, self.context = encoder, tokenizer, context

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> TextStates:
        """Read captions; the empty one is what guidance pushes away from.

        Args:
            captions: one a row; one that is too long loses its tail.

        Raises:
            BadModel: when the encoder is asked to compute in float16.
            BadRequest: when a caption is no valid text.
        """
        packed = self.tokenizer.pack(captions, self.context)
        device = self.encoder.tokens.weight.device
        return self.encoder(torch.from_numpy(packed.ids).to(device), torch.from_numpy(packed.mask).to(device))

    def stamps(self) -> dict[str, str]:
        """Say what makes the states: two readers with equal stamps read alike, on one machine."""
        return {
            "text encoder": _fingerprint(self.encoder),
            "tokenizer": _sha256([json.dumps(self.tokenizer.to_json(), sort_keys=True).encode()]),
            "context": str(self.context),
        }


def _fingerprint(encoder: TextEncoder) -> str:
    """Hash an encoder's config and weights, bit by bit, with the precision in which it holds them."""

    def told() -> Iterator[Any]:
        yield json.dumps(to_plain(encoder.config), sort_keys=True).encode()
        for name, tensor in sorted(encoder.state_dict().items()):
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
            yield tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data

    return _sha256(told())


def _sha256(parts: Iterator[Any] | list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
