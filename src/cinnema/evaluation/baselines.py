"""Methods that continue a first frame: the model, baselines and bounds.

Every random draw depends on the seed and the start alone, so it is the same in any batch and on any
process.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.priors import GAUSSIAN, LINEAR, fit_priors
from cinnema.evaluation.protocol import ClipSet, RealClip, Start
from cinnema.evaluation.results import FROZEN, MODEL, RECONSTRUCTION, RowKind
from cinnema.evaluation.statistics.bootstrap import hash_of
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.flow.priors import LatentPrior

Video = UInt8[np.ndarray, "t h w 3"]

_ABOUT_PRIORS = {
    GAUSSIAN: "z from a Gaussian fitted to training clips that ignores x0",
    LINEAR: "z from a Gaussian around a linear map of the flow's condition, fitted to training "
    "clips: a flow that does not beat it adds nothing",
}
_THUMBNAIL = 16  # pixels
_ENCODED_AT_ONCE = 8


class Baseline(ABC):
    """A method that continues first frames; one row of the result table.

    Attributes:
        name: Name of the row.
        kind: "model", "baseline", or "real" for real clips.
        about: Description of the row, in one sentence.
        is_stochastic: Whether it can draw several futures of one start.
        sees_real: Whether it uses real frames after the first.
    """

    name: str
    kind: RowKind = "baseline"
    about: str
    is_stochastic: bool = False
    sees_real: bool = False

    @abstractmethod
    def follow(self, clips: Sequence[RealClip], *, sample: int = 0) -> list[Video]:
        """Return the T frames that follow each clip's first frame.

        Args:
            clips: The real clips. Only baselines with `sees_real` use frames after the first.
            sample: Index of the future, from 0; only stochastic baselines use it.
        """

    def num_futures(self, clip: RealClip, *, most: int) -> int:
        """Return the number of futures of a start.

        Args:
            clip: The real clip of the start.
            most: K, the number of futures requested of a stochastic baseline.
        """
        del clip
        return most if self.is_stochastic else 1


class OtherFutures(Baseline):
    """The other real clips with the same first frame: samples of the true distribution.

    Args:
        clips: The data set.
        others: Other clips by the key of a start, from `ClipSet.other_futures`; not empty.
    """

    name = "another real future"
    kind: RowKind = "real"
    about = "the other clips of the same start, as samples: a perfect sampler conditioned on x0"
    is_stochastic = True

    def __init__(self, clips: ClipSet, others: Mapping[str, Sequence[Start]]) -> None:
        self._clips, self._others = clips, others

    @property
    def counts(self) -> tuple[int, int]:
        """The smallest and the largest number of other futures of a start that has any."""
        lengths = [len(futures) for futures in self._others.values()]
        return min(lengths), max(lengths)

    def follow(self, clips: Sequence[RealClip], *, sample: int = 0) -> list[Video]:
        """Return the frames of the other clips after the shared first frame."""
        chosen = [self._others[clip.start.key][sample] for clip in clips]
        return [self._clips.read(start).frames[1:] for start in chosen]

    def num_futures(self, clip: RealClip, *, most: int) -> int:
        """Return the number of other clips, at most K; 0 where there are none."""
        return min(most, len(self._others.get(clip.start.key, ())))


class Frozen(Baseline):
    """The first frame, repeated."""

    name = FROZEN
    about = "x0 at every time: a model of motion must beat it"

    def follow(self, clips: Sequence[RealClip], *, sample: int = 0) -> list[Video]:
        """Return x0, T times."""
        del sample
        return [np.repeat(c.frames[:1], len(c.frames) - 1, axis=0) for c in clips]


class Shuffled(Baseline):
    """The real frames in a random order.

    Args:
        seed: Seed of the order.
    """

    name = "time-shuffled"
    sees_real = True
    about = "the real frames after x0 in a random order: right pictures, wrong motion"

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    def follow(self, clips: Sequence[RealClip], *, sample: int = 0) -> list[Video]:
        """Return the real frames, shuffled."""
        del sample
        return [self._shuffled(clip) for clip in clips]

    def _shuffled(self, clip: RealClip) -> Video:
        generator = _generator(clip, seed=self._seed, purpose="shuffle")
        order = 1 + torch.randperm(len(clip.frames) - 1, generator=generator).numpy()
        return np.asarray(clip.frames[order])


class DecodedBaseline(Baseline):
    """A baseline that decodes a latent with the model's stage 1.

    Args:
        model: The model in evaluation mode.
        seed: Seed of all draws.
    """

    def __init__(self, model: VideoModel, *, seed: int = 0) -> None:
        self._model, self._seed = model, seed

    @torch.inference_mode()
    def follow(self, clips: Sequence[RealClip], *, sample: int = 0) -> list[Video]:
        """Return decoded clips."""
        x0 = first_frames(self._model, clips)
        z = self.latents(clips, x0, sample=sample)
        return list(to_pixels(self._model.decode(x0, z)))

    @abstractmethod
    def latents(
        self, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"], *, sample: int = 0
    ) -> Float[Tensor, "b z"]:
        """Return the latents that are decoded."""


class Sampled(DecodedBaseline):
    """The model: nu is drawn, z = T(nu; x0, eta) is decoded.

    Args:
        model: The model in evaluation mode.
        seed: Seed of all draws.
        temperature: Factor on nu, at least 0.
    """

    name = MODEL
    kind: RowKind = "model"
    about = "the model: nu ~ N(0, I), z = T(nu; x0, eta), decoded"
    is_stochastic = True

    def __init__(self, model: VideoModel, *, seed: int = 0, temperature: float = 1.0) -> None:
        super().__init__(model, seed=seed)
        self._temperature = temperature

    def latents(
        self, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"], *, sample: int = 0
    ) -> Float[Tensor, "b z"]:
        """Return T(nu; x0, eta)."""
        nu = draws(self._model, clips, seed=self._seed, purpose=f"nu {sample}").to(x0)
        return self._model.to_latent(nu * self._temperature, self.condition(clips, x0))[0]

    def condition(
        self, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b c"]:
        """Return the condition of the flow."""
        return condition(self._model, clips, x0)


class ShuffledControl(Sampled):
    """The model, conditioned on the control of another clip.

    Args:
        model: The model in evaluation mode, with a control.
        controls: Controls to choose from, at least 2.
        seed: Seed of all draws.
    """

    name = "shuffled eta"
    kind: RowKind = "baseline"
    about = "the model, conditioned on another clip's control: what ignoring eta would give"

    def __init__(
        self, model: VideoModel, controls: Float32[np.ndarray, "n e"], *, seed: int = 0
    ) -> None:
        super().__init__(model, seed=seed)
        self._controls = controls

    def condition(
        self, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b c"]:
        """Return the condition of the flow, with another clip's control."""
        return condition(self._model, [self._exchanged(clip) for clip in clips], x0)

    def _exchanged(self, clip: RealClip) -> RealClip:
        others = self._controls
        if clip.eta is not None:
            others = others[np.abs(others - clip.eta).max(axis=1) > 0]
        if not len(others):
            return clip
        return replace(clip, eta=others[hash_of(f"{self._seed}/{clip.start.key}") % len(others)])


