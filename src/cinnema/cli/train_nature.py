"""`cinnema train kinds`, `constants` and `flow`: the training of a nature model.

The three commands share the folder of a run. Each resumes when it is run again.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from cinnema.cli.console import DONE, Progress
from cinnema.cli.options import Device
from cinnema.cli.ranges import Range, Threads
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file, check_input_folder
from cinnema.core.text import plural

if TYPE_CHECKING:
    import torch

    from cinnema.evaluation.statistics.bootstrap import Estimate
    from cinnema.models.nature.model import NatureModel
    from cinnema.recipes.nature_clips import NatureClips
    from cinnema.training.dynamics import ChosenClips
    from cinnema.training.motion_pool import MotionPool
    from cinnema.training.nature_recipe import NatureRecipe
    from cinnema.training.nature_validation import NestedScores


@dataclass(frozen=True, kw_only=True)
class _NatureTraining:
    """The options of all three commands."""

    # torchrun interprets an option --run itself.
    run_folder: Annotated[Path, tyro.conf.arg(name="run", aliases=["--run-folder"])]
    """Folder of the run, with weights, checkpoints and numbers; an existing run is resumed."""
    config: Path | None = None
    """JSON or YAML file of fields of the recipe to change; they are options too, such as
    --kinds.clips 1000."""
    fields: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Options that are fields of the recipe."""
    tensorboard: bool = False
    """Write the numbers for TensorBoard as well, into each training's folder."""
    device: Device = "auto"
    """Device to compute on; auto takes a GPU if there is one."""
    threads: Threads = None
    """Threads on the CPU; by default as many as there are cores."""

    recipe_class: ClassVar[str] = "cinnema.training.nature_recipe:NatureRecipe"

    def chosen(self) -> "NatureRecipe":
        """Return the recipe with its changes."""
        from cinnema.cli.fields import read_fields, with_fields
        from cinnema.recipes.landscape import landscape

        values = None if self.config is None else read_fields(self.config)
        return with_fields(landscape(), self.fields, values=values)

    def chosen_device(self) -> "torch.device":
        """Set the number of threads, and return the device."""
        from cinnema.core.allocator import keep_freed_memory
        from cinnema.core.devices import choose_device, use_threads

        use_threads(self.threads)
        keep_freed_memory()
        return choose_device(self.device)


@dataclass(frozen=True, kw_only=True)
class TrainKinds(_NatureTraining):
    """Train the network that tells what each pixel is, on labelled photographs."""

    pictures: Path
    """Folder of photographs with labels: the output of `cinnema data label`."""
    weights: str | None = None
    """Begin with the kind network of these weights, a name or a file; by default with a backbone
    trained on ImageNet."""
    blend: Annotated[float, Range(0.001, 1)] = 1.0
    """With --weights, the share of the trained weights in the result; the rest are those of
    --weights, so that less of what they know is lost."""

    def run(self) -> int:
        """Train, and print the path of the weights."""
        check_input_folder(self.pictures, kind="labelled pictures")
        if self.blend < 1 and self.weights is None:
            raise UserError("--blend below 1 goes only with --weights: add it")
        from cinnema.data.labelled import LabelledPictures
        from cinnema.training.kinds import (
            KINDS_FILE,
            NUM_CLASSES,
            kind_network_of,
            new_kind_network,
            train_kinds,
        )

        recipe, device = self.chosen(), self.chosen_device()
        width = recipe.model.kind_width
        network = (
            new_kind_network(width=width, seed=recipe.kinds.seed)
            if self.weights is None
            else kind_network_of(self.weights, width=width)
        )
        pictures = LabelledPictures.open(
            self.pictures, size=recipe.kinds.size, num_classes=NUM_CLASSES
        )
        train_kinds(
            network,
            pictures,
            recipe.kinds,
            run=self.run_folder,
            device=device,
            blend=self.blend,
            tensorboard=self.tensorboard,
        )
        print(self.run_folder / KINDS_FILE, flush=True)
        return DONE


