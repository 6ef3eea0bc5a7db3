"""CLIP: pictures and captions in one space; its model, its training, and what it is good for on its own."""

from opendalle.clip.model import CLIP, PRESETS, CLIPConfig, TextEncoding
from opendalle.clip.objective import (
    CaptionedBatch,
    ContrastiveConfig,
    ContrastiveObjective,
    SentenceBatch,
    SentenceObjective,
)
from opendalle.clip.rerank import Ranking, rerank
from opendalle.clip.retrieval import Retrieval, measure_retrieval

__all__ = [
    "CLIP",
    "PRESETS",
    "CLIPConfig",
    "CaptionedBatch",
    "ContrastiveConfig",
    "ContrastiveObjective",
    "Ranking",
    "Retrieval",
    "SentenceBatch",
    "SentenceObjective",
    "TextEncoding",
    "measure_retrieval",
    "rerank",
]
