"""DALL·E 2 (unCLIP): caption -> prior -> CLIP picture embedding -> decoder -> picture.

Source: Ramesh et al., "Hierarchical Text-Conditional Image Generation with CLIP Latents", arXiv:2204.06125.
"""
