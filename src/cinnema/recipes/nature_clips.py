"""The clips that a nature model is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cinnema.core.errors import UserError
from cinnema.data.dataset import OpenProgress, PackedDataset, open_dataset
from cinnema.data.scenes import HELD_OUT_PART, Scene, find_scenes
from cinnema.data.sources.splits import read_splits
from cinnema.data.windows import SceneWindows, find_duplicates, held_out_together, load_windows
from cinnema.models.nature.model import NatureModelConfig


@dataclass(frozen=True)
class NatureClips:
    """Windows of all scenes, for a nature model.

    Attributes:
        windows: Windows by scene.
        held_out: Whether each scene is held out.
        duplicates: Groups of scenes that show the same, which are on one side.
    """

    windows: list[SceneWindows]
    held_out: list[bool]
    duplicates: list[set[str]]

    def on_side(self, *, held_out: bool) -> list[SceneWindows]:
        """Return the windows of the scenes that are held out, or of those that are not.

        Args:
            held_out: Which of the two.
        """
        pairs = zip(self.windows, self.held_out, strict=True)
        return [part for part, is_out in pairs if is_out == held_out]

    @classmethod
    def open(
        cls,
        config: NatureModelConfig,
        folders: Sequence[Path],
        *,
        starts: int,
        closest: float = 1.0,
        splits: Path | None = None,
        progress: OpenProgress | None = None,
    ) -> "NatureClips":
        """Cut the windows of all scenes, or read them from the cache beside each data set.

        Scenes that show the same are held out together, but for the two parts of one video.

        Args:
            config: Size, number of frames and frame rate.
            folders: Packed data sets, or folders of videos.
            starts: Largest number of starts that are cut from each scene.
            closest: Largest factor by which closer views are enlarged; 1 makes none.
            splits: Lists of training and held-out videos, see `read_splits`; others are left out.
                By default the splits of the data sets are used.
            progress: Called while videos are packed and windows are cut.

        Raises:
            UserError: The data or the list cannot be used, two videos have one name, or no scene
                is left for training or held out.
        """
        windows: list[SceneWindows] = []
        for dataset, scenes in open_scenes(folders, splits=splits, progress=progress):
            if scenes:
                windows += load_windows(
                    dataset,
                    scenes,
                    size=config.size,
                    num_frames=config.num_frames,
                    fps=config.fps,
                    starts=starts,
                    closest=closest,
                    progress=progress,
                )
        names = [part.scene.name for part in windows]
        divided = {name for name in names if name + HELD_OUT_PART in names}
        duplicates = find_duplicates(
            {
                part.scene.name: part.frames[~part.closer, 0]
                for part in windows
                if part.scene.name.removesuffix(HELD_OUT_PART) not in divided
            }
        )
        together = held_out_together(
            (part.scene.name for part in windows if part.scene.held_out), duplicates
        )
        held_out = [name in together for name in names]
        if all(held_out) or not any(held_out):
            side = "trained on" if all(held_out) else "held out"
            raise UserError(f"no scene is {side}: give more scenes, or a list with --splits")
        return cls(windows, held_out, duplicates)


def open_scenes(
    folders: Sequence[Path], *, splits: Path | None = None, progress: OpenProgress | None = None
) -> list[tuple[PackedDataset, list[Scene]]]:
    """Open data sets and list their scenes.

    Args:
        folders: As in `NatureClips.open`.
        splits: As in `NatureClips.open`.
        progress: Called while videos are packed.

    Raises:
        UserError: The data or the list cannot be used, or two videos have one name.
    """
    opened = [open_dataset(folder, progress=progress) for folder in folders]
    found = [(dataset, find_scenes(dataset)) for dataset in opened]
    found = found if splits is None else _split(found, splits)
    names = [scene.name for _, scenes in found for scene in scenes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two videos are named {twice[0]}: rename one")
    return found


def _split(
    found: Sequence[tuple[PackedDataset, list[Scene]]], path: Path
) -> list[tuple[PackedDataset, list[Scene]]]:
    """Return the listed scenes, held out as the list says; parts of one video are joined."""
    videos = [_whole_videos(dataset) for dataset, _ in found]
    names = [name for part in videos for name in part]
    listed = read_splits(path, names)
    return [
        (
            dataset,
            [
                replace(scene, held_out=listed[name] != "train")
                for name, scene in part.items()
                if name in listed
            ],
        )
        for (dataset, _), part in zip(found, videos, strict=True)
    ]


def _whole_videos(dataset: PackedDataset) -> dict[str, Scene]:
    clips: dict[str, list[int]] = {}
    for position, clip in enumerate(dataset.manifest.clips):
        clips.setdefault(clip.source, []).append(position)
    return {
        name: Scene(
            name=str(Path(name).with_suffix("")),
            texture=dataset.manifest.clips[own[0]].label or "",
            held_out=False,
            clips=tuple(own),
        )
        for name, own in clips.items()
    }
