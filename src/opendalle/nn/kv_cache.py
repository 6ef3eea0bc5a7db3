"""Keys and values of tokens already seen, so that a causal transformer computes each token once.

Two uses, one record.  An autoregressive model appends a token a step.  A diffusion model whose sequence starts with
the prompt fills the cache with the prompt once, and rewinds to it after every denoising step.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from opendalle.base.errors import BadRequest


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of some tokens, split into heads; all that attention needs to know of them."""

    keys: Float[Tensor, "b k m c"]
    values: Float[Tensor, "b k m c"]

    def __add__(self, later: "KeysValues") -> "KeysValues":
        """Join along the token axis: self first, then later."""
        return KeysValues(torch.cat([self.keys, later.keys], 2), torch.cat([self.values, later.values], 2))

    def rows(self, index: slice | Tensor) -> "KeysValues":
        """Keep some entries of the batch."""
        return KeysValues(self.keys[index], self.values[index])


class KVCache:
    """Room for the keys and values of `capacity` tokens in every layer, written in place.

    For inference only: in-place writes have no gradient.

    Args:
        num_layers: transformer blocks.
        batch: rows.
        heads: attention heads.
        capacity: tokens at most.
        head_width: channels a head.
        dtype: of keys and values.
        device: where they live.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        batch: int,
        heads: int,
        capacity: int,
        head_width: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_layers, self.batch, self.heads, self.head_width = num_layers, batch, heads, head_width
        shape = (num_layers, batch, heads, capacity, head_width)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.capacity = capacity
        self.length = 0  # tokens that every layer holds

    def extend(self, layer: int, new: KeysValues) -> KeysValues:
        """Write the tokens that follow in one layer and return all tokens of that layer, old and new.

        Args:
            layer: which block asks, from 0.
            new: keys and values of the tokens after the first `length`.

        Raises:
            BadRequest: when the cache is full.
        """
        end = self.length + new.keys.shape[2]
        if end > self.capacity:
            raise BadRequest(f"{end} tokens for a cache of {self.capacity}", f"at most {self.capacity} tokens")
        self.keys[layer, :, :, self.length : end] = new.keys
        self.values[layer, :, :, self.length : end] = new.values
        return KeysValues(self.keys[layer, :, :, :end], self.values[layer, :, :, :end])

    def advance(self, num_tokens: int) -> None:
        """Count tokens as seen, once every layer has written them."""
        self.length += num_tokens

    def rewind(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        self.length = min(self.length, length)

    def reorder(self, index: Int[Tensor, " b"], first: int = 0) -> None:
        """Let every row go on from a row of its choice, in place: what a beam search does after each token.

        Args:
            index: the row that each row becomes.
            first: tokens before this one are alike in the rows that change places, and stay.
        """
        seen = slice(first, self.length)
        for table in (self.keys, self.values):
            table[:, :, :, seen] = table[:, index, :, seen]

    def rows(self, index: slice | Tensor) -> "KVCache":
        """Copy some entries of the batch into a cache of their own."""
        return self._holding(self.keys[:, index], self.values[:, index])

    def joined(self, other: "KVCache") -> "KVCache":
        """Copy the rows of both, which hold equally many tokens, into one cache."""
        return self._holding(torch.cat([self.keys, other.keys], 1), torch.cat([self.values, other.values], 1))

    def _holding(self, keys: Tensor, values: Tensor) -> "KVCache":
        """Make a cache with this one's shape and length, other rows."""
        cache = KVCache(
            num_layers=self.num_layers,
            batch=keys.shape[1],
            heads=self.heads,
            capacity=self.capacity,
            head_width=self.head_width,
            dtype=keys.dtype,
            device=keys.device,
        )
        cache.keys.copy_(keys)
        cache.values.copy_(values)
        cache.length = self.length
        return cache
