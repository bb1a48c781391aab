"""People who walk, run, jump and dance by motion capture."""

from cinnema.data.worlds.walk.world import MOTIONS, Walk

__all__ = ["MOTIONS", "Walk"]
