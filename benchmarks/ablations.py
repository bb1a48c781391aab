"""The ablation study: variants of the model that differ in one choice, each trained at small size.

    python benchmarks/ablations.py stage1 --data walk --seeds 0 1 --out stage1.jsonl
    python benchmarks/ablations.py stage2 --data walk --stage1 motion.safetensors --out stage2.jsonl

All rows of a stage are trained on the same number of clips, in the same order for the same seed,
and scored on the same windows of the test split, one per clip. The output file contains the scores
of every clip, one line per row and seed. Rows in the file are not trained again, so the command can
be interrupted, and rows can be run separately (`--rows`). Tables have 95 % intervals over clips.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ablation_scores import Found, read, table
from ablation_stage1 import RECIPES, STAGE1_MEASURES, STAGE1_ROWS, frozen_row, stage1_row
from ablation_stage2 import FITTED, STAGE2_MEASURES, STAGE2_ROWS, encode_pools, stage2_row

from cinnema.core.errors import UserError


def main() -> int:
    options = _parser().parse_args()
    torch.set_num_threads(1)
    known = STAGE1_ROWS if options.stage == "stage1" else STAGE2_ROWS
    rows = options.rows or list(known)
    try:
        _require_known(rows, known)
        if options.stage == "stage1":
            shown = ["frozen first frame", *known]
            found = _run_stage1(options, rows)
            print(table(found, shown, STAGE1_MEASURES, against="ours"))
        else:
            found = _run_stage2(options, rows)
            print(table(found, [*FITTED, *known], STAGE2_MEASURES, against="ours"))
    except UserError as error:
        print(f"ablations: error: {error}", file=sys.stderr)
        return 1
    return 0


def _require_known(rows: Sequence[str], known: Mapping[str, object]) -> None:
    unknown = [row for row in rows if row not in known]
    if unknown:
        raise UserError(
            f"--rows: there is no {unknown[0]}, rows are {', '.join(known)}: choose from them"
        )


def _run_stage1(options: argparse.Namespace, rows: Sequence[str]) -> Found:
    names = ("recipe", "size", "width", "clips", "batch", "held_out")
    settings = {"stage": 1, "data": options.data.name, **{n: getattr(options, n) for n in names}}
    _add(options, settings, "frozen first frame", 0, lambda: frozen_row(options))
    for seed in options.seeds:
        for row in rows:
            _add(options, settings, row, seed, lambda r=row, s=seed: stage1_row(options, r, seed=s))
    return read(options.out, settings)


def _run_stage2(options: argparse.Namespace, rows: Sequence[str]) -> Found:
    names = ("recipe", "clips", "batch", "held_out", "pool")
    settings = {"stage": 2, "data": options.data.name, **{n: getattr(options, n) for n in names}}
    settings["stage1"] = options.stage1.name
    pools = encode_pools(options)
    for row in FITTED:
        _add(options, settings, row, 0, lambda r=row: stage2_row(options, pools, r, seed=0))
    for seed in options.seeds:
        for row in rows:
            _add(
                options, settings, row, seed,
                lambda r=row, s=seed: stage2_row(options, pools, r, seed=s),
            )  # fmt: skip
    return read(options.out, settings)


def _add(
    options: argparse.Namespace,
    settings: dict[str, Any],
    row: str,
    seed: int,
    make: Callable[[], dict[str, Any]],
) -> None:
    """Compute a row and append it to the file, unless the file contains it."""
    if (row, seed) in read(options.out, settings):
        return
    print(f"{row}, seed {seed}", file=sys.stderr, flush=True)
    line = {"row": row, "seed": seed, "settings": settings, **make()}
    with options.out.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    stages = parser.add_subparsers(dest="stage", required=True)
    for name in ("stage1", "stage2"):
        stage = stages.add_parser(name)
        stage.add_argument("--data", type=Path, required=True, help="folder of packed clips")
        stage.add_argument(
            "--out", type=Path, required=True, help="file of JSON lines to append to"
        )
        stage.add_argument("--recipe", choices=RECIPES, default="person")
        stage.add_argument("--rows", nargs="+", help="names of rows; default: all")
        stage.add_argument("--seeds", type=int, nargs="+", default=[0])
        stage.add_argument(
            "--held-out", type=int, default=128, help="number of scored clips of a split"
        )
    stage1, stage2 = stages.choices["stage1"], stages.choices["stage2"]
    stage1.add_argument("--clips", type=int, default=6000, help="number of training clips")
    stage1.add_argument("--batch", type=int, default=8, help="clips per step")
    stage1.add_argument(
        "--size", type=int, default=32, help="height and width of the frames, in pixels"
    )
    stage1.add_argument("--width", type=int, default=16, help="channels of the first layers")
    stage2.add_argument("--clips", type=int, default=192_000, help="number of training latents")
    stage2.add_argument("--batch", type=int, default=128, help="latents per step")
    stage2.add_argument(
        "--stage1", type=Path, required=True, help="weights of the recipe's stage 1"
    )
    stage2.add_argument("--pool", type=int, default=4000, help="number of encoded training windows")
    return parser


if __name__ == "__main__":
    sys.exit(main())
