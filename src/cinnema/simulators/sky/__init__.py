"""Clouds that drift over a static foreground."""

from cinnema.simulators.sky.motion import SkyMotion
from cinnema.simulators.sky.scene import SkyScene, draw_scene
from cinnema.simulators.sky.skies import Skies

__all__ = ["Skies", "SkyMotion", "SkyScene", "draw_scene"]
