"""Our own model folder and run folder: written in one piece, checked when read, never a pickle.  Knows no kinds."""
