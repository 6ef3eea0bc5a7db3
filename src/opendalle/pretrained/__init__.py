"""From a name or a folder to a model that works.

The table of kinds is closed: a folder says which kind it is, and only these few classes can ever be built from one.
"""

from opendalle.checkpoint.places import bundled_models, find_model
from opendalle.pretrained.kinds import load, load_captioner, load_folder, load_network, load_pipeline

__all__ = ["bundled_models", "find_model", "load", "load_captioner", "load_folder", "load_network", "load_pipeline"]
