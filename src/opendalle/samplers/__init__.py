"""Samplers: from noise to data over `denoise`, tokens over `next_logits`, what makes a network into one, the tiler."""

from opendalle.samplers.analytic import measure_noise_power
from opendalle.samplers.autoregressive import GuidedLogits, TokenOptions, TokenState, sample_tokens
from opendalle.samplers.beam import BeamOptions, BeamState, beam_search
from opendalle.samplers.course import SamplerOptions, SamplerState
from opendalle.samplers.fixed_point import LogitsAhead, PassState, fixed_point_tokens
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.invert import invert
from opendalle.samplers.repaint import RepaintOptions, repaint
from opendalle.samplers.sample import SAMPLERS, last_state, sample
from opendalle.samplers.tiler import TiledNetwork, Tiling, measure_reach, run_tiled

__all__ = [
    "SAMPLERS",
    "BeamOptions",
    "BeamState",
    "GuidedDenoise",
    "GuidedLogits",
    "LogitsAhead",
    "PassState",
    "RepaintOptions",
    "SamplerOptions",
    "SamplerState",
    "TiledNetwork",
    "Tiling",
    "TokenOptions",
    "TokenState",
    "beam_search",
    "fixed_point_tokens",
    "invert",
    "last_state",
    "measure_noise_power",
    "measure_reach",
    "repaint",
    "run_tiled",
    "sample",
    "sample_tokens",
]
