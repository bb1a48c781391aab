"""One sample on disk: its video, its JSON and its nu, all of them or none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinnema import __version__
from cinnema.cli.outputs import Outputs, all_or_none, sha256_of, write_json
from cinnema.media.videos import write_video
from cinnema.synthesis.animation import Animation
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.residuals import save_nu


def describe_call(
    job: Outputs, pipeline: Pipeline, files: Mapping[str, Path | None]
) -> dict[str, Any]:
    """Return what the JSON files of one input have in common.

    Args:
        job: the input and its files; the input is there.
        pipeline: what animates it.
        files: what went in beside it, by name; None where there is no such file.

    Returns:
        JSON values: the version, the weights, and the files that went in, with their hashes.
    """
    given = {"source": job.source, **files}
    return {
        "cinnema": __version__,
        "weights": {"name": pipeline.name, "sha256": pipeline.sha256},
        **{name: _describe_file(path) for name, path in given.items() if path is not None},
    }


def write_sample(
    job: Outputs, animation: Animation, about: dict[str, Any], *, overwrite: bool
) -> Path:
    """Write a sample's video, JSON and nu; if one cannot be written, the others go again.

    Args:
        job: where to.
        animation: the sample.
        about: what `describe_call` returned.
        overwrite: whether what is there already may be replaced.

    Returns:
        The video, or the folder of its frames.

    Raises:
        UserError: something exists or cannot be written, or the disk is full.
    """
    sample = animation.sample
    with all_or_none() as written:
        frames, path = animation.frames, job.video(sample)
        video = write_video(path, frames, fps=animation.fps, overwrite=overwrite)
        written.append(video)
        save_nu(job.nu(sample), animation, overwrite=overwrite)
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


def _describe_output(job: Outputs, animation: Animation) -> dict[str, Any]:
    num_frames, height, width, _ = animation.frames.shape
    return {
        "video": job.written_video(animation.sample).name,
        "nu": job.nu(animation.sample).name,
        "format": job.format,
        "width": width,
        "height": height,
        "num_frames": num_frames,
        "fps": animation.fps,
    }


def _describe_file(path: Path) -> dict[str, str]:
    if path.is_dir():  # of frames
        return {"folder": path.absolute().name}
    return {"file": path.name, "sha256": sha256_of(path)}
