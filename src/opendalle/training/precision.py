"""Where bfloat16 pays: eight bits of precision and float32's range, so no loss scaling is needed.

Weights, gradients and averages stay float32; only the matrix products of the forward and backward pass are rounded.
"""

import torch


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype to compute in, or None for plain float32.

    Args:
        precision: auto, float32 or bfloat16; auto takes bfloat16 only where the device is fast at it, since a CPU
            without the instructions emulates it, some fifty times slower.
        device: where the network lives.
    """
    if precision == "auto":
        return torch.bfloat16 if _is_fast(device) else None
    return torch.bfloat16 if precision == "bfloat16" else None


def _is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        asks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(ask() for ask in asks if ask)
    return False
