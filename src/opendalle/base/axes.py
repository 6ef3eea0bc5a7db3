"""The legend of axis names used in every shape annotation of the house.

    b  batch            one entry a picture (or caption)
    c  channels         of a picture (3 or 4) or of a codec's grid
    h  w                rows and columns of a picture or grid
    n  m                tokens of a sequence, tokens of its context
    d                   width of a network
    k                   attention heads
    e                   width of the joint CLIP space
    v                   vocabulary

A shape reads `Float[Tensor, "b c h w"]`; jaxtyping's hook checks it while the tests run.
"""

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

Pictures = Float[Tensor, "b c h w"]  # values in [-1, 1]; four channels are premultiplied RGBA
Grid = Float[Tensor, "b c h w"]  # what a decoder denoises: a codec's grid (or pixels, under the identity codec)
Tokens = Int[Tensor, "b n"]
States = Float[Tensor, "b n d"]
Embeddings = Float[Tensor, "b e"]
Steps = Int[Tensor, " b"]  # diffusion step of each sample; larger is noisier
Mask = Bool[Tensor, "b n"]  # True where a token is real
Bytes = UInt8[Tensor, "b c h w"]

__all__ = ["Bytes", "Embeddings", "Grid", "Mask", "Pictures", "States", "Steps", "Tokens"]
