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
        return torch.bfloat16 if is_bfloat16_fast(device) else None
    return torch.bfloat16 if precision == "bfloat16" else None


def is_bfloat16_fast(device: torch.device) -> bool:
    """Return whether matrix products in bfloat16 take less time than in float32 on `device`."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        # Cores with AVX512-FP16 leave bfloat16 products to AMX.  A virtual machine that hides AMX has the vector
        # instructions only, and those run at half of float32's rate there: 83 against 157 GFLOP/s, measured.
        return has.get("amx_bf16", False) or (has.get("avx512_bf16", False) and not has.get("avx512_fp16", False))
    return False
