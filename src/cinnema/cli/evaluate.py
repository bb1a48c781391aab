"""`cinnema evaluate`: computes metrics of a model and of baselines on clips."""

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cinnema.cli.console import DONE, Progress
from cinnema.cli.data import open_data
from cinnema.cli.options import Device, Weights
from cinnema.cli.ranges import BatchSize, Range, Seed, Threads
from cinnema.core.bundled import find_weights
from cinnema.core.errors import UserError
from cinnema.core.files import cache_folder, check_output_folder, write_json
from cinnema.evaluation import MetricName

if TYPE_CHECKING:
    import torch

    from cinnema.core.distributed import Ranks
    from cinnema.data.dataset import PackedDataset
    from cinnema.data.records import Split
    from cinnema.evaluation.known_truth.reader import EndPointReader
    from cinnema.evaluation.results import Evaluation
    from cinnema.models.base import VideoModel
    from cinnema.models.files import LoadedModel

Json = Annotated[
    Path | None, tyro.conf.arg(name="json", aliases=["--output", "-o"], metavar="FILE.json")
]
ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """Options of commands that evaluate a model on clips."""

    split: Literal["train", "validation", "test"] | None = None
    """Split that is evaluated; default: test, else validation, else train, whichever has a clip
    that is long enough."""
    stride: Annotated[int | None, Range(1, 10_000)] = None
    """Distance between two frames of a clip; default: natural speed where the data say so, else
    1."""
    seed: Seed = 0
    """Seed of all draws."""
    training: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Data set whose training split is used to fit baselines and the reader of end points; default:
    FOLDER."""
    reader: Annotated[
        Path | None, tyro.conf.arg(aliases=["--regressor"], metavar="FILE.safetensors")
    ] = None
    """File of the network that predicts end points from pictures, for tasks of robots: it is read
    if it exists, else trained (some minutes) and written."""
    json_file: Json = None
    """JSON file for the numbers; replaced if it exists."""
    device: Device = "auto"
    """Device to compute on; auto uses a GPU if available."""

    def check_clips(self, weights: str, data: Path) -> None:
        """Raise a UserError for the first invalid option, before torch is imported."""
        find_weights(weights)
        for folder in (data, self.training):
            if folder is not None and not folder.is_dir():
                raise UserError(
                    f"{folder} is not a folder: name one of videos or of packed clips, as `cinnema "
                    "data` makes them"
                )
        for path in (self.json_file, self.reader):
            if path is not None and not path.exists():
                check_output_folder(path.parent)  # not after minutes of work

    def evaluate(
        self,
        loaded: "LoadedModel",
        dataset: "PackedDataset",
        progress: ProgressCallback,
        **options: Any,  # noqa: ANN401 - of two callees
    ) -> "Evaluation | None":
        """Evaluate a model; return None on all ranks but the first.

        Args:
            loaded: The model.
            dataset: The clips.
            progress: Called as the evaluation proceeds.
            **options: Fields of `EvaluationSettings`, and arguments of `evaluate_model`.
        """
        from cinnema.backbones.registry import find_backbones
        from cinnema.evaluation.runner import EvaluationSettings, evaluate_model

        names = EvaluationSettings.__dataclass_fields__.keys()
        chosen = {name: options.pop(name) for name in list(options) if name in names}
        settings = EvaluationSettings(
            split=self.split or self._split(loaded.model, dataset),
            stride=self.stride,
            seed=self.seed,
            **chosen,
        )
        training = dataset if self.training is None else open_data(self.training, progress)
        return evaluate_model(
            loaded.model,
            dataset,
            training=training,
            reader=lambda: self._reader(training, progress),
            backbones=find_backbones(options.pop("backbones", None)),
            settings=settings,
            sha256=loaded.sha256,
            progress=progress,
            **options,
        )

    def _split(self, model: "VideoModel", dataset: "PackedDataset") -> "Split":
        """Choose a split, and print which and why unless it is the test split."""
        from cinnema.evaluation.protocol import choose_split

        split, reason = choose_split(dataset, num_frames=model.num_frames, stride=self.stride)
        if split != "test":
            print(f"cinnema: {reason}", file=sys.stderr, flush=True)
        return split

    def _reader(self, training: "PackedDataset", progress: ProgressCallback) -> "EndPointReader":
        from cinnema.evaluation.known_truth.reader import load_reader, save_reader, train_reader

        if self.reader is not None and self.reader.exists():
            return load_reader(self.reader)
        trained = train_reader(training, progress=progress)
        if self.reader is not None and os.environ.get("RANK", "0") == "0":
            save_reader(self.reader, trained, overwrite=True)
        return trained


@dataclass(frozen=True, kw_only=True)
class Evaluate(ClipOptions):
    """Evaluate weights on clips: quality, distances, diversity, motion, likelihood, with baselines.

    Nothing is downloaded: a metric whose network is missing reports that. Under torchrun the clips
    are divided among the processes, and the numbers are the same.
    """

    weights: Annotated[Weights, tyro.conf.Positional]
    """Weights to evaluate: the name of bundled ones or a file."""
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of packed clips, as `cinnema data` makes it, or of videos, which are packed on first
    use."""
    only: tuple[MetricName, ...] = ()
    """Compute these metrics only. The first 18 are the default; end-point to futures are tasks on
    clips with known ground truth; kind-motion needs a nature model."""
    against: Annotated[Weights | None, tyro.conf.arg(metavar="NAME|FILE")] = None
    """Other weights: differences to them on the same clips are printed, with paired intervals."""
    protocol: Literal["aligned", "paper"] = "aligned"
    """paper: the published pairing of frames, clip lengths and counts."""
    num_samples: Annotated[
        int | None, Range(1, 1000), tyro.conf.arg(aliases=["-n", "--samples"])
    ] = None
    """K, number of futures of each start; default: 2, or 5 with --protocol paper."""
    clips: Annotated[int | None, Range(2, 10**9)] = None
    """Largest number of clips, chosen by a hash; default: all, or the paper's number."""
    parts: bool = False
    """Also report each label and source video, for metrics that keep single clips."""
    backbones: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of networks that no package contains; default: CINNEMA_BACKBONES."""
    cache: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for features, kept between runs; default: cinnema in the user's cache folder."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for a page with tables, plots and animations; replaced if it exists."""
    threads: Threads = None
    """CPU threads; default: one for each core."""
    batch_size: BatchSize = 1
    """Number of clips per batch: more are faster on a GPU, and change numbers by rounding."""

    def run(self) -> int:
        """Evaluate, print the tables, and write the files."""
        self._check()
        from cinnema.core.devices import choose_device, use_threads
        from cinnema.core.distributed import joined_ranks
        from cinnema.evaluation.results import as_text

        use_threads(self.threads)
        device = choose_device(self.device)
        with joined_ranks(device) as ranks:
            evaluation = self._evaluate(device, ranks)
            if evaluation is not None:
                print(as_text(evaluation), flush=True)
                self._write(evaluation)
        return DONE

    def _check(self) -> None:
        self.check_clips(self.weights, self.data)
        if self.against is not None:
            find_weights(self.against)
        if self.report is not None:
            require_report()

    def _evaluate(self, device: "torch.device", ranks: "Ranks") -> "Evaluation | None":
        from cinnema.evaluation.features import FeatureCache
        from cinnema.models.files import load_model

        loaded = load_model(self.weights)
        with Progress(total=0) as bar:
            progress = bar.report
            dataset = ranks.first_then_all(lambda: open_data(self.data, progress))
            return self.evaluate(
                loaded,
                dataset,
                progress,
                only=self.only or None,
                against=None if self.against is None else load_model(self.against).model,
                protocol=self.protocol,
                samples=self.num_samples,
                clips=self.clips,
                batch_size=self.batch_size,
                parts=self.parts,
                backbones=self.backbones,
                cache=FeatureCache(self.cache or cache_folder() / "cinnema"),
                device=device,
                ranks=ranks,
            )

    def _write(self, evaluation: "Evaluation") -> None:
        if self.json_file is not None:
            write_json(self.json_file, evaluation.to_dict(), overwrite=True)
        if self.report is not None:
            from cinnema.evaluation.report import write_report

            print(write_report(evaluation, self.report, overwrite=True), flush=True)


def require_report() -> None:
    """Raise a UserError unless the libraries of the report are installed."""
    missing = [name for name in ("jinja2", "matplotlib") if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(
            f"--report needs {' and '.join(missing)}: install them with pip install "
            "'cinnema[report]', or leave --report out"
        )
