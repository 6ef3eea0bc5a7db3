"""Whitening against numpy's covariance, its inverse, and its way through storage."""

import numpy as np
import pytest
import torch

from opendalle.base.errors import BadConfig
from opendalle.checkpoint.storage import from_storage, to_storage
from opendalle.nn.whitening import Whitening


def flat_cloud() -> torch.Tensor:
    """Embeddings whose spread differs a thousandfold from axis to axis."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    spread = torch.tensor([1.0, 0.5, 0.1, 0.02, 0.005, 0.001], dtype=torch.float64)
    return ((torch.randn(4_000, 6, generator=generator, dtype=torch.float64) * spread) @ axes.T + 0.3).float()


def test_whitened_embeddings_are_round_and_come_back() -> None:
    z, whitening = flat_cloud(), Whitening(6)
    torch.testing.assert_close(whitening(z), z)  # the identity until it has measured
    whitening.fit(z, floor=1e-4)
    white = whitening(z).numpy()
    np.testing.assert_allclose(white.mean(0), 0, atol=2e-3)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(6), atol=5e-3)
    torch.testing.assert_close(whitening.inverse(whitening(z)), z, atol=1e-6, rtol=1e-5)
    assert whitening.std.tolist() == sorted(whitening.std.tolist(), reverse=True)


def test_axes_below_the_floor_stay_small() -> None:
    z, whitening = flat_cloud(), Whitening(6)
    whitening.fit(z, floor=0.01)
    spread = whitening(z).std(dim=0)
    torch.testing.assert_close(spread[:4], torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(spread[4:], torch.tensor([0.5, 0.1]), atol=2e-2, rtol=0)
    torch.testing.assert_close(whitening.inverse(whitening(z)), z, atol=1e-6, rtol=1e-5)


def test_storage_in_bytes_does_not_touch_it() -> None:
    z, whitening, again = flat_cloud(), Whitening(6), Whitening(6)
    whitening.fit(z)
    again.load_state_dict(from_storage(to_storage(whitening.state_dict(), "int8-row")))
    assert torch.equal(again(z), whitening(z))


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(BadConfig, match="two or more"):
        Whitening(6).fit(torch.zeros(1, 6))
    with pytest.raises(BadConfig, match="floor"):
        Whitening(6).fit(flat_cloud(), floor=0.0)
