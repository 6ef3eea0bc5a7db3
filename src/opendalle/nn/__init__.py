"""Bricks that two or more networks use: attention, transformer, residual blocks, U-Net, embeddings, KV cache."""
