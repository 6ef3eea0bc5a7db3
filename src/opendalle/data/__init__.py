"""Picture and caption sets, their order, and batches of them.

sets         what a picture set is
folder       a folder of pictures with .txt captions
emoji/       the emoji world: sprites, captions in voices, scenes with exact truth, hold-outs, prompts
order        in which order a run sees a set: a pure function of (seed, epoch, position)
loading      batches as networks want them, from any position on
embeddings   arrays computed once, stamped with the network that made them
"""
