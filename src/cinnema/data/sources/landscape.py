"""Landscape: time-lapse videos of the sky, stored as clips of pictures."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord, Item, RawClip
from cinnema.data.sources.frames import (
    Cutting,
    below,
    check_at_least_one,
    check_root,
    count_pictures,
    numbered_pictures,
    picture_frames,
    subfolders,
)
from cinnema.data.sources.splits import check_shares, split_by_name
from cinnema.media.formats import DEFAULT_FPS

_TRAIN, _TEST = "sky_train", "sky_test"


@dataclass(frozen=True)
class Landscape:
    """The sky time-lapse data set (Xiong et al. 2018).

    `sky_train/<video>/<video>_<k>/` and `sky_test/...` contain a clip's pictures of 640x360: under
    their published names, in natural order (with gaps in the numbers, as frames were left out), or
    renamed to frame<n>.jpg, where a missing number is an error. The frame rate is unknown; 25 is
    stored.

    Clips of fewer than `min_frames` frames, of which there are many, are left out as in the paper;
    `too_short` lists them and `settings` counts them. All clips in sky_test are for testing. The
    reference's list for validation has other clips of the long videos that it trains on; here a
    share of the long videos is for validation, by a hash of their names, so that no video is in two
    splits.

    Args:
        root: The folder that contains sky_train and sky_test, or one of them.
        size: Width and height of the frames in pixels; the aspect ratio is not kept.
        min_frames: Smallest number of frames of a clip, T + 1.
        validation_share: Share of the training videos that is used for validation, in [0, 1).

    Example:
        >>> source = Landscape(Path("sky_timelapse"))
        >>> clip = next(source.read(source.items()[0]))
    """

    root: Path
    _: KW_ONLY
    size: int = 128
    min_frames: int = 17
    validation_share: float = 0.1

    def __post_init__(self) -> None:
        """Check the options."""
        check_at_least_one(size=self.size, min_frames=self.min_frames)
        check_shares(validation=self.validation_share)

    @property
    def name(self) -> str:
        """Name of the packed data set."""
        return "landscape"

    @property
    def control(self) -> None:
        """None: the wind is unknown."""
        return

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the clips, and the number of too short ones."""
        return {
            "source": self.name, "root": self.root.resolve().name, "size": self.size,
            "min_frames": self.min_frames, "validation_share": self.validation_share,
            "too_short": len(self.too_short()),
        }  # fmt: skip

    def too_short(self) -> list[str]:
        """List the clips that are left out because they have fewer than `min_frames` frames."""
        return [
            below(folder, self.root)
            for video in self._videos()
            for folder in subfolders(video)
            if not self._is_long(folder)
        ]

    def items(self) -> list[Item]:
        """List the long videos that have a clip that is long enough; nothing is opened.

        Raises:
            UserError: The folder is missing or contains no such clip.
        """
        videos = self._videos()
        tested = {video.name for video in videos if video.parent.name == _TEST}
        # A video in both folders is in the test split, so that it is not in two splits.
        trained = {video.name for video in videos} - tested
        splits = split_by_name(trained, validation=self.validation_share, test=0.0)
        items = []
        for video in videos:
            num_clips = sum(self._is_long(folder) for folder in subfolders(video))
            if num_clips:
                split = splits.get(video.name, "test")
                items.append(Item(name=below(video, self.root), split=split, clips=num_clips))
        if not items:
            raise UserError(
                f"{self.root} has no clip of {self.min_frames} frames: pictures are looked for in "
                f"{_TRAIN}/<video>/<video>_<k>/ and {_TEST}/<video>/<video>_<k>/"
            )
        return items

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the clips of one long video."""
        video = self.root / item.name
        cutting = Cutting(size=self.size, min_frames=self.min_frames)
        for folder in subfolders(video):
            if self._is_long(folder):
                frames = picture_frames(numbered_pictures(folder, root=self.root), root=self.root)
                name = below(folder, self.root)
                yield from cutting.cut(frames, name=name, source=video.name, fps=DEFAULT_FPS)

    def _videos(self) -> list[Path]:
        check_root(self.root)
        return [video for side in (_TEST, _TRAIN) for video in subfolders(self.root / side)]

    def _is_long(self, folder: Path) -> bool:
        return count_pictures(folder) >= self.min_frames
