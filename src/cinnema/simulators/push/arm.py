"""The arm: a KUKA LBR iiwa from pybullet's models, with a gripper of our own."""

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

Pose: TypeAlias = Float[np.ndarray, "4"]
"""x, y and z of the end effector in metres, and the gripper's rotation about z in radians."""

WORKSPACE: tuple[tuple[float, float], ...] = ((-0.24, 0.24), (-0.13, 0.14), (0.015, 0.15))
"""Minimum and maximum of the end effector's target x, y and z, in metres."""

TABLE_HEIGHT = -0.012
"""z of the table, on which the arm and the tray stand, in metres."""

# Height of the shoulder above the base, lengths of the links, and length of the gripper from the
# last joint to the end effector, in metres.
_SHOULDER, _UPPER_ARM, _FOREARM, _HAND = 0.36, 0.42, 0.40, 0.081
_TOOL = 0.215
_NUM_JOINTS = 7
_BASE = (0.0, 0.57, TABLE_HEIGHT)

ARM_PAINTS: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((0.95, 0.45, 0.08), (0.30, 0.30, 0.32), (0.15, 0.15, 0.16)),
    ((0.85, 0.85, 0.86), (0.92, 0.92, 0.92), (0.25, 0.25, 0.27)),
    ((0.70, 0.10, 0.10), (0.15, 0.15, 0.17), (0.55, 0.55, 0.58)),
    ((0.25, 0.40, 0.70), (0.85, 0.85, 0.88), (0.20, 0.20, 0.20)),
    ((0.95, 0.75, 0.15), (0.20, 0.20, 0.22), (0.20, 0.20, 0.22)),
)
"""Colour schemes: of the arm's odd links, its even links and its gripper."""

# Parts of the gripper: size, and centre relative to the last joint, in metres.
_GRIPPER: Mapping[str, tuple[Point, Point]] = {
    "adaptor": ((0.06, 0.06, 0.03), (0.0, 0.0, 0.06)),
    "palm": ((0.13, 0.045, 0.05), (0.0, 0.0, 0.10)),
    "left": ((0.022, 0.03, 0.09), (-0.045, 0.0, 0.17)),
    "right": ((0.022, 0.03, 0.09), (0.045, 0.0, 0.17)),
}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The arm in a simulation, with motors of limited force.

    Attributes:
        engine: The simulation.
        body: Number of the arm's body.
    """

    engine: Engine
    body: int

    def set_pose(self, pose: Pose) -> None:
        """Set the joints to a pose at once.

        Args:
            pose: Pose of the gripper, within reach.
        """
        for joint, angle in enumerate(arm_joints(pose)):
            self.engine.resetJointState(self.body, joint, angle)
        self.move_to(pose)

    def move_to(self, pose: Pose) -> None:
        """Set the motors' targets, with a torque of at most 15 N m per joint.

        Args:
            pose: Pose of the gripper, within reach.
        """
        self.engine.setJointMotorControlArray(
            self.body,
            range(_NUM_JOINTS),
            self.engine.POSITION_CONTROL,
            targetPositions=arm_joints(pose),
            positionGains=[0.3] * _NUM_JOINTS,
            forces=[15.0] * _NUM_JOINTS,
        )

    def end_effector(self) -> Point:
        """Return the position of the point between the fingertips, in metres."""
        state = self.engine.getLinkState(self.body, _NUM_JOINTS - 1, computeForwardKinematics=True)
        tool = (0.0, 0.0, _TOOL)
        (x, y, z), _ = self.engine.multiplyTransforms(state[4], state[5], tool, (0, 0, 0, 1))
        return x, y, z

    def pass_through(self, body: int) -> None:
        """Disable collisions with a body.

        Args:
            body: Number of the body.
        """
        for link in range(-1, self.engine.getNumJoints(self.body)):
            self.engine.setCollisionFilterPair(body, self.body, -1, link, 0)


def arm_joints(pose: Pose) -> list[float]:
    """Return the angles of the seven joints for a pose (inverse kinematics), in radians.

    The gripper points down. The elbow is straight above, so the arm moves in a vertical plane that
    turns about its base, and mirrored poses have mirrored angles.

    Args:
        pose: Pose of the gripper, within reach.
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
    """Add the arm to a simulation.

    Args:
        engine: The simulation.
        paints: One of `ARM_PAINTS`.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "arm.urdf"
        path.write_bytes(ET.tostring(_describe_arm()))
        body = engine.loadURDF(str(path), _BASE, _facing(engine), useFixedBase=True)
    odd, even, gripper = paints
    for link in range(engine.getNumJoints(body)):
        part = gripper if link >= _NUM_JOINTS - 1 else odd if link % 2 else even
        paint(engine, body, link=link, colour=part)
        # A light arm needs little force to hold its weight, so with little force it yields where
        # it jams an object against the rim.
        mass = engine.getDynamicsInfo(body, link)[0]
        engine.changeDynamics(body, link, mass=0.1 * mass, lateralFriction=0.4)
    return Arm(engine=engine, body=body)


def _facing(engine: Engine) -> tuple[float, float, float, float]:
    """Return the orientation of the arm's base, which faces the camera, as a quaternion."""
    x, y, z, w = engine.getQuaternionFromEuler([0, 0, -math.pi / 2])
    return x, y, z, w


def _describe_arm() -> ET.Element:
    """Return the URDF of pybullet's arm with our gripper, the only part that collides.

    The pedestal is left out: it never moves and is drawn with the scenery.
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
    """Add the static part of the arm, without collisions.

    Args:
        engine: The simulation.

    Returns:
        Number of the body.
    """
    path = asset("kuka_iiwa/meshes/link_0.obj")
    with quiet():
        visual = engine.createVisualShape(engine.GEOM_MESH, fileName=path)
    return int(engine.createMultiBody(0, -1, visual, _BASE, _facing(engine)))
