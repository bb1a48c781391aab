"""A robot arm that pushes things about in a tray."""

from cinnema.simulators.push.layout import WORKSPACE
from cinnema.simulators.push.world import END_EFFECTOR, Push

__all__ = ["END_EFFECTOR", "WORKSPACE", "Push"]
