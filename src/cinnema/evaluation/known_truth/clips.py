"""Clips of which the truth is known, and what a model makes of their first frames."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.records import Split
from cinnema.evaluation.protocols import (
    RealClip,
    Start,
    choose_protocol,
    choose_starts,
)
from cinnema.evaluation.statistics.bootstrap import hash_of
from cinnema.media.pictures import to_pixels
from cinnema.models.base import VideoModel

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told what goes on, how much of it is done, and of how much."""

Video: TypeAlias = UInt8[np.ndarray, "t1 h w 3"]
Etas: TypeAlias = Sequence[Float[Tensor, " e"]]

_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class KnownClip(RealClip):
    """A window of a clip, with what the data know of it.

    Attributes:
        future_of: The name that clips with the same first frame share; None where there is none.
        track: The control's track at each of the frames; None where there is no control.
        still: Where nothing moves throughout the clip, if that is known.
    """

    future_of: str | None = None
    track: Float32[np.ndarray, "t1 e"] | None = None
    still: Bool[np.ndarray, "h w"] | None = None

    @property
    def source(self) -> str:
        """The source video."""
        return self.start.source


def choose_clips(
    dataset: PackedDataset,
    model: VideoModel,
    *,
    split: Split = "test",
    stride: int = 1,
    most: int | None = None,
) -> list[KnownClip]:
    """Read windows of T + 1 frames that do not overlap, up to six of a clip.

    Clips of one start (different futures) are read from their first frame. Where there are more
    than `most`, they are thinned by a hash, so that a larger number contains a smaller one's.

    Args:
        dataset: Packed clips.
        model: Whose T and size they have to have.
        split: Which side.
        stride: Every which frame follows.
        most: At most so many windows; all if None.

    Raises:
        UserError: The data are of another size, or no clip is long enough.
    """
    starts = choose_windows(dataset, model, split=split, stride=stride, most=most)
    return [read_window(dataset, start, num_frames=model.num_frames) for start in starts]


def choose_windows(
    dataset: PackedDataset,
    model: VideoModel,
    *,
    split: Split,
    stride: int = 1,
    most: int | None = None,
) -> list[Start]:
    """Choose what `choose_clips` reads; arguments and errors as there."""
    manifest = dataset.manifest
    if manifest.size != model.size:
        raise UserError(
            f"{dataset.folder} has frames of {manifest.size} pixels, the model {model.name} takes "
            f"{model.size}: pack it again with --size {model.size}"
        )
    return choose_starts(
        dataset,
        choose_protocol("aligned", manifest.name, num_frames=model.num_frames),
        split=split,
        num_frames=model.num_frames,
        most=most,
        stride=stride,
    )


def read_window(dataset: PackedDataset, start: Start, *, num_frames: int) -> KnownClip:
    """Read a window.

    Args:
        dataset: That it is of.
        start: Which.
        num_frames: T.
    """
    last = start.first + num_frames * start.stride
    times = list(range(start.first, last + 1, start.stride))
    clip = dataset.read(start.position, times)
    control, eta, track = dataset.manifest.control, None, None
    if control is not None:
        whole = clip.tracks[control.name]
        eta = control.of(whole, first=start.first, last=last)
        track = np.asarray(whole[times], dtype=np.float32)
    return KnownClip(
        start=start,
        frames=clip.frames,
        eta=eta,
        future_of=clip.entry.start,
        track=track,
        still=clip.still,
    )


def partners_of(clips: Sequence[KnownClip]) -> list[KnownClip]:
    """Return for each clip one of another source: the next one, in the order of a hash.

    Raises:
        UserError: All are of one source.
    """
    order = sorted(clips, key=lambda clip: hash_of(clip.start.key))
    place = {clip.start.key: i for i, clip in enumerate(order)}
    found = []
    for clip in clips:
        after = place[clip.start.key] + 1
        others = (o for o in order[after:] + order[:after] if o.source != clip.source)
        partner = next(others, None)
        if partner is None:
            raise UserError("clips of 2 source videos are needed to exchange them: give more data")
        found.append(partner)
    return found


def batches(
    items: Sequence[_Item], size: int, *, text: str, progress: Progress
) -> Iterator[Sequence[_Item]]:
    """Yield items in batches, and tell after each how many are done.

    Args:
        items: What is to be done.
        size: Of a batch, at least 1.
        text: What is done.
        progress: Told.
    """
    progress(text, 0, len(items))
    for first in range(0, len(items), size):
        yield items[first : first + size]
        progress(text, min(first + size, len(items)), len(items))


def told(
    model: VideoModel, x0: Float[Tensor, "b 3 h w"], etas: Etas | None
) -> Float[Tensor, "b c"]:
    """Return what the flow is told of first frames.

    Args:
        model: In evaluation mode.
        x0: First frames.
        etas: A control for each; None leaves it out.
    """
    eta = None if etas is None else torch.stack(list(etas)).to(x0)
    return model.condition(x0, eta)


def aimed_at(
    model: VideoModel, x0: Float[Tensor, "b 3 h w"], nu: Float[Tensor, "b z"], etas: Etas
) -> Float[Tensor, "b c"]:
    """Return what the flow is told so that residuals do as asked, as `Pipeline` tells it.

    Args:
        model: In evaluation mode.
        x0: First frames.
        nu: A residual for each.
        etas: A control for each.
    """
    eta = torch.stack(list(etas)).to(x0)
    return model.condition(x0, model.corrected_control(x0, nu, eta))


def own_etas(model: VideoModel, clips: Sequence[RealClip]) -> Etas | None:
    """Return the true controls of clips for a model that cannot do without; None for others.

    Raises:
        UserError: The model needs a control that the data do not have.
    """
    if model.control is None or model.control.optional:
        return None
    etas = [
        torch.from_numpy(clip.eta)
        for clip in clips
        if clip.eta is not None and len(clip.eta) == model.control_dim
    ]
    if len(etas) < len(clips):
        raise UserError(
            f"the model {model.name} must be told the {model.control.name}, which these data do "
            "not have: pack them with their control"
        )
    return etas


def filmed(
    model: VideoModel,
    x0: Float[Tensor, "b 3 h w"],
    nu: Float[Tensor, "b z"],
    c: Float[Tensor, "b c"],
) -> list[Video]:
    """Return x0 and what the model lets follow, as pixels.

    Args:
        model: In evaluation mode.
        x0: First frames.
        nu: Residuals.
        c: What the flow is told.
    """
    return developed(model, x0, model.to_latent(nu, c)[0])


def developed(
    model: VideoModel, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
) -> list[Video]:
    """Return x0 and what the model decodes of a latent, as pixels."""
    return list(to_pixels(torch.cat([x0[:, None], model.decode(x0, z)], dim=1)))


def say_nothing(text: str, done: int, total: int) -> None:
    """Tell nobody how far a measurement has come."""
    del text, done, total
