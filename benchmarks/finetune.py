"""Compares two weights files on scenes that neither was trained on.

    python benchmarks/finetune.py drift mine.safetensors --data clips --texture fire

It shows what fine-tuning changes beyond its own clips. The scenes are those of the validation
split, cut as in `cinnema validate`; every clip is measured with both models.
"""

import argparse
import sys
from pathlib import Path

import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.cli.outputs import write_json
from cinnema.data.crops import SceneCrops, find_scenes, load_crops
from cinnema.data.dataset import open_dataset
from cinnema.evaluation.before_after import BeforeAfter, draw_grid
from cinnema.models.files import load_warping_model
from cinnema.models.warping.motion import GRID
from cinnema.models.warping.stage1 import Stage1Config
from cinnema.recipes.drift import drift


def main() -> int:
    options = parse()
    models = [
        load_warping_model(name, purpose="this comparison")
        for name in (options.before, options.after)
    ]
    crops = unseen(options, models[0].config.stage1)
    measuring = BeforeAfter(
        held_out=crops,
        skies=[],
        lpips=LPIPS.load("vgg"),
        num_rendered=options.clips,
        num_started=options.clips,
    )
    with torch.no_grad():
        scores = [measuring.stage1(model.stage1) | measuring.stage2(model) for model in models]
    comparison = measuring.compared((models[0].name, models[1].name), *scores)
    print(comparison.to_table())
    if options.json is not None:
        write_json(options.json, comparison.to_dict(), overwrite=True)
    if options.grid is not None:
        draw_grid(options.grid, dict(zip(("before", "after"), models, strict=True)), crops)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", help="name of shipped weights, or a weights file")
    parser.add_argument("after", help="the same")
    parser.add_argument("--data", type=Path, required=True, help="folder of videos or packed data")
    parser.add_argument("--texture", action="append", required=True, help="may be repeated")
    parser.add_argument("--clips", type=int, default=8, help="number of rendered clips")
    parser.add_argument("--json", type=Path, help="file to write the scores to")
    parser.add_argument("--grid", type=Path, help="PNG file of clips, reconstructions, samples")
    return parser.parse_args()


def unseen(options: argparse.Namespace, shape: Stage1Config) -> list[SceneCrops]:
    """Cut clips of the scenes of the validation split."""
    data, dataset = drift().data, open_dataset(options.data)
    return load_crops(
        dataset,
        find_scenes(dataset, textures=tuple(options.texture), excluded=data.excluded),
        num_train=1,
        num_held_out=data.validation_crops,
        size=shape.size,
        num_frames=shape.num_frames,
        grid=GRID,
        fps=shape.fps,
    ).held_out


if __name__ == "__main__":
    sys.exit(main())
