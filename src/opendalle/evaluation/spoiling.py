"""Ways a drawn picture may differ from artwork without being wrong: what the judge must learn to look past.

Every spoiler takes a batch and returns a batch; all chance comes from the generator.  They are cheap on purpose: a
classifier this small is done with a picture in a few milliseconds, and augmentation must not cost more than that.
Nothing is mirrored, since left and right carry meaning (arrows, scenes).
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

# The example luminance table of the JPEG standard (ITU-T T.81, annex K.1): how coarsely each frequency is kept.
_QUANTISATION = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def uniform(low: float, high: float, shape: tuple[int, ...], rng: Generator, like: Tensor) -> Tensor:
    """Draw uniform numbers from a CPU generator and put them where `like` is."""
    return (torch.rand(shape, generator=rng) * (high - low) + low).to(like.device)


def composite(pictures: Float[Tensor, "b 4 h w"], backgrounds: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 h w"]:
    """Lay premultiplied pictures on plain backgrounds.

    Args:
        pictures: premultiplied RGBA in [-1, 1].
        backgrounds: RGB in [0, 1].
    """
    # In [0, 1] it reads rgb + (1 - a) B; with every channel mapped by 2x - 1 that is rgb + (1 - a) B as below.
    clear = (1 - pictures[:, 3:]) / 2  # 1 - a, in [0, 1]
    return pictures[:, :3] + clear * (2 * backgrounds[:, :, None, None])


def random_backgrounds(num: int, rng: Generator, white: float = 0.3) -> Float[Tensor, "b 3"]:
    """Draw background colours in [0, 1]: white for a share, any colour for the rest.

    Args:
        num: how many.
        rng: source of the colours.
        white: share of plain white, the commonest background.
    """
    colours = torch.rand(num, 3, generator=rng)
    return torch.where(torch.rand(num, 1, generator=rng) < white, torch.ones(1), colours)


def place(
    pictures: Float[Tensor, "b c h w"], rng: Generator, scale: tuple[float, float], shift: float
) -> Float[Tensor, "b c h w"]:
    """Scale each picture about its middle and move it; what comes in from outside is transparent (-1).

    Args:
        pictures: premultiplied RGBA in [-1, 1].
        rng: source of the placements.
        scale: smallest and largest size, 1 is as it was.
        shift: largest move across and down, as a share of the side.
    """
    num = len(pictures)
    factor = uniform(*scale, (num,), rng, pictures)
    move = uniform(-2 * shift, 2 * shift, (num, 2), rng, pictures)  # the frame runs from -1 to 1
    theta = torch.zeros(num, 2, 3, device=pictures.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / factor
    theta[:, :, 2] = move / factor[:, None]
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures + 1, grid, align_corners=False) - 1  # padding is 0, which must mean transparent


def soften(pictures: Float[Tensor, "b c h w"], rng: Generator, smallest: float) -> Float[Tensor, "b c h w"]:
    """Lose detail: shrink the batch to a random size and enlarge it again, as a small object in a scene would be.

    Args:
        pictures: RGB in [-1, 1].
        rng: source of the size, one for the whole batch.
        smallest: smallest size between the two, as a share of the side.
    """
    height, width = pictures.shape[-2:]
    share = smallest + (1 - smallest) * torch.rand((), generator=rng).item()
    small = (max(4, round(height * share)), max(4, round(width * share)))
    shrunk = F.interpolate(pictures, small, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(shrunk, (height, width), mode="bicubic", align_corners=False).clamp(-1, 1)


def add_noise(pictures: Float[Tensor, "b c h w"], rng: Generator, largest: float) -> Float[Tensor, "b c h w"]:
    """Add Gaussian grain, of a strength of its own for each picture.

    Args:
        pictures: RGB in [-1, 1].
        rng: source of strengths and grain.
        largest: largest standard deviation, in units of [-1, 1].
    """
    sigma = uniform(0, largest, (len(pictures), 1, 1, 1), rng, pictures)
    grain = torch.randn(pictures.shape, generator=rng).to(pictures.device)
    return (pictures + sigma * grain).clamp(-1, 1)


def cosine_basis(size: int = 8) -> Float[Tensor, "k n"]:
    """Return the orthonormal DCT-II matrix: row k holds the k-th cosine at n places."""
    place_, order = torch.arange(size) + 0.5, torch.arange(size)
    basis = torch.cos(torch.pi / size * order[:, None] * place_[None]) * (2 / size) ** 0.5
    basis[0] *= 0.5**0.5
    return basis


def jpeg_like(pictures: Float[Tensor, "b c h w"], rng: Generator, worst: float) -> Float[Tensor, "b c h w"]:
    """Round the cosine coefficients of every 8x8 block, as JPEG does, leaving its blocks and ringing.

    Colours are treated alike and not subsampled: what matters is the look of the artefact, not the format.

    Args:
        pictures: RGB in [-1, 1], sides a multiple of 8.
        rng: source of each picture's coarseness.
        worst: largest multiple of the standard's table; 1 is quality 50, 2 is quality 25.
    """
    basis = cosine_basis().to(pictures)
    table = torch.tensor(_QUANTISATION, device=pictures.device) / 127.5
    coarse = uniform(0.1, worst, (len(pictures), 1, 1, 1, 1, 1), rng, pictures) * table
    blocks = rearrange(pictures, "b c (y i) (x j) -> b c y x i j", i=8, j=8)
    kept = torch.round(basis @ blocks @ basis.T / coarse) * coarse
    return rearrange(basis.T @ kept @ basis, "b c y x i j -> b c (y i) (x j)").clamp(-1, 1)


def nothing_pictures(pictures: Float[Tensor, "b 3 h w"], rng: Generator) -> Float[Tensor, "b 3 h w"]:
    """Make pictures that show no concept out of ones that do: grain, smears, mixtures and shuffled tiles.

    Args:
        pictures: RGB in [-1, 1], sides a multiple of 4.
        rng: source of everything.
    """
    num, _, height, width = pictures.shape
    kinds = torch.randint(4, (num,), generator=rng).to(pictures.device)[:, None, None, None]
    grain = torch.randn(num, 3, height // 4, width // 4, generator=rng).to(pictures.device)
    grain = F.interpolate(grain, (height, width), mode="bilinear").clamp(-1, 1)
    tiny = F.interpolate(pictures, (4, 4), mode="bilinear", antialias=True)
    smear = F.interpolate(tiny, (height, width), mode="bilinear")
    mixture = (pictures + pictures.roll(1, 0) + pictures.roll(2, 0)) / 3
    tiles = rearrange(pictures, "b c (y i) (x j) -> b (y x) c i j", y=4, x=4)
    tiles = tiles[:, torch.randperm(16, generator=rng).to(pictures.device)]
    shuffled = rearrange(tiles, "b (y x) c i j -> b c (y i) (x j)", y=4, x=4)
    return torch.where(kinds == 0, grain, torch.where(kinds == 1, smear, torch.where(kinds == 2, mixture, shuffled)))