class Reconstructed(DecodedBaseline):
    """Stage 1 alone: the real clip, encoded and decoded."""

    name = RECONSTRUCTION
    sees_real = True
    about = "stage 1 alone, p(x0, q(X)): sees the real clip, and bounds what stage 2 can reach"

    def latents(
        self, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"], *, sample: int = 0
    ) -> Float[Tensor, "b z"]:
        """Return the mean of q(z | X)."""
        del x0, sample
        return encoded(self._model, clips)


class StandardLatent(DecodedBaseline):
    """z from N(0, I): stage 1 without stage 2."""

    name = "z ~ N(0, I)"
    about = "stage 2 left out: z is noise"
    is_stochastic = True

    def latents(
        self, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"], *, sample: int = 0
    ) -> Float[Tensor, "b z"]:
        """Return noise."""
        return draws(self._model, clips, seed=self._seed, purpose=f"z {sample}").to(x0)


class Prior(DecodedBaseline):
    """z from a simple distribution fitted to training clips.

    Args:
        model: The model in evaluation mode.
        prior: The fitted distribution.
        name: Name of the row.
        about: Description of the row, in one sentence.
        seed: Seed of all draws.
    """

    is_stochastic = True

    def __init__(
        self, model: VideoModel, prior: LatentPrior, *, name: str, about: str, seed: int = 0
    ) -> None:
        super().__init__(model, seed=seed)
        self._prior, self.name, self.about = prior, name, about

    def latents(
        self, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"], *, sample: int = 0
    ) -> Float[Tensor, "b z"]:
        """Return draws from the prior."""
        c = condition(self._model, clips, x0).double().cpu()
        purpose = f"{self.name} {sample}"
        rows = [
            self._prior.sample(
                c[i : i + 1], generator=_generator(clip, seed=self._seed, purpose=purpose)
            )
            for i, clip in enumerate(clips)
        ]
        return torch.cat(rows).to(x0)