@dataclass(frozen=True, kw_only=True)
class _WithClips(_NatureTraining):
    data: tuple[Path, ...]
    """Packed data sets, or folders of videos."""
    splits: Path | None = None
    """JSON file {"train": [...], "validation": [...]} of video names; others are left out. By
    default the splits of the data sets are used."""

    def opened(
        self, recipe: "NatureRecipe", device: "torch.device"
    ) -> "tuple[NatureModel, NatureClips, MotionPool]":
        """Return the model with its kind network, the clips, and their measured motion."""
        from cinnema.recipes.nature_clips import NatureClips
        from cinnema.training.motion_pool import POOL_FILE, load_or_measure

        for folder in self.data:
            check_input_folder(folder, kind="clips")
        if self.splits is not None:
            check_input_file(self.splits, kind="a list of splits")
        model = recipe.new_model(self.run_folder)
        with Progress(total=0) as bar:
            clips = NatureClips.open(
                recipe.model,
                self.data,
                starts=recipe.data.starts,
                closest=recipe.data.closest,
                splits=self.splits,
                progress=bar.report,
            )
        for group in clips.duplicates:
            print(f"the same scene: {', '.join(sorted(group))}", file=sys.stderr)
        path = self.run_folder / POOL_FILE
        pool = load_or_measure(path, model, clips.windows, clips.held_out, device=device)
        return model, clips, pool


@dataclass(frozen=True, kw_only=True)
class TrainConstants(_WithClips):
    """Fit the constants of each kind's motion, such as its churn, on the training clips.

    Videos with the clips' own measured motion are scored by g, the share of the frozen picture's
    kernel distance to real video (I3D's logits) that is closed, less the share of the moving
    pixels that stand.
    """

    kinds: tuple[str, ...] = ()
    """Kinds to fit, such as water; all by default."""

    def run(self) -> int:
        """Fit, and print the path of the constants."""
        from cinnema.models.nature.kinds import KINDS
        from cinnema.training.dynamics import give_dynamics
        from cinnema.training.nature import fit_normalisation
        from cinnema.training.nature_recipe import UnfinishedConstants, save_constants

        for kind in self.kinds:
            if kind not in KINDS:
                raise UserError(f"--kinds: there is no kind {kind!r}: use {', '.join(KINDS)}")
        recipe, device = self.chosen(), self.chosen_device()
        model, clips, pool = self.opened(recipe, device)
        seen = pool.area > recipe.flow.least_area
        fit_normalisation(model, pool.raw, seen & ~pool.held_out[pool.scene][:, None])
        kinds = self.kinds or KINDS
        # Begins with the recipe's, so that the outcome is the same if it is fitted again.
        for index in map(KINDS.index, kinds):
            give_dynamics(model, index, recipe.model.dynamics[index])
        unfinished = UnfinishedConstants(self.run_folder, _about(recipe, kinds, model, pool))
        features = _i3d_logits(device)
        for kind in kinds:
            if kind in unfinished.found:
                give_dynamics(model, KINDS.index(kind), unfinished.found[kind])
                print(f"{kind}: fitted before the interruption", file=sys.stderr)
            elif _fit_kind(
                kind, recipe=recipe, model=model, pool=pool, clips=clips, features=features
            ):
                unfinished.add(kind, model.config.dynamics[KINDS.index(kind)])
        path = save_constants(self.run_folder, model.config.dynamics)
        unfinished.forget()
        print(path, flush=True)
        return DONE


def _about(
    recipe: "NatureRecipe", kinds: Sequence[str], model: "NatureModel", pool: "MotionPool"
) -> dict[str, Any]:
    """Return what determines a search for constants, as JSON values."""
    from hashlib import sha256

    from cinnema.core.config import config_to_dict

    return {
        "search": config_to_dict(recipe.search),
        "kinds": list(kinds),
        "model": config_to_dict(model.config),
        "motion": sha256(pool.raw.numpy().tobytes()).hexdigest(),
    }


def _fit_kind(
    kind: str,
    *,
    recipe: "NatureRecipe",
    model: "NatureModel",
    pool: "MotionPool",
    clips: "NatureClips",
    features: Callable[[Any], Any],
) -> bool:
    """Fit the constants of a kind, and return whether enough scenes show it."""
    from cinnema.models.nature.kinds import KINDS
    from cinnema.training.dynamics import choose_clips, fit_dynamics

    index = KINDS.index(kind)
    chosen = choose_clips(pool, clips.windows, index, recipe.search)
    if chosen is None:
        print(f"{kind}: seen in fewer than 2 scenes, left as it is", file=sys.stderr)
        return False
    fit_dynamics(
        model,
        pool,
        index,
        chosen,
        recipe.search,
        score=score_of(chosen, features),
        report=_report(kind),
    )
    return True


