"""Clouds that drift over a still foreground."""

from cinnema.data.worlds.sky.motion import SkyMotion, draw_motion
from cinnema.data.worlds.sky.scene import SkyScene, draw_scene
from cinnema.data.worlds.sky.world import Skies

__all__ = ["Skies", "SkyMotion", "SkyScene", "draw_motion", "draw_scene"]
