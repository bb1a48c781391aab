"""Names and contents of the files that commands write.

A sample of SKY.jpg that `cinnema animate` draws with seed 0 is `SKY_s0_00.mp4`, with
`SKY_s0_00.json` and `SKY_s0_00.nu.safetensors` beside it. `SKY_s0_grid.png` shows a frame of all
samples; with `--grid`, `SKY_s0_grid.mp4` shows all of their frames.
Other commands have another tag than `s0`.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinnema import __version__
from cinnema.core.errors import UserError
from cinnema.core.files import cut_name, readable_name, sha256_of, write_json
from cinnema.media.formats import MOTION_SUFFIX

if TYPE_CHECKING:
    import numpy as np

    from cinnema.synthesis.pipeline import Pipeline
    from cinnema.synthesis.video import Video, VideoStream

_NAME_LENGTH = 160
"""Greatest length of an input's part of file names, in bytes: all of a name has to be below 256."""


@dataclass(frozen=True)
class Outputs:
    """The names of the output files of one photograph or video.

    Attributes:
        source: The photograph or video.
        name: First part of the names, different for all inputs of a call.
        folder: Folder of the files.
        format: Format of the videos: mp4, gif, webp, png, npy or html.
        tag: Next part of the names, such as s0 for seed 0.
        samples: Indices of the samples, the last part of the names.
        grid_suffix: Ending of the file that shows all samples beside the photograph: of a picture,
            a video or a page; None for no such file.
    """

    source: Path
    name: str
    folder: Path
    format: str
    tag: str
    samples: tuple[int, ...]
    grid_suffix: str | None = None

    def video(self, sample: int) -> Path:
        """Return the path that `Video.save` takes for a sample."""
        return self._beside(sample, f".{self.format}")

    def written_video(self, sample: int) -> Path:
        """Return the path that `Video.save` writes to: with png, a folder."""
        return self._beside(sample, "" if self.format == "png" else f".{self.format}")

    def sidecar(self, sample: int) -> Path:
        """Return the path of a sample's JSON file."""
        return self._beside(sample, ".json")

    def nu(self, sample: int) -> Path:
        """Return the path of a sample's nu file."""
        return self._beside(sample, MOTION_SUFFIX)

    @property
    def grid(self) -> Path:
        """Path of the file that shows all samples."""
        return self.folder / f"{self.name}_{self.tag}_grid.{self.grid_suffix}"

    def all(self) -> Iterator[Path]:
        """Yield the path of every file and folder that will be written."""
        for sample in self.samples:
            yield self.written_video(sample)
            yield self.sidecar(sample)
            yield self.nu(sample)
        if self.grid_suffix is not None:
            yield self.grid

    def _beside(self, sample: int, suffix: str) -> Path:
        return self.folder / f"{self.name}_{self.tag}_{sample:02d}{suffix}"


def distinct_names(photos: Sequence[Path]) -> list[str]:
    """Return a short name for each photograph, all different.

    It is the file's name without its suffix, cut where it is longer than 160 bytes, and with U+FFFD
    for bytes that are not UTF-8. If several files share it, the folder's name is
    prepended, then the suffix appended, then a number. Names that differ only in case count as
    equal, as some file systems do not distinguish them.

    Args:
        photos: Files, each once.

    Returns:
        One name for each, in the same order.

    Example:
        >>> distinct_names([Path("may/sky.jpg"), Path("june/sky.jpg"), Path("sea.jpg")])
        ['may_sky', 'june_sky', 'sea']
    """
    choices = [
        (
            photo.stem,
            f"{photo.absolute().parent.name}_{photo.stem}",
            f"{photo.absolute().parent.name}_{photo.stem}_{photo.suffix[1:]}",
        )
        for photo in photos
    ]
    names = [choice[0] for choice in choices]
    for level in (1, 2):
        count = Counter(name.lower() for name in names)
        names = [
            choice[level] if count[name.lower()] > 1 else name
            for name, choice in zip(names, choices, strict=True)
        ]
    return _numbered([cut_name(name, _NAME_LENGTH) for name in names])


