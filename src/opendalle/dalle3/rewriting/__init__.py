"""The prompt upsampler: a short prompt becomes such a caption as the model was trained on.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, appendix C.
"""
