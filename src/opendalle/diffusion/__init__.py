"""The mathematics of diffusion, pure: tensors in, tensors out; float64 tables, no chance, no network.

Three conventions hold throughout: t grows with noise, step -1 is clean data, and a guidance scale of 1 is off.
"""

from opendalle.diffusion.grids import Grid, even_snr, fast27, karlo, sections, strided
from opendalle.diffusion.guidance import combine, dynamic_threshold, rescale
from opendalle.diffusion.likelihood import Bound, bound_term, gaussian_kl, prior_term, variational_bound
from opendalle.diffusion.losses import HybridLoss, hybrid_loss, learned_range, min_snr_weight, simple_loss
from opendalle.diffusion.predictions import PREDICTIONS, Prediction, eps_beside, target, to_denoised
from opendalle.diffusion.process import (
    Gaussian,
    log_variance_range,
    posterior,
    posterior_mean,
    posterior_variance,
    q_sample,
    q_step,
    reverse,
    reverse_step,
)
from opendalle.diffusion.schedules import (
    CLEAN,
    SCHEDULES,
    Schedule,
    cosine,
    flow,
    from_betas,
    linear,
    scaled_linear,
    schedule_from_name,
)

__all__ = [
    "CLEAN",
    "PREDICTIONS",
    "SCHEDULES",
    "Bound",
    "Gaussian",
    "Grid",
    "HybridLoss",
    "Prediction",
    "Schedule",
    "bound_term",
    "combine",
    "cosine",
    "dynamic_threshold",
    "eps_beside",
    "even_snr",
    "fast27",
    "flow",
    "from_betas",
    "gaussian_kl",
    "hybrid_loss",
    "karlo",
    "learned_range",
    "linear",
    "log_variance_range",
    "min_snr_weight",
    "posterior",
    "posterior_mean",
    "posterior_variance",
    "prior_term",
    "q_sample",
    "q_step",
    "rescale",
    "reverse",
    "reverse_step",
    "scaled_linear",
    "schedule_from_name",
    "sections",
    "simple_loss",
    "strided",
    "target",
    "to_denoised",
    "variational_bound",
]
