"""People who move by motion capture."""

from cinnema.simulators.walk.walk import MOTIONS, Walk

__all__ = ["MOTIONS", "Walk"]
