"""DALL·E 3: a caption's tokens, read by a frozen language model, steer a diffusion model trained on better captions.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023.
"""