class TrainingClips:
    """Training clips that can be looked up by their first frames.

    Args:
        clips: Clips of the split train, at least one. Only thumbnails of their first frames are
            kept in memory.
    """

    def __init__(self, clips: ClipSet) -> None:
        self.starts = clips.starts
        self._clips = clips
        pictures = (clips.first_frame(start) for start in clips.starts)
        self.thumbnails: Float[Tensor, "n p"] = torch.stack([_thumbnail(p) for p in pictures])

    def nearest(self, x0: UInt8[np.ndarray, "h w 3"], *, num: int) -> list[RealClip]:
        """Return the clips whose first frames are nearest to a picture, the nearest first."""
        distances = (self.thumbnails - _thumbnail(x0)).square().sum(dim=1)
        return [self.read(i) for i in distances.argsort(stable=True)[:num].tolist()]

    def read(self, index: int) -> RealClip:
        """Return a clip by its position in `starts`."""
        return self._clips.read(self.starts[index])


class NearestTraining(Baseline):
    """The training clip whose first frame is nearest to x0: the result of memorising.

    Args:
        training: The training clips.
    """

    name = "nearest training clip"
    about = f"the training clip whose x0 is nearest, by pixels at {_THUMBNAIL} x {_THUMBNAIL}"

    def __init__(self, training: TrainingClips) -> None:
        self._training = training

    def follow(self, clips: Sequence[RealClip], *, sample: int = 0) -> list[Video]:
        """Return the frames after the nearest first frame."""
        del sample
        return [self._training.nearest(clip.frames[0], num=1)[0].frames[1:] for clip in clips]


@dataclass(frozen=True)
class Training:
    """Training clips, and priors on z fitted to them.

    Attributes:
        clips: The training clips.
        priors: Priors by the names of their rows.
    """

    clips: TrainingClips
    priors: Mapping[str, LatentPrior]

    def baselines(self, model: VideoModel, *, seed: int) -> list[Baseline]:
        """Return the baselines that need training clips.

        Args:
            model: The model, which decodes the draws of the priors.
            seed: Seed of the draws.
        """
        sampled: list[Baseline] = [
            Prior(model, prior, name=name, about=_ABOUT_PRIORS[name], seed=seed)
            for name, prior in self.priors.items()
        ]
        return [*sampled, NearestTraining(self.clips)]


