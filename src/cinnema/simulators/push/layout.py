"""Where things are on the table, in metres, and where the arm goes."""

WORKSPACE: tuple[tuple[float, float], ...] = ((-0.24, 0.24), (-0.13, 0.14), (0.015, 0.15))
"""Least and greatest x, y and z to which the end effector is sent, in metres."""


# Half the width and depth of the tray's floor, the height and thickness of its rim, and how far
# its floor is above the table.
TRAY = (0.30, 0.20)


RIM, THICK, FLOOR = 0.045, 0.008, 0.012
