"""Attention that reads only the keys that a pattern lets a cell see, over caption and picture in one softmax.

Two ways, the same numbers:

    all cells at once (training)    cells are taken by blocks that need the same keys: a row reads its own row and the
                                    few above it, a column itself, so nothing is computed for pairs far apart
    few cells, with a cache         each cell gathers the keys of its own list

Source: arXiv:2102.12092, section 2.2 and appendix B.1; one softmax over caption and picture, as there.
"""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from opendalle.dalle1.patterns import KERNEL, Edge, Pattern, rows_above, visible
from opendalle.nn.kv_cache import KeysValues, KVCache

FORBIDDEN = float("-inf")  # added to the logit of a key that is not seen


class Reading(nn.Module):
    """How the keys of one pattern are read; it has no weights, and all layers of a pattern share it.

    Args:
        pattern: which keys a cell sees.
        height: rows of the grid.
        width: cells a row.
        num_text: tokens before the picture; every cell sees them all, and they see none of it.
        kernel: side of the convolution's window.
        edge: its rule at the border.
    """

    bias: Tensor  # (blocks, cells a block, keys a block): 0 where seen, else FORBIDDEN
    near: Tensor  # (cells, most keys): the cells that each cell sees, then padding
    near_bias: Tensor  # the same: 0 where there is a cell, FORBIDDEN in the padding

    def __init__(
        self,
        pattern: Pattern,
        height: int,
        width: int,
        num_text: int,
        *,
        kernel: int = KERNEL,
        edge: Edge = "wrap",
    ) -> None:
        super().__init__()
        self.pattern, self.height, self.width, self.num_text = pattern, height, width, num_text
        sees = visible(pattern, height, width, kernel=kernel, edge=edge)
        is_torus = pattern == "convolution" and edge == "torus"
        self.above = rows_above(pattern, height, width, kernel=kernel, edge=edge)
        self.below = min(kernel // 2, height - 1) if is_torus else 0  # rows that come round from the top
        blocks = np.zeros((1, 1, 1), dtype=bool)
        near, is_near = np.zeros((1, 1), dtype=np.int64), np.zeros((1, 1), dtype=bool)
        if pattern == "column":
            blocks = np.tril(np.ones((1, height, height), dtype=bool))
        elif pattern != "dense":
            blocks = _by_rows(sees.reshape(height, width, height, width), self.above, self.below)
        if pattern != "dense":
            near, is_near = _lists(sees)
        self.register_buffer("bias", _bias(blocks), persistent=False)
        self.register_buffer("near", torch.from_numpy(near), persistent=False)
        self.register_buffer("near_bias", _bias(is_near), persistent=False)

    def forward(
        self,
        queries: Float[Tensor, "b k n c"],
        keys: Float[Tensor, "b k n c"],
        values: Float[Tensor, "b k n c"],
        dropout: float = 0.0,
    ) -> Float[Tensor, "b k n c"]:
        """Let a whole caption, and all cells after it, look at what they see.

        Args:
            queries: of caption and picture; the picture may end anywhere.
            keys: the same tokens'.
            values: the same tokens'.
            dropout: chance that an attention weight is dropped.
        """
        if self.pattern == "dense":
            return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, dropout_p=dropout)
        num_cells = queries.shape[2] - self.num_text
        # Split, not sliced: the gradient of a slice is as large as the whole, and mostly zeros.
        text, cells = zip(*(one.split((self.num_text, num_cells), 2) for one in (queries, keys, values)), strict=True)
        of_text = F.scaled_dot_product_attention(*text, is_causal=True, dropout_p=dropout)
        if num_cells == 0:
            return of_text
        rows = -(-num_cells // self.width)
        missing = rows * self.width - num_cells  # the last row is filled up with cells that nobody asks about
        asking, near, far = (
            (F.pad(one, (0, 0, 0, missing)) if missing else one).unflatten(2, (rows, self.width)) for one in cells
        )
        if self.pattern == "column":
            asking, near, far = (one.transpose(2, 3) for one in (asking, near, far))
            bias = self.bias[:, :rows, :rows]
        else:
            near, far = self._rows_beside(near), self._rows_beside(far)
            bias = self.bias[:rows]
        mixed = _joint(asking, (text[1], text[2]), (near, far), bias, dropout)
        if self.pattern == "column":
            mixed = mixed.transpose(2, 3)
        mixed = mixed.flatten(2, 3)
        return torch.cat([of_text, mixed[:, :, :num_cells] if missing else mixed], dim=2)

    def cached(self, queries: Float[Tensor, "b k n c"], seen: KeysValues) -> Float[Tensor, "b k n c"]:
        """Let the last tokens of a sequence look at what they see.

        Args:
            queries: the whole caption's, or those of any cells after it.
            seen: keys and values of all tokens so far, the asking ones last.
        """
        num_new, total = queries.shape[2], seen.keys.shape[2]
        if total <= self.num_text:
            assert num_new == total, "a caption is read in one piece"
            return F.scaled_dot_product_attention(queries, seen.keys, seen.values, is_causal=True)
        first = total - num_new - self.num_text  # the first cell that asks
        if self.pattern == "dense":
            position = torch.arange(total, device=queries.device)
            allowed = None if num_new == 1 else position <= position[total - num_new :, None]
            return F.scaled_dot_product_attention(queries, seen.keys, seen.values, attn_mask=allowed)
        text, cells = (
            [one[:, :, part] for one in (seen.keys, seen.values)]
            for part in (slice(0, self.num_text), slice(self.num_text, None))
        )
        asking = slice(first, first + num_new)
        lists = self.near[asking].clamp(max=total - self.num_text - 1)  # the padding points at any cell that is there
        near, far = (one.index_select(2, lists.flatten()).unflatten(2, lists.shape) for one in cells)
        mixed = _joint(queries[:, :, :, None], (text[0], text[1]), (near, far), self.near_bias[asking, None], 0.0)
        return mixed.flatten(2, 3)

    def _rows_beside(self, rows: Float[Tensor, "b k h w c"]) -> Float[Tensor, "b k h m c"]:
        """Stand every row behind the rows above it that it reads (and on a torus, before those that come round)."""
        height = rows.shape[2]
        window = F.pad(rows, (0, 0, 0, 0, self.above, self.below))
        if self.below and height == self.height:
            top = rows[:, :, : self.below]
            window = torch.cat([window[:, :, : self.above + height], top], dim=2)
        offsets = range(self.above + self.below + 1)
        return torch.cat([window[:, :, one : one + height] for one in offsets], dim=3)


class SparseAttention(nn.Module):
    """Multi-head attention under a pattern, with fused query, key and value projections.

    Args:
        width: width of a token; a multiple of heads.
        heads: number of heads.
        reading: the pattern's.
        dropout: chance that an attention weight is dropped in training.
    """

    def __init__(self, width: int, heads: int, reading: Reading, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.reading = reading
        self.qkv = nn.Linear(width, 3 * width)  # rows: all queries, all keys, all values
        self.out = nn.Linear(width, width)

    def forward(
        self, tokens: Float[Tensor, "b n d"], *, cache: KVCache | None = None, layer: int = 0
    ) -> Float[Tensor, "b n d"]:
        """Let every token look at the tokens that it sees.

        Args:
            tokens: caption, then cells; with a cache, those that follow the cached ones.
            cache: tokens seen before; this call adds its own.
            layer: which of the cache's layers is ours.
        """
        queries, keys, values = rearrange(self.qkv(tokens), "b n (three k c) -> three b k n c", three=3, k=self.heads)
        if cache is None:
            mixed = self.reading(queries, keys, values, self.dropout if self.training else 0.0)
        else:
            mixed = self.reading.cached(queries, cache.extend(layer, KeysValues(keys, values)))
        return self.out(rearrange(mixed, "b k n c -> b n (k c)"))


def _joint(
    queries: Float[Tensor, "b k h w c"],
    text: tuple[Float[Tensor, "b k t c"], Float[Tensor, "b k t c"]],
    near: tuple[Float[Tensor, "b k h m c"], Float[Tensor, "b k h m c"]],
    bias: Float[Tensor, "#h w m"],
    dropout: float,
) -> Float[Tensor, "b k h w c"]:
    """Attend to keys that all blocks share and to those of each block, in one softmax.

    Args:
        queries: by blocks.
        text: keys and values that every query sees.
        near: keys and values of each block.
        bias: added to the logits of `near`.
        dropout: chance that a weight is dropped.
    """
    blocks, num_text = queries.shape[2:4], text[0].shape[2]
    queries = (queries * queries.shape[-1] ** -0.5).to(text[0].dtype)
    of_text = (queries.flatten(2, 3) @ text[0].transpose(2, 3)).unflatten(2, blocks)
    of_near = queries @ near[0].transpose(3, 4) + bias.to(queries.dtype)
    weights = torch.cat([of_text, of_near], dim=-1).softmax(dim=-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    to_text, to_near = weights.split((num_text, near[0].shape[3]), dim=-1)
    return (to_text.flatten(2, 3) @ text[1]).unflatten(2, blocks) + to_near @ near[1]


def _by_rows(sees: Bool[np.ndarray, "h w h w"], above: int, below: int) -> Bool[np.ndarray, "h w m"]:
    """Cut what a row's cells see into the rows that stand beside it in `Reading._rows_beside`."""
    height, width = sees.shape[:2]
    blocks = np.zeros((height, width, above + 1 + below, width), dtype=bool)
    for row in range(height):
        for place in range(above + 1 + below):
            other = row - above + place
            comes_round = other >= height
            if comes_round and (other := other - height) >= row - above:
                continue  # stands in the window already
            if other >= 0 and (comes_round or other <= row):
                blocks[row, :, place] = sees[row, :, other]
    return blocks.reshape(height, width, -1)


def _lists(sees: Bool[np.ndarray, "n n"]) -> tuple[np.ndarray, Bool[np.ndarray, "n m"]]:
    """Return the cells that each cell sees, and which entries of the rectangle are such."""
    most = int(sees.sum(axis=1).max())
    is_there = np.arange(most) < sees.sum(axis=1)[:, None]
    cells = np.zeros(is_there.shape, dtype=np.int64)
    cells[is_there] = np.nonzero(sees)[1]
    return cells, is_there


def _bias(allowed: np.ndarray) -> Float[Tensor, "..."]:
    return torch.from_numpy(np.where(allowed, np.float32(0), np.float32(FORBIDDEN)))
