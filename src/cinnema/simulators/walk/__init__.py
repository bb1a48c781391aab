"""People who walk, run, jump and dance by motion capture."""

from cinnema.simulators.walk.world import MOTIONS, Walk

__all__ = ["MOTIONS", "Walk"]
