"""`cinnema evaluate`: what a model is worth, beside baselines, by a protocol that is told."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cinnema.cli.console import DONE, Progress
from cinnema.core.errors import UserError

if TYPE_CHECKING:
    import torch

    from cinnema.core.distributed import Ranks
    from cinnema.evaluation.features import FeatureCache
    from cinnema.evaluation.results import Evaluation
    from cinnema.evaluation.settings import EvaluationSettings


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure weights on packed clips: distances, diversity, motion, likelihood, beside baselines.

    Nothing is downloaded: what a missing network would measure is listed as missing. Under
    torchrun the clips are shared out among the processes, and the numbers are the same.
    """

    weights: Annotated[str, tyro.conf.Positional]
    """Name of bundled weights, or a weights file."""
    data: Annotated[Path, tyro.conf.Positional]
    """Folder of packed clips, as `cinnema data` makes it."""
    protocol: Literal["aligned", "paper"] = "aligned"
    """paper: the published pairing of frames, clip lengths and counts, quirks included."""
    samples: int | None = None
    """K, futures of each start; 2 unless given, 5 by the paper's protocol."""
    clips: int | None = None
    """At most so many starts, chosen by a hash; all, or what the paper has, unless given."""
    split: Literal["train", "validation", "test"] = "test"
    """Which side of the split."""
    stride: int = 1
    """Take every which frame."""
    seed: int = 0
    """Of every draw."""
    training: Path | None = None
    """Packed clips whose split train baselines rest on; DATA unless given."""
    backbones: Path | None = None
    """Folder of networks that no package ships; CINNEMA_BACKBONES unless given."""
    cache: Path | None = None
    """Folder that keeps features between runs; cinnema in the user's cache folder unless given."""
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None
    """Write the numbers to this JSON file; one that is there already is replaced."""
    report: Path | None = None
    """Write a page with tables, plots and animations to this folder; one there is replaced."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    threads: int | None = None
    """Threads on the CPU; all cores unless given."""
    batch_size: int = 1
    """Starts at once: more are faster on a graphics card, and change numbers by rounding."""

    def run(self) -> int:
        """Measure, print the tables, and write the files that are asked for."""
        from cinnema.core.devices import choose_device, use_threads
        from cinnema.core.distributed import joined_ranks
        from cinnema.evaluation.tables import as_text

        use_threads(self.threads)
        device = choose_device(self.device)
        with joined_ranks(device) as ranks:
            evaluation = self._measure(device, ranks)
            if evaluation is not None:
                print(as_text(evaluation), flush=True)
                self._write(evaluation)
        return DONE

    def _measure(self, device: "torch.device", ranks: "Ranks") -> "Evaluation | None":
        from cinnema.backbones.registry import find_backbones
        from cinnema.data.dataset import PackedDataset
        from cinnema.evaluation.runner import evaluate_model
        from cinnema.models.files import load_model

        settings = self._settings()
        loaded = load_model(self.weights)
        with Progress(total=0) as bar:

            def tell(text: str, done: int, total: int) -> None:
                bar.begin(text)
                bar.reach(done, total=total)

            return evaluate_model(
                loaded.model,
                PackedDataset(self.data),
                training=None if self.training is None else PackedDataset(self.training),
                backbones=find_backbones(self.backbones),
                settings=settings,
                sha256=loaded.sha256,
                cache=self._cache(),
                device=device,
                ranks=ranks,
                progress=tell,
            )

    def _settings(self) -> "EvaluationSettings":
        from cinnema.evaluation.settings import EvaluationSettings

        least = {"samples": 1, "clips": 2, "stride": 1, "seed": 0, "batch_size": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                option = name.replace("_", "-")
                raise UserError(f"--{option} must be at least {smallest}, got {value}")
        return EvaluationSettings(
            protocol=self.protocol,
            split=self.split,
            samples=self.samples,
            clips=self.clips,
            stride=self.stride,
            seed=self.seed,
            batch_size=self.batch_size,
        )

    def _cache(self) -> "FeatureCache":
        from cinnema.evaluation.features import FeatureCache

        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return FeatureCache(self.cache or Path(base) / "cinnema")

    def _write(self, evaluation: "Evaluation") -> None:
        from cinnema.core.files import write_json

        if self.json_file is not None:
            write_json(self.json_file, evaluation.to_dict(), overwrite=True)
        if self.report is not None:
            from cinnema.evaluation.report import write_report

            print(write_report(evaluation, self.report, overwrite=True), flush=True)
