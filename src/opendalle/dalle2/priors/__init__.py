"""Priors: what stands between a caption and the CLIP embedding that the decoder draws from.

The paper trains two and asks whether one is needed at all.  All answers wear one interface, `protocol.Prior`:

    diffusion     denoises the embedding                                       diffusion.py, section 2.2
    ar            writes it as a sentence of codes                             autoregressive.py, section 2.2
    linear        multiplies z_t by a matrix                                   linear.py
    projection    one pass of a small transformer                              projection.py, arXiv:2312.04655
    none          hands z_t itself to the decoder, plain or shifted            untrained.py, section 5.1
    caption       hands it nothing: the caption alone remains                  untrained.py, section 5.1
"""
