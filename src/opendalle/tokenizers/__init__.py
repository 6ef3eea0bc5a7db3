"""Text to token numbers and back, in plain Python: byte-pair encoding, bytes (ByT5), likeliest pieces (T5)."""

from opendalle.tokenizers.bpe import BytePairTokenizer, Packed
from opendalle.tokenizers.byte_level import ByteTokenizer
from opendalle.tokenizers.text import normalise
from opendalle.tokenizers.unigram import UnigramTokenizer

__all__ = ["BytePairTokenizer", "ByteTokenizer", "Packed", "UnigramTokenizer", "normalise"]