@dataclass(frozen=True, kw_only=True)
class TrainFlow(_WithClips):
    """Fit the flow of each kind's motion, and write the weights of the whole model.

    With --nested N nothing is written but the numbers of a nested cross-validation over scenes.
    """

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The weights file to write (.safetensors); needed without --nested."""
    nested: Annotated[int | None, Range(2, 1000)] = None
    """Number of folds of a nested cross-validation."""
    overwrite: bool = False
    """Replace an existing file."""

    def run(self) -> int:
        """Train and write the weights, or cross-validate and print the numbers."""
        if (self.output is None) == (self.nested is None):
            raise UserError("give either --output for the weights file, or --nested for numbers")
        if self.output is not None and self.output.exists() and not self.overwrite:
            raise UserError(f"{self.output} exists: give another name, or --overwrite")
        from cinnema.training.nature_validation import cross_validate

        recipe, device = self.chosen(), self.chosen_device()
        model, _, pool = self.opened(recipe, device)
        if self.nested is None:
            self._train(recipe, model, pool)
            return DONE
        scores = cross_validate(
            model.config,
            pool,
            recipe.flow,
            num_folds=self.nested,
            folder=self.run_folder / "nested",
        )
        print(nested_table(scores))
        return DONE

    def _train(self, recipe: "NatureRecipe", model: "NatureModel", pool: "MotionPool") -> None:
        from cinnema.models.files import save_model
        from cinnema.training.nature import fit_closed_form
        from cinnema.training.nature_flow import fit_flow

        assert self.output is not None
        model.cpu()
        used = ~pool.held_out
        rows = fit_closed_form(model, pool, used, recipe.flow)
        fit_flow(
            model,
            rows,
            used,
            recipe.flow,
            folder=self.run_folder / "flow",
            validated=pool.held_out,
            tensorboard=self.tensorboard,
        )
        save_model(self.output, model, overwrite=self.overwrite)
        print(self.output, flush=True)


def nested_table(scores: "NestedScores") -> str:
    """Return the numbers of a cross-validation as lines, by kind and in all.

    Args:
        scores: Of `cross_validate`. Intervals come from resampling scenes.
    """
    import numpy as np

    from cinnema.evaluation.statistics.bootstrap import mean, resampled

    lines = ["held-out scenes, nats a dimension: flow, linear-Gaussian, difference (95 %)"]
    kinds = np.array(scores.kinds)
    for name in [*dict.fromkeys(scores.kinds), "all"]:
        chosen = (kinds == name) | (name == "all")
        scenes = [s for s, is_in in zip(scores.scenes, chosen, strict=True) if is_in]
        flow, linear = scores.flow[chosen, None], scores.linear[chosen, None]
        values = [resampled(x, scenes, mean) for x in (flow, linear, flow - linear)]
        lines.append(
            f"{name:8s} {values[0].value:8.4f} {values[1].value:8.4f}  {_with_interval(values[2])}"
            f"  {plural(values[0].num_sources, 'scene')}"
        )
    chosen_clips = ", ".join(map(str, scores.clips))
    return "\n".join([*lines, f"rows of training chosen inside each fold: {chosen_clips}"])


def _with_interval(estimate: "Estimate") -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.4f}"
    return f"{estimate.value:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"


def score_of(clips: "ChosenClips", features: Callable[[Any], Any]) -> Callable[[Any], float]:
    """Return a function that scores videos which continue clips.

    The score is g, less the share of the moving pixels that stand.

    Args:
        clips: The clips.
        features: Maps videos, (n, t, h, w, 3) of uint8, to features.
    """
    import numpy as np

    from cinnema.evaluation.metrics.nature import MOVING, STANDS, changes
    from cinnema.evaluation.statistics.kernel import closed_share

    steps = clips.frames.shape[1] - 1
    real = features(clips.frames[:, 1:])
    frozen = features(np.repeat(clips.frames[:, :1], steps, axis=1))
    moving = np.stack([changes(clip) for clip in clips.frames]) > MOVING

    def score(videos: Any) -> float:  # noqa: ANN401 - frames
        g = closed_share(real, features(videos), frozen, scenes=clips.scenes).value
        whole = np.concatenate([clips.frames[:, :1], videos], axis=1)
        stands = np.stack([changes(clip) for clip in whole]) < STANDS
        return g - float((stands & moving).sum() / max(1, moving.sum()))

    return score


def _i3d_logits(device: "torch.device") -> Callable[[Any], Any]:
    from cinnema.backbones.i3d import I3D
    from cinnema.evaluation.features import Features, choose_precision, i3d_network

    network = i3d_network(
        I3D.kinetics(),
        "kinetics",
        layer="logits",
        resize="tensorflow",
        device=device,
        precision=choose_precision(device),
    )
    return Features(network).of


def _report(kind: str) -> Callable[[str, float], None]:
    def report(what: str, score: float) -> None:
        print(f"{kind}: {what}: score {score:.3f}", file=sys.stderr, flush=True)

    return report