def _numbered(names: Sequence[str]) -> list[str]:
    taken = {name.lower() for name in names}
    seen: set[str] = set()
    distinct = []
    for name in names:
        new, number = name, 2
        while new.lower() in seen or (new != name and new.lower() in taken):
            new, number = f"{name}-{number}", number + 1
        seen.add(new.lower())
        distinct.append(new)
    return distinct


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raise a UserError for the first of the paths that exists."""
    for path in paths:
        if path.exists():
            raise UserError(
                f"{path} exists already: choose another folder with --output, or add --overwrite"
            )


@contextmanager
def all_or_none(folder: Path) -> Iterator[list[Path]]:
    """Yield a list of paths, which are removed again if the block raises.

    Args:
        folder: Folder of the paths; it is also removed if the block created it.

    Example:
        >>> with all_or_none(folder) as written:
        ...     written.append(write_video(folder / "sky.mp4", frames, fps=8))
    """
    is_new, written = not folder.exists(), list[Path]()
    try:
        yield written
    except BaseException:
        for path in written:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):  # not empty, or never created
                folder.rmdir()
        raise


def describe_call(
    job: Outputs, pipeline: "Pipeline", files: Mapping[str, Path | None]
) -> dict[str, Any]:
    """Return the entries common to the JSON files of all samples of one input.

    Args:
        job: The input, which exists, and its files.
        pipeline: The pipeline that animates it.
        files: Other files that were read, by name; None for none.

    Returns:
        JSON values: the version, the weights and the files that were read, with their hashes.
    """
    given = {"source": job.source, **files}
    return {
        "cinnema": __version__,
        "weights": {"name": pipeline.name, "sha256": pipeline.sha256},
        **{name: _describe_file(path) for name, path in given.items() if path is not None},
    }


def write_sample(
    job: Outputs,
    animation: "Video | VideoStream",
    frames: "Iterable[np.ndarray]",
    about: dict[str, Any],
    *,
    overwrite: bool,
) -> Path:
    """Write the video, JSON and nu of a sample; if one fails, all are removed.

    Args:
        job: The names of the files.
        animation: The sample.
        frames: Its frames.
        about: Entries from `describe_call`.
        overwrite: Whether existing files may be replaced.

    Returns:
        The video, or the folder of its frames.

    Raises:
        UserError: A file exists or cannot be written, or the disk is full.
    """
    from cinnema.media.videos import write_video
    from cinnema.synthesis.residual import save_motion

    sample = animation.sample
    with all_or_none(job.folder) as written:
        video = (
            animation.save(job.video(sample), overwrite=overwrite)
            if job.format == "html" and not isinstance(animation.frames, Iterator)
            else write_video(job.video(sample), frames, fps=animation.fps, overwrite=overwrite)
        )
        written.append(video)
        save_motion(job.nu(sample), animation, overwrite=overwrite)
        written.append(job.nu(sample))
        values = {
            **about,
            "seed": animation.seed,
            "sample": sample,
            "settings": animation.settings,
            "output": _describe_output(job, animation),
        }
        write_json(job.sidecar(sample), values, overwrite=overwrite)
    return video


def _describe_output(job: Outputs, animation: "Video | VideoStream") -> dict[str, Any]:
    height, width, _ = animation.x0.shape
    return {
        "video": job.written_video(animation.sample).name,
        "nu": job.nu(animation.sample).name,
        "format": job.format,
        "width": width,
        "height": height,
        "num_frames": animation.num_frames,
        "fps": animation.fps,
    }


def _describe_file(path: Path) -> dict[str, str]:
    if path.is_dir():  # of frames
        return {"folder": readable_name(path.absolute())}
    return {"file": readable_name(path), "sha256": sha256_of(path)}
