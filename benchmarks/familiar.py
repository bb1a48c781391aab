"""How far the looks of pictures are from those that a nature model was trained on.

Of each folder or file, in which videos count by their first frames: the distances, and the share
beyond the threshold from which the page says that it has not seen such a picture.

    python benchmarks/familiar.py PHOTO|VIDEO|FOLDER ... [--weights landscape]
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from cinnema.media.formats import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from cinnema.media.pictures import read_photograph
from cinnema.media.videos import read_video
from cinnema.synthesis.certainty import FAMILIAR, Certainty
from cinnema.synthesis.pipeline import Pipeline


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how familiar pictures look to a model.")
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--weights", default="landscape")
    options = parser.parse_args()
    model = Pipeline.from_pretrained(options.weights).model
    paths = [file for given in options.paths for file in _files(given)]
    found = [Certainty(model, _picture(path)).distance for path in paths]
    moving = np.array([distance for distance in found if distance is not None])
    print(f"pictures                  {len(found)}, in {len(moving)} of them something moves")
    print(f"median, 90 %, 95 %, max   {np.percentile(moving, [50, 90, 95, 100]).round(1)}")
    print(f"beyond {FAMILIAR:g}                 {(moving > FAMILIAR).sum()} of {len(moving)}")
    return 0


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    known = (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in known)


def _picture(path: Path) -> np.ndarray:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return np.asarray(read_video(path, max_frames=1).frames[0])
    return read_photograph(path)


if __name__ == "__main__":
    sys.exit(main())
