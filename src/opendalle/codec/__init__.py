"""Picture to grid and back: what a decoder denoises is a codec's grid, not pixels."""
