"""The arm: a KUKA LBR iiwa of pybullet's models, read where pybullet keeps it, with our gripper."""

import math
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cinnema.simulators.push.engine import Colour, Engine, Point, asset, paint, quiet
from cinnema.simulators.push.layout import FLOOR

Pose: TypeAlias = Float[np.ndarray, "4"]
"""Of the gripper: x, y, z of the end effector in metres, and its turn about z in radians."""


# The arm: heights of its shoulder above its base, and lengths from joint to joint; of the gripper,
# from the last joint to the end effector.
_SHOULDER, _UPPER_ARM, _FOREARM, _HAND = 0.36, 0.42, 0.40, 0.081


_TOOL = 0.215


_NUM_JOINTS = 7


_BASE = (0.0, 0.57, -FLOOR)


# Colours of the arm's odd links, its even links and its gripper.
ARM_PAINTS: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((0.95, 0.45, 0.08), (0.30, 0.30, 0.32), (0.15, 0.15, 0.16)),
    ((0.85, 0.85, 0.86), (0.92, 0.92, 0.92), (0.25, 0.25, 0.27)),
    ((0.70, 0.10, 0.10), (0.15, 0.15, 0.17), (0.55, 0.55, 0.58)),
    ((0.25, 0.40, 0.70), (0.85, 0.85, 0.88), (0.20, 0.20, 0.20)),
    ((0.95, 0.75, 0.15), (0.20, 0.20, 0.22), (0.20, 0.20, 0.22)),
)


# Parts of the gripper: width, depth and height, and the height of the middle above the last joint.
_GRIPPER: Mapping[str, tuple[Point, Point]] = {
    "adaptor": ((0.06, 0.06, 0.03), (0.0, 0.0, 0.06)),
    "palm": ((0.13, 0.045, 0.05), (0.0, 0.0, 0.10)),
    "left": ((0.022, 0.03, 0.09), (-0.045, 0.0, 0.17)),
    "right": ((0.022, 0.03, 0.09), (0.045, 0.0, 0.17)),
}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The arm in an engine: it goes where it is sent, as far as its motors can.

    Attributes:
        engine: Holds the world.
        body: Its number there.
    """

    engine: Engine
    body: int

    def stand_in(self, pose: Pose) -> None:
        """Be in a pose at once."""
        for joint, angle in enumerate(arm_joints(pose)):
            self.engine.resetJointState(self.body, joint, angle)
        self.make_for(pose)

    def make_for(self, pose: Pose) -> None:
        """Turn the motors towards a pose, with at most 15 N m a joint."""
        self.engine.setJointMotorControlArray(
            self.body,
            range(_NUM_JOINTS),
            self.engine.POSITION_CONTROL,
            targetPositions=arm_joints(pose),
            positionGains=[0.3] * _NUM_JOINTS,
            forces=[15.0] * _NUM_JOINTS,
        )

    def end_effector(self) -> Point:
        """Return the point between the fingertips."""
        x, y, z = self._turned((0.0, 0.0, _TOOL))
        return x, y, z

    def _turned(self, point: Point) -> Point:
        state = self.engine.getLinkState(self.body, _NUM_JOINTS - 1, computeForwardKinematics=True)
        place, _ = self.engine.multiplyTransforms(state[4], state[5], point, (0, 0, 0, 1))
        x, y, z = place
        return x, y, z

    def pass_through(self, body: int) -> None:
        """Never collide with a body."""
        for link in range(-1, self.engine.getNumJoints(self.body)):
            self.engine.setCollisionFilterPair(body, self.body, -1, link, 0)


def arm_joints(pose: Pose) -> list[float]:
    """Return the angles of the seven joints, in radians, that bring the gripper to a pose.

    The gripper points down. Of the elbow's positions it is the one straight above, which makes the
    arm a plane one on a turning base, and the mirrored pose's angles the mirrored ones.

    Args:
        pose: Within reach.
    """
    x, y, z, turn = pose.tolist()
    bearing = math.atan2(x - _BASE[0], _BASE[1] - y)
    away = math.hypot(x - _BASE[0], _BASE[1] - y)
    above = z + _TOOL + _HAND - (_BASE[2] + _SHOULDER)
    cosine = (away**2 + above**2 - _UPPER_ARM**2 - _FOREARM**2) / (2 * _UPPER_ARM * _FOREARM)
    bend = math.acos(cosine)
    inner = math.atan2(_FOREARM * math.sin(bend), _UPPER_ARM + _FOREARM * math.cos(bend))
    lift = math.atan2(away, above) - inner
    return [bearing, lift, 0.0, -bend, 0.0, math.pi - lift - bend, bearing - turn]


def set_arm(engine: Engine, paints: tuple[Colour, Colour, Colour]) -> Arm:
    """Put the arm into the engine.

    Args:
        engine: Holds the world.
        paints: Colours of its odd links, its even links and its gripper.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "arm.urdf"
        path.write_bytes(ET.tostring(_describe_arm()))
        body = engine.loadURDF(str(path), _BASE, _facing(engine), useFixedBase=True)
    odd, even, gripper = paints
    for link in range(engine.getNumJoints(body)):
        part = gripper if link >= _NUM_JOINTS - 1 else odd if link % 2 else even
        paint(engine, body, link=link, colour=part)
        # A light arm needs little force against its weight, so that with little force it yields
        # to what it jams against the rim.
        mass = engine.getDynamicsInfo(body, link)[0]
        engine.changeDynamics(body, link, mass=0.1 * mass, lateralFriction=0.4)
    return Arm(engine=engine, body=body)


