"""The room's fixtures: a world of four drawings and a judge that knows them by heart."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # importlib mode leaves the folder out

from evaluation_fixture import comparing_judge, world

__all__ = ["comparing_judge", "world"]
