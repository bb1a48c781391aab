"""DTDB: dynamic textures (clouds, fire, vegetation, waterfall), one folder for each video."""

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

_TRAIN, _TEST = "train", "eval"


@dataclass(frozen=True)
class DTDB:
    """The Dynamic Texture DataBase (Hadji and Wildes 2018), or one texture of it.

    `<texture>/{train,eval}/<video>/frame<i>.{jpg,png}`, with consecutive numbers. eval is the test
    split, as in the paper; a share of the videos in train is for validation, by a hash of their
    names. The frame rate is unknown; 25 is stored. Videos of fewer than `min_frames` frames are
    left out; `too_short` lists them and `settings` counts them.

    Args:
        root: The folder that contains the textures' folders.
        texture: "clouds", "fire", "vegetation" or "waterfall"; None reads all that exist.
        size: Width and height of the frames in pixels; the aspect ratio is not kept.
        min_frames: Smallest number of frames of a video, T + 1.
        validation_share: Share of the videos in train that is used for validation, in [0, 1).

    Example:
        >>> source = DTDB(Path("DTDB"), "fire")
        >>> clip = next(source.read(source.items()[0]))
    """

    root: Path
    texture: str | None = None
    _: KW_ONLY
    size: int = 128
    min_frames: int = 17
    validation_share: float = 0.1

    def __post_init__(self) -> None:
        """Check the options."""
        check_at_least_one(size=self.size, min_frames=self.min_frames)
        check_shares(validation=self.validation_share)
        name = self.texture
        if name is not None and (name in ("", "..") or Path(name).name != name):
            raise UserError(f"texture must be the name of a folder, got {self.texture!r}")

    @property
    def name(self) -> str:
        """Name of the packed data set."""
        return "dtdb" if self.texture is None else f"dtdb-{self.texture}"

    @property
    def control(self) -> None:
        """None: the motion is unknown."""
        return

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the clips, and the number of too short ones."""
        return {
            "source": "dtdb", "root": self.root.resolve().name, "texture": self.texture,
            "size": self.size, "min_frames": self.min_frames,
            "validation_share": self.validation_share, "too_short": len(self.too_short()),
        }  # fmt: skip

    def too_short(self) -> list[str]:
        """List the videos that are left out because they have fewer than `min_frames` frames."""
        return [below(video, self.root) for video in self._videos() if not self._is_long(video)]

    def items(self) -> list[Item]:
        """List the videos that are long enough; nothing is opened.

        Raises:
            UserError: The folder or the texture is missing, or contains no such video.
        """
        videos = [video for video in self._videos() if self._is_long(video)]
        if not videos:
            textures = ", ".join(folder.name for folder in subfolders(self.root)) or "none"
            raise UserError(
                f"{self.root} has no video of {self.min_frames} frames in "
                f"{self.texture or '<texture>'}/{{train,eval}}/<video>/frame<i>.jpg (or png); "
                f"its folders: {textures}"
            )
        names = [below(video, self.root) for video in videos if video.parent.name == _TRAIN]
        splits = split_by_name(names, validation=self.validation_share, test=0.0)
        return [
            Item(name=name, split=splits.get(name, "test"))
            for name in (below(video, self.root) for video in videos)
        ]

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the clip of a video."""
        pictures = numbered_pictures(self.root / item.name, root=self.root)
        yield from Cutting(size=self.size, min_frames=self.min_frames).cut(
            picture_frames(pictures, root=self.root),
            name=item.name,
            source=item.name,
            fps=DEFAULT_FPS,
        )

    def _videos(self) -> list[Path]:
        check_root(self.root)
        one = self.texture
        textures = subfolders(self.root) if one is None else [self.root / one]
        return [
            video
            for texture in textures
            for side in (_TEST, _TRAIN)
            for video in subfolders(texture / side)
        ]

    def _is_long(self, video: Path) -> bool:
        return count_pictures(video) >= self.min_frames
