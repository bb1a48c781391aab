"""A robot arm that pushes objects in a tray."""

from cinnema.simulators.push.arm import WORKSPACE
from cinnema.simulators.push.push import END_EFFECTOR, Push

__all__ = ["END_EFFECTOR", "WORKSPACE", "Push"]