def _facing(engine: Engine) -> tuple[float, float, float, float]:
    """The turn of the arm's base: towards the camera."""
    x, y, z, w = engine.getQuaternionFromEuler([0, 0, -math.pi / 2])
    return x, y, z, w


def _describe_arm() -> ET.Element:
    """Return the arm of pybullet's models with our gripper, which alone meets other bodies.

    Its pedestal never moves: it is drawn with the scenery.
    """
    path = Path(asset("kuka_iiwa/model.urdf"))
    robot = ET.parse(path).getroot()
    for link in robot.iter("link"):
        unwanted = link.findall("collision")
        if link.attrib["name"] == "lbr_iiwa_link_0":
            unwanted += link.findall("visual")
        for part in unwanted:
            link.remove(part)
    for mesh in robot.iter("mesh"):
        mesh.set("filename", str(path.parent / mesh.attrib["filename"]))
    for name, (size, at) in _GRIPPER.items():
        robot.extend(_describe_part(name, size=size, at=at))
    return robot


def _describe_part(name: str, *, size: Point, at: Point) -> list[ET.Element]:
    box = f'<geometry><box size="{size[0]} {size[1]} {size[2]}"/></geometry>'
    inertia = '<inertia ixx="0.002" ixy="0" ixz="0" iyy="0.002" iyz="0" izz="0.002"/>'
    return [
        ET.fromstring(
            f'<link name="{name}"><inertial><mass value="0.2"/>{inertia}</inertial>'
            f"<visual>{box}</visual><collision>{box}</collision></link>"
        ),
        ET.fromstring(
            f'<joint name="to_{name}" type="fixed"><parent link="lbr_iiwa_link_7"/>'
            f'<child link="{name}"/><origin xyz="{at[0]} {at[1]} {at[2]}"/></joint>'
        ),
    ]


def add_pedestal(engine: Engine) -> int:
    """Put the part of the arm that never moves into the world; return its number."""
    path = asset("kuka_iiwa/meshes/link_0.obj")
    with quiet():
        visual = engine.createVisualShape(engine.GEOM_MESH, fileName=path)
    return int(engine.createMultiBody(0, -1, visual, _BASE, _facing(engine)))
