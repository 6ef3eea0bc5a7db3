"""Text to token numbers and back: byte-level byte-pair encoding for any language, in plain Python."""

from opendalle.tokenizers.bpe import BytePairTokenizer, Packed
from opendalle.tokenizers.text import normalise

__all__ = ["BytePairTokenizer", "Packed", "normalise"]
