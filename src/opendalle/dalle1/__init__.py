"""DALL·E 1: a caption and a picture as one sentence, the picture's words drawn one by one after the caption's.

Source: Ramesh et al., "Zero-Shot Text-to-Image Generation", arXiv:2102.12092.
"""
