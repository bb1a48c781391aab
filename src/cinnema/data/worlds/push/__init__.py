"""A robot arm that pushes things about in a tray."""

from cinnema.data.worlds.push.layout import WORKSPACE
from cinnema.data.worlds.push.world import END_EFFECTOR, Push

__all__ = ["END_EFFECTOR", "WORKSPACE", "Push"]