def fit_training(
    model: VideoModel, clips: ClipSet, *, seed: int, progress: Callable[[int, int], None]
) -> Training:
    """Read training clips and fit the priors that the flow has to beat.

    Latents are drawn from q(z | X), as the flow was trained on.

    Args:
        model: The model in evaluation mode.
        clips: Clips of the split train, of two source videos at least.
        seed: Seed of the latents.
        progress: Called with the number of clips that are encoded, and of all.

    Raises:
        UserError: `clips` has fewer than two source videos.
    """
    training = TrainingClips(clips)
    z, c, groups = _latents(model, training, seed=seed, progress=progress)
    if len(groups.unique()) < 2:
        raise UserError(
            "simple priors are fitted on 2 source videos at least, the split train has 1: give "
            "more training clips (--training)"
        )
    return Training(clips=training, priors=fit_priors(model, z, c, groups))


@torch.inference_mode()
def _latents(
    model: VideoModel, training: TrainingClips, *, seed: int, progress: Callable[[int, int], None]
) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n c"], Int[Tensor, " n"]]:
    """Draws from q(z | X), conditions, and the number of each clip's source."""
    z, c, count = [], [], len(training.starts)
    for first in range(0, count, _ENCODED_AT_ONCE):
        progress(first, count)
        clips = [training.read(i) for i in range(first, min(first + _ENCODED_AT_ONCE, count))]
        z.append(encoded(model, clips, seed=seed).double().cpu())
        c.append(condition(model, clips, first_frames(model, clips)).double().cpu())
    sources = [start.source for start in training.starts]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(sources))}
    # Clones, as tensors made in inference mode cannot take part in autograd later.
    return (
        torch.cat(z).clone(),
        torch.cat(c).clone(),
        torch.tensor([numbers[source] for source in sources]),
    )


def first_frames(model: VideoModel, clips: Sequence[RealClip]) -> Float[Tensor, "b 3 h w"]:
    """Return the first frames of clips on the model's device."""
    device = next(model.parameters()).device
    return to_tensor(np.stack([clip.frames[0] for clip in clips])).to(device)


def encoded(
    model: VideoModel, clips: Sequence[RealClip], *, seed: int | None = None
) -> Float[Tensor, "b z"]:
    """Return z of clips: the mean of q(z | X), or with a seed a draw from it."""
    device = next(model.parameters()).device
    rows = []
    for clip in clips:
        generator = None if seed is None else _generator(clip, seed=seed, purpose="posterior")
        rows.append(model.encode(to_tensor(clip.frames)[None].to(device), generator=generator))
    return torch.cat(rows)


def condition(
    model: VideoModel, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b c"]:
    """Return the condition of the flow: x0, and the true control for models that take one.

    A model with an optional control is used without it where the data have no control of its
    length.

    Raises:
        UserError: The model needs a control, and the data have none of its length.
    """
    if not model.control_dim:
        return model.condition(x0)
    controls = [c.eta for c in clips if c.eta is not None and len(c.eta) == model.control_dim]
    if len(controls) < len(clips):
        if model.control is not None and model.control.optional:
            return model.condition(x0)
        raise UserError(
            f"the model {model.name} takes a control of {model.control_dim} numbers, which these "
            "data do not have: pack them with their control"
        )
    return model.condition(x0, torch.from_numpy(np.stack(controls)).to(x0))


def draws(
    model: VideoModel, clips: Sequence[RealClip], *, seed: int, purpose: str
) -> Float[Tensor, "b z"]:
    """Return a standard normal row of the length of z for each clip, on the CPU.

    Args:
        model: Model that defines the length of z.
        clips: The clips; a clip's row depends on its start, the seed and the purpose alone.
        seed: Seed of the draws.
        purpose: Label that enters the seed; different labels give independent draws.
    """
    generators = (_generator(clip, seed=seed, purpose=purpose) for clip in clips)
    return torch.stack([torch.randn(model.z_dim, generator=g) for g in generators])


def _generator(clip: RealClip, *, seed: int, purpose: str) -> torch.Generator:
    number = hash_of(f"{seed}/{purpose}/{clip.start.key}")
    return torch.Generator().manual_seed(number % 2**63)


def _thumbnail(picture: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, " p"]:
    small = cv2.resize(picture, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small.astype(np.float32)).flatten()
