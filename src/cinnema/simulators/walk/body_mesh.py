"""The mesh of a person: random proportions and clothes, and the skin built from them.

The skin consists of closed tubes along z: trunk, neck, skull, arms, legs, shoes, and optionally a
skirt or long hair. Tables contain their cross-sections, for a person of the recorded size.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from cinnema.simulators.colours import draw_colour, from_hex, near_grey, pick, varied
from cinnema.simulators.walk.figure import JOINTS, PARENTS, Figure
from cinnema.simulators.walk.mocap import smooth_step

Points: TypeAlias = NDArray[np.float64]

Ring: TypeAlias = tuple[float, float, float, float, float]
"""Height, centre in x and y, half extent in x and y."""

# Cross-sections of the trunk, in metres: height above the hips, forward offset, half depth, half
# width; and the weight of the shoulders' width against the hips', from 0 to 1.
_TRUNK = (
    (-0.135, -0.005, 0.01, 0.01, 0.0),
    (-0.12, -0.005, 0.07, 0.08, 0.0),
    (-0.07, -0.012, 0.106, 0.15, 0.0),
    (-0.01, -0.014, 0.113, 0.168, 0.0),
    (0.05, -0.01, 0.108, 0.16, 0.0),
    (0.11, -0.002, 0.099, 0.146, 0.2),
    (0.17, 0.002, 0.095, 0.138, 0.4),
    (0.23, 0.002, 0.099, 0.142, 0.6),
    (0.29, 0.002, 0.107, 0.15, 0.8),
    (0.35, 0.002, 0.113, 0.159, 1.0),
    (0.41, -0.004, 0.108, 0.166, 1.0),
    (0.455, -0.014, 0.095, 0.172, 1.0),
    (0.49, -0.02, 0.076, 0.15, 1.0),
    (0.512, -0.018, 0.062, 0.1, 1.0),
    (0.53, -0.012, 0.054, 0.06, 1.0),
    (0.54, -0.01, 0.01, 0.01, 1.0),
)
# Cross-sections of limbs: position along the limb, half depth, half width. Position 1 is the elbow
# or knee, position 2 the wrist or ankle.
_ARM = (
    (-0.2, 0.01, 0.01), (-0.16, 0.036, 0.034), (-0.07, 0.052, 0.05), (0.02, 0.057, 0.055),
    (0.2, 0.054, 0.05), (0.42, 0.049, 0.045), (0.65, 0.045, 0.041), (0.87, 0.042, 0.039),
    (1.0, 0.041, 0.038), (1.14, 0.043, 0.039), (1.35, 0.041, 0.037), (1.6, 0.034, 0.031),
    (1.82, 0.028, 0.025), (2.0, 0.027, 0.022),
)  # fmt: skip
# Cross-sections of a hand: distance below the wrist, half depth, half width, in metres.
_HAND = ((0.03, 0.036, 0.019), (0.07, 0.041, 0.02), (0.11, 0.036, 0.018), (0.15, 0.024, 0.014),
         (0.165, 0.006, 0.004))  # fmt: skip
_LEG = (
    (-0.13, 0.01, 0.01), (-0.11, 0.05, 0.045), (-0.05, 0.085, 0.075), (0.04, 0.094, 0.083),
    (0.18, 0.09, 0.083), (0.36, 0.082, 0.077), (0.55, 0.073, 0.069), (0.75, 0.064, 0.061),
    (0.92, 0.058, 0.056), (1.0, 0.057, 0.055), (1.1, 0.056, 0.055), (1.26, 0.058, 0.056),
    (1.45, 0.053, 0.051), (1.65, 0.044, 0.042), (1.85, 0.037, 0.036), (2.0, 0.035, 0.034),
    (2.06, 0.01, 0.01),
)  # fmt: skip
# Cross-sections of a shoe: position in front of the ankle, lower and upper edge above the sole,
# half width.
_SHOE = (
    (-0.072, 0.02, 0.06, 0.012), (-0.066, 0.002, 0.085, 0.03), (-0.04, 0.0, 0.1, 0.038),
    (0.0, 0.0, 0.1, 0.04), (0.035, 0.0, 0.085, 0.042), (0.07, 0.0, 0.065, 0.045),
    (0.115, 0.0, 0.05, 0.048), (0.155, 0.0, 0.042, 0.045), (0.182, 0.004, 0.034, 0.032),
    (0.194, 0.012, 0.024, 0.01),
)  # fmt: skip
# Cross-sections of long hair and of a pony tail: height above the head's centre, forward offset,
# half depth, half width.
_HANGING_HAIR = {
    "long": (
        (0.06, -0.02, 0.075, 0.085), (0.0, -0.035, 0.07, 0.09), (-0.08, -0.055, 0.05, 0.09),
        (-0.16, -0.07, 0.035, 0.085), (-0.22, -0.085, 0.008, 0.05),
    ),
    "tail": (
        (0.06, -0.11, 0.01, 0.01), (0.045, -0.125, 0.028, 0.026), (-0.03, -0.14, 0.03, 0.028),
        (-0.13, -0.135, 0.026, 0.024), (-0.2, -0.125, 0.005, 0.005),
    ),
}  # fmt: skip
# Distance of the sole below the ankle, in metres.
_SOLE = 0.07
_SKINS = ("f3d3bd", "e9bd9b", "d8a27c", "b97d56", "8f5a3a", "6b4129", "4c2d1e")
_HAIRS = ("15110f", "2c1d14", "4f3220", "7a5230", "b88a4a", "d8bd83", "8a3f1c", "8d8a86", "d6d4d0")
_TROUSERS = (
    "1d2536", "2f4468", "5c7ba3", "1a1a1c", "4a4b4d", "8b8d90", "6b5b45", "b8a684", "43492f",
    "5a2328", "e3e0d8",
)  # fmt: skip
_SHOES = ("141414", "efefec", "5a3a22", "b33127", "28406e", "77787a", "d9c24b")


@dataclass(frozen=True, kw_only=True)
class Build:
    """Proportions of a person, as factors of those of the recorded person, who is 1.67 m tall.

    Attributes:
        scale: Factor of all lengths.
        legs: Factor of the legs' length.
        torso: Factor of the trunk's length.
        arms: Factor of the arms' length.
        shoulders: Factor of the width between the shoulders.
        hips: Factor of the width between the hips.
        girth: Factor of the thickness of limbs and trunk.
        belly: Additional depth of the waist in front, in metres.
    """

    scale: float = 1.0
    legs: float = 1.0
    torso: float = 1.0
    arms: float = 1.0
    shoulders: float = 1.0
    hips: float = 1.0
    girth: float = 1.0
    belly: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Clothes:
    """Clothes and colours of a person.

    Attributes:
        skin: Colour of the skin.
        hair: Colour of the hair.
        shirt: Colour of the shirt.
        accent: Second colour of the shirt's pattern, and of a cap.
        trousers: Colour of the trousers or the skirt.
        shoes: Colour of the shoes above the sole.
        pattern: "plain", "stripes", "bars" (vertical stripes), "halves", or "sleeves" (in the
            accent's colour).
        sleeves: Covered share of the arms: 0 is none, 0.45 short, 1 long.
        legs: Covered share of the legs: 0 is none, 0.45 shorts, 1 long.
        hairdo: "short", "long", "tail", "cap" or "bald".
        skirt: Length as a share of the legs' length; 0 without a skirt.
        beard: Whether the person has a beard.
    """

    skin: Float64[np.ndarray, "3"]
    hair: Float64[np.ndarray, "3"]
    shirt: Float64[np.ndarray, "3"]
    accent: Float64[np.ndarray, "3"]
    trousers: Float64[np.ndarray, "3"]
    shoes: Float64[np.ndarray, "3"]
    pattern: str = "plain"
    sleeves: float = 0.45
    legs: float = 1.0
    hairdo: str = "short"
    skirt: float = 0.0
    beard: bool = False


def draw_build(rng: np.random.Generator) -> Build:
    """Draw the proportions of a person, 1.5 to 1.9 m tall and slim to stout."""
    stout = rng.normal(0.0, 1.0)
    return Build(
        scale=float(np.clip(rng.normal(1.02, 0.05), 0.9, 1.13)),
        legs=float(rng.uniform(0.95, 1.06)),
        torso=float(rng.uniform(0.95, 1.06)),
        arms=float(rng.uniform(0.94, 1.05)),
        shoulders=float(rng.uniform(0.86, 1.08)),
        hips=float(rng.uniform(0.95, 1.1)),
        girth=float(np.clip(1.0 + 0.1 * stout, 0.85, 1.3)),
        belly=float(np.clip(0.02 * stout, 0.0, 0.06)),
    )


def draw_clothes(rng: np.random.Generator) -> Clothes:
    """Draw the clothes of a person."""
    shirt, accent = _draw_cloth(rng), _draw_cloth(rng)
    if abs(shirt.sum() - accent.sum()) < 0.6:
        accent = np.full(3, 0.13 if shirt.sum() > 1.5 else 0.9)
    has_trousers = rng.random() < 0.75
    trousers = varied(rng, from_hex(pick(rng, _TROUSERS)), 0.03)
    has_skirt = rng.random() < 0.12
    return Clothes(
        skin=varied(rng, from_hex(pick(rng, _SKINS)), 0.03),
        hair=varied(rng, from_hex(pick(rng, _HAIRS)), 0.02),
        shirt=shirt,
        accent=accent,
        trousers=trousers if has_trousers else _draw_cloth(rng),
        shoes=from_hex(pick(rng, _SHOES)),
        pattern=pick(rng, ("plain", "plain", "plain", "stripes", "bars", "halves", "sleeves")),
        sleeves=pick(rng, (0.0, 0.35, 0.45, 0.45, 1.0, 1.0, 1.0)),
        legs=0.0 if has_skirt else pick(rng, (0.45, 0.75, 1.0, 1.0, 1.0)),
        hairdo=pick(rng, ("bald", "short", "short", "short", "long", "long", "tail", "cap")),
        skirt=float(rng.uniform(0.35, 0.7)) if has_skirt else 0.0,
        beard=bool(rng.random() < 0.15),
    )


def _draw_cloth(rng: np.random.Generator) -> Points:
    """Draw a colour of cloth; one in four is black, white or grey."""
    if rng.random() < 0.25:
        return near_grey(rng, pick(rng, (0.1, 0.25, 0.5, 0.75, 0.92)))
    return draw_colour(rng, dull=0.1, darkest=0.3)


def rest_joints(build: Build) -> Float64[np.ndarray, "18 3"]:
    """Return the positions of the joints at rest, with the pelvis at the origin.

    Args:
        build: Proportions of the person.
    """
    offsets = {
        "hip": (0.0, 0.085 * build.hips, 0.0),
        "knee": (0.0, 0.0, -0.4215 * build.legs),
        "ankle": (0.0, 0.0, -0.41 * build.legs),
        "toe": (0.15, 0.0, -0.045),
        "shoulder": (-0.024, 0.175 * build.shoulders, 0.2435 * build.torso),
        "elbow": (0.0, 0.0, -0.275 * build.arms),
        "wrist": (0.0, 0.0, -0.259 * build.arms),
        "pelvis": (0.0, 0.0, 0.0),
        "chest": (0.0, 0.0, 0.236 * build.torso),
        "neck": (0.0, 0.0, 0.224 * build.torso),
        "head": (0.012, 0.0, 0.165),
    }
    places: dict[str, Points] = {"": np.zeros(3)}
    for name, parent in PARENTS.items():
        offset = np.array(offsets[name.removeprefix("right_").removeprefix("left_")])
        mirror = [1.0, -1.0 if name.startswith("right_") else 1.0, 1.0]
        places[name] = places[parent] + offset * mirror
    return np.stack([places[name] for name in JOINTS]) * build.scale


def make_figure(build: Build, clothes: Clothes, *, grain: np.random.Generator) -> Figure:
    """Build the skin of a person.

    Args:
        build: Proportions.
        clothes: Clothes and colours.
        grain: Source of the small random differences in colour.
    """
    body = _Body(build, clothes)
    parts = [*body.trunk(), *body.head()]
    for side in ("right_", "left_"):
        parts += [body.arm(side), body.leg(side), body.shoe(side)]
    first = np.cumsum([0, *(len(part.points) for part in parts[:-1])])
    colours = np.concatenate([part.colours for part in parts])
    colours = colours * grain.normal(1.0, 0.035, (len(colours), 1))
    return Figure(
        rest=rest_joints(build),
        points=np.concatenate([part.points for part in parts]) * build.scale,
        carriers=np.concatenate([part.carriers for part in parts]),
        weights=np.concatenate([part.weights for part in parts]),
        tiles=np.concatenate(
            [part.tiles + start for part, start in zip(parts, first, strict=True)]
        ),
        colours=colours.clip(0, 1),
    )


@dataclass(frozen=True)
class _Part:
    """A part of a `Figure`, with the same attributes."""

    points: Points
    carriers: NDArray[np.int64]
    weights: Points
    tiles: NDArray[np.int64]
    colours: Points


@dataclass(frozen=True)
class _Tube:
    """A closed tube along z."""

    points: Points
    tiles: NDArray[np.int64]

    @property
    def middles(self) -> Points:
        """Centres of the quadrilaterals."""
        return np.asarray(self.points[self.tiles].mean(axis=1))

    def moved(self, offset: Points) -> "_Tube":
        return replace(self, points=self.points + offset)

    def part(self, colours: Points, carriers: Mapping[str, Points | float]) -> _Part:
        """Assign colours and up to three joints with weights."""
        shape = (len(self.points), 3)
        numbers, weights = np.zeros(shape, dtype=np.int64), np.zeros(shape)
        for slot, (name, weight) in enumerate(carriers.items()):
            numbers[:, slot], weights[:, slot] = JOINTS.index(name), weight
        colours = np.broadcast_to(colours, (len(self.tiles), 3))
        return _Part(self.points, numbers, weights, self.tiles, colours)


def _tube(rings: Sequence[Ring], *, around: int, squareness: float = 2.0) -> _Tube:
    """Build a tube.

    Args:
        rings: Cross-sections from one end to the other; small ones at the ends close the tube.
        around: Number of vertices of each ring.
        squareness: Exponent of the superellipse: 2 is an ellipse, more a rounded box.
    """
    angle = 2 * math.pi * (np.arange(around) + 0.5) / around
    circle = np.stack([np.cos(angle), np.sin(angle)])
    circle = np.sign(circle) * np.abs(circle) ** (2 / squareness)
    z, x, y, wide, deep = np.array(rings).T[:, :, None]
    height = np.broadcast_to(z, (len(rings), around))
    points = np.stack([x + wide * circle[0], y + deep * circle[1], height], axis=-1)
    ring, step = np.meshgrid(np.arange(len(rings) - 1), np.arange(around), indexing="ij")
    a, b = ring * around + step, ring * around + (step + 1) % around
    tiles = np.stack([a, b, b + around, a + around], axis=-1).reshape(-1, 4)
    if rings[-1][0] < rings[0][0]:
        tiles = tiles[:, ::-1].copy()  # keeps them counter-clockwise from outside
    return _Tube(points.reshape(-1, 3), tiles)


class _Body:
    """Builds the parts of one person, before `Build.scale` is applied."""

    def __init__(self, build: Build, clothes: Clothes) -> None:
        self.build, self.clothes = build, clothes
        rest = rest_joints(replace(build, scale=1.0))
        self.rest = dict(zip(JOINTS, rest, strict=True))

    def trunk(self) -> list[_Part]:
        """Return the trunk with the shirt, and the skirt if there is one."""
        build, clothes = self.build, self.clothes
        rings = []
        for z, forward, deep, wide, upper in _TRUNK:
            width = wide * ((1 - upper) * build.hips + upper * build.shoulders)
            belly = build.belly * math.exp(-(((z - 0.13) / 0.09) ** 2)) / 2
            stretched = z * build.torso if z > 0 else z
            thick = build.girth if z < 0.5 else 1.0
            rings.append((stretched, forward + belly, 0.0, deep * thick + belly, width * thick))
        tube = _tube(rings, around=16, squareness=2.4)
        height = tube.middles[:, 2:]
        waist, collar = (0.08 if clothes.skirt else 0.04), self.rest["neck"][2] + 0.045
        colours = np.where(
            height > waist * build.torso, self._shirt(tube.middles), clothes.trousers
        )
        colours = np.where(height > collar, clothes.skin, colours)
        rise = smooth_step((tube.points[:, 2] - 0.08) / (self.rest["chest"][2] - 0.02))
        parts = [tube.part(colours, {"chest": rise, "pelvis": 1 - rise})]
        return parts + ([self._skirt()] if clothes.skirt else [])

    def _shirt(self, places: Points) -> Points:
        """Return the colours of the shirt at some positions."""
        clothes = self.clothes
        angle = np.arctan2(places[:, 1], places[:, 0])
        shows_accent = {
            "stripes": np.floor(places[:, 2] / 0.06) % 2 == 0,
            "bars": np.floor(angle / (2 * math.pi) * 12) % 2 == 0,
            "halves": places[:, 2] > 0.3 * self.build.torso,
        }.get(clothes.pattern, np.zeros(len(places), dtype=np.bool_))
        return np.where(shows_accent[:, None], clothes.accent, clothes.shirt)

    def _skirt(self) -> _Part:
        build, length = self.build, self.clothes.skirt * 0.83 * self.build.legs
        rings = []
        for share in np.linspace(0.0, 1.0, 8):
            wide = (0.15 + 0.1 * share**0.8) * build.hips * build.girth
            deep = (0.105 + 0.1 * share**0.8) * build.girth
            rings.append((0.09 - share * (0.09 + length), -0.005, 0.0, deep, wide))
        tube = _tube(rings, around=20)
        _, y, z = tube.points.T
        fall, left = smooth_step((0.03 - z) / 0.2) * 0.92, smooth_step(y / 0.2 + 0.5)
        folds = 0.92 + 0.08 * np.cos(np.arange(len(tube.tiles)) * 2.1)
        carriers = {"pelvis": 1 - fall, "left_hip": fall * left, "right_hip": fall * (1 - left)}
        return tube.part(self.clothes.trousers * folds[:, None], carriers)

    def head(self) -> list[_Part]:
        """Return the neck, the skull with face and hair, and long hair."""
        bottom, centre = self.rest["neck"][2] + 0.01, self.rest["head"]
        heights = np.linspace(bottom, centre[2] - 0.03, 4).tolist()
        radii = (0.058, 0.052, 0.05, 0.05)
        rings = [(z, -0.004, 0.0, r, 0.95 * r) for z, r in zip(heights, radii, strict=True)]
        tube = _tube(rings, around=10)
        rise = smooth_step((tube.points[:, 2] - bottom + 0.01) / 0.06)
        throat = tube.part(0.96 * self.clothes.skin, {"neck": rise, "chest": 1 - rise})
        return [throat, self._skull(), *self._hanging_hair()]

    def _skull(self) -> _Part:
        clothes = self.clothes
        polar = np.linspace(0.02, math.pi - 0.02, 12).tolist()
        ball = _tube([(-math.cos(a), 0, 0, math.sin(a), math.sin(a)) for a in polar], around=16)
        direction = ball.middles / np.linalg.norm(ball.middles, axis=1, keepdims=True)
        colours = np.where(self._is_hair(direction)[:, None], clothes.hair, clothes.skin)
        x, y, z = direction.T
        if clothes.hairdo == "cap":
            colours[z > 0.3 - 0.1 * x] = clothes.accent
        is_eye = (np.abs(np.abs(y) - 0.36) < 0.13) & (np.abs(z - 0.06) < 0.11) & (x > 0.5)
        is_mouth = (np.abs(y) < 0.25) & (np.abs(z + 0.5) < 0.1) & (x > 0.5)
        colours[is_eye] *= 0.45
        colours[is_mouth] *= [0.85, 0.6, 0.6]
        skull = replace(ball, points=self._skull_shape(ball.points) + self.rest["head"])
        return skull.part(colours, {"neck": 1.0})

    def _is_hair(self, direction: Points) -> NDArray[np.bool_]:
        x, _, z = direction.T
        is_hair = np.zeros(len(x), dtype=np.bool_)
        if self.clothes.hairdo != "bald":
            is_hair |= (z > 0.62 - 0.1 * x) | ((x < 0.12) & (z > -0.45 - 0.5 * x))
        if self.clothes.beard:
            is_hair |= (z < -0.3) & (z > -0.85) & (x > -0.1)
        return is_hair

    def _skull_shape(self, ball: Points) -> Points:
        """Deform a ball to a head with chin, nose and hair."""
        x, y, z = ball.T
        chin = np.clip(-z, 0, 1) ** 2
        nose = np.exp(-((y / 0.16) ** 2) - ((z + 0.14) / 0.18) ** 2) * (x > 0)
        depth = x * (0.095 - 0.012 * chin) + 0.012 * chin + 0.022 * nose
        egg = np.stack([depth, y * (0.076 - 0.018 * chin), z * (0.118 + 0.01 * chin)], axis=1)
        thick = {"cap": 1.09, "long": 1.12}.get(self.clothes.hairdo, 1.08)
        return np.where((self._is_hair(ball) & (z > -0.4))[:, None], egg * thick, egg)

    def _hanging_hair(self) -> list[_Part]:
        if self.clothes.hairdo not in _HANGING_HAIR:
            return []
        rings = [(z, x, 0.0, deep, w) for z, x, deep, w in _HANGING_HAIR[self.clothes.hairdo]]
        tube = _tube(rings, around=12).moved(self.rest["head"])
        return [tube.part(self.clothes.hair, {"neck": 1.0})]

    def arm(self, side: str) -> _Part:
        """Return an arm with hand and sleeve, for `side` "left_" or "right_"."""
        clothes, thick = self.clothes, self.build.girth
        shoulder, elbow, wrist = (self.rest[side + n] for n in ("shoulder", "elbow", "wrist"))
        end = 2 * clothes.sleeves if clothes.sleeves else -1.0
        slack = 0.006 if clothes.sleeves == 1 else 0.012
        rings = []
        for along, deep, wide in _ARM:
            z, cloth = _height(along, shoulder, elbow, wrist), slack if along <= end else 0.0
            rings.append((z, 0.0, 0.0, deep * thick + cloth, wide * thick + cloth))
        rings += [(wrist[2] - z, 0.005, 0.0, deep, wide) for z, deep, wide in _HAND]
        tube = _tube(rings, around=10).moved(shoulder * [1.0, 1.0, 0.0])
        height = tube.middles[:, 2:]
        shirt = clothes.accent if clothes.pattern in ("sleeves", "halves") else clothes.shirt
        if clothes.pattern == "stripes":
            shirt = self._shirt(tube.middles)
        is_sleeve = height > _height(end, shoulder, elbow, wrist)
        bend = smooth_step((elbow[2] + 0.045 - tube.points[:, 2]) / 0.09)
        carriers = {side + "shoulder": 1 - bend, side + "elbow": bend}
        return tube.part(np.where(is_sleeve, shirt, clothes.skin), carriers)

    def leg(self, side: str) -> _Part:
        """Return a leg with the trousers."""
        clothes, end = self.clothes, 2 * self.clothes.legs
        hip, knee, ankle = (self.rest[side + name] for name in ("hip", "knee", "ankle"))
        rings = []
        for along, deep, wide in _LEG:
            z, cloth = _height(along, hip, knee, ankle), 0.008 + 0.006 * along
            cloth = cloth if along <= end else 0.0
            thick = self.build.girth if along < 1.9 else 1.0
            rings.append((z, -0.006, 0.0, deep * thick + cloth, wide * thick + cloth))
        tube = _tube(rings, around=12).moved(hip * [1.0, 1.0, 0.0])
        is_covered = tube.middles[:, 2:] > _height(end + 0.1 * (end == 2), hip, knee, ankle)
        bend = smooth_step((knee[2] + 0.06 - tube.points[:, 2]) / 0.12)
        carriers = {side + "hip": 1 - bend, side + "knee": bend}
        return tube.part(np.where(is_covered, clothes.trousers, clothes.skin), carriers)

    def shoe(self, side: str) -> _Part:
        """Return a shoe with its sole."""
        shoes = self.clothes.shoes
        rings = [(x, 0.0, (a + b) / 2 - _SOLE, wide, (b - a) / 2) for x, a, b, wide in _SHOE]
        tube = _tube(rings, around=10, squareness=2.6)
        # A tube runs along z; a shoe runs along x, the ring's x across it and the ring's y up.
        tube = replace(tube, points=tube.points[:, [2, 0, 1]])
        sole = shoes * 0.55 if shoes.sum() > 1.5 else shoes * 0.5 + 0.4
        colours = np.where(tube.middles[:, 2:] < -_SOLE + 0.02, sole, shoes)
        return tube.moved(self.rest[side + "ankle"]).part(colours, {side + "ankle": 1.0})


def _height(along: float, first: Points, second: Points, third: Points) -> float:
    """Return z at a position along a limb, with 0, 1 (elbow, knee) and 2 at the given points."""
    if along < 1:
        return float(first[2] + along * (second[2] - first[2]))
    return float(second[2] + (along - 1) * (third[2] - second[2]))
