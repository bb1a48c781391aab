"""Who continues a first frame: the model, and everything that it has to be better than.

Every draw comes from the seed and the start alone: the same whatever the batch or the process.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.protocols import RealClip, Start, read_clip
from cinnema.evaluation.results import RowKind
from cinnema.evaluation.statistics.bootstrap import hash_of
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.flow.priors import LatentPrior

Video = UInt8[np.ndarray, "t h w 3"]

_THUMBNAIL = 16


class Baseline(ABC):
    """Something that continues first frames.

    Attributes:
        name: Of its row.
        kind: Of its row.
        about: One sentence.
        is_stochastic: Whether it has many futures of a start.
        sees_real: Whether it looks beyond the first frame.
    """

    name: str
    kind: RowKind = "baseline"
    about: str
    is_stochastic: bool = False
    sees_real: bool = False

    @abstractmethod
    def follow(self, clips: Sequence[RealClip], *, sample: int = 0) -> list[Video]:
        """Return the T frames that it lets follow each clip's first frame.

        Args:
            clips: Only baselines that cheat, and say so, look beyond the first frame.
            sample: Number of the future, for contestants that draw.
        """

    def num_futures(self, clip: RealClip, *, most: int) -> int:
        """Return how many futures of a start there are.

        Args:
            clip: What really came of the start.
            most: K, how many are wanted of those that draw.
        """
        del clip
        return most if self.is_stochastic else 1


class OtherFutures(Baseline):
    """What else really came of the same first frame: samples of the truth.

    Args:
        dataset: That the clips are of.
        others: From `find_other_futures`, for one start at least.
        num_frames: T.
    """

    name = "another real future"
    kind: RowKind = "real"
    about = "the other clips of the same start, as samples: a perfect sampler that is told x0 alone"
    is_stochastic = True

    def __init__(
        self, dataset: PackedDataset, others: Mapping[str, Sequence[Start]], *, num_frames: int
    ) -> None:
        self._dataset, self._others, self._num_frames = dataset, others, num_frames

    @property
    def counts(self) -> tuple[int, int]:
        """The smallest and the largest number of other futures of a start that has any."""
        lengths = [len(futures) for futures in self._others.values()]
        return min(lengths), max(lengths)

    def follow(self, clips: Sequence[RealClip], *, sample: int = 0) -> list[Video]:
        """Return the frames of the other clips, which have the first frame in common."""
        chosen = [self._others[clip.start.key][sample] for clip in clips]
        num = self._num_frames
        return [read_clip(self._dataset, start, num_frames=num).frames[1:] for start in chosen]

    def num_futures(self, clip: RealClip, *, most: int) -> int:
        """Return how many other clips there are, at most K; 0 where there is none."""
        return min(most, len(self._others.get(clip.start.key, ())))


class Frozen(Baseline):
    """The first frame, again and again."""

    name = "frozen first frame"
    about = "x0 at every time: what a model of motion must beat"

    def follow(self, clips: Sequence[RealClip], *, sample: int = 0) -> list[Video]:
        """Return x0, T times."""
        del sample
        return [np.repeat(c.frames[:1], len(c.frames) - 1, axis=0) for c in clips]


class Shuffled(Baseline):
    """The real frames in a random order."""

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


class Modelled(Baseline):
    """What decodes a latent, wherever that is from.

    Args:
        model: In evaluation mode.
        seed: Of all draws.
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
        """Return what is decoded."""


class Sampled(Modelled):
    """The model: nu drawn, z made of it.

    Args:
        model: In evaluation mode.
        seed: Of all draws.
        sample: Number of the sample, for K of them.
        temperature: Factor on nu.
    """

    name = "cINN"
    kind: RowKind = "model"
    about = "nu ~ N(0, I), z = T(nu; x0, eta), decoded"
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
        """Return what the flow is told."""
        return condition(self._model, clips, x0)


class Misled(Sampled):
    """The model with the control of another clip, for models that take one.

    Args:
        model: In evaluation mode, with a control.
        controls: To choose from, at least 2.
        seed: Of all draws.
    """

    name = "shuffled eta"
    kind: RowKind = "baseline"
    about = "the model, told the control of another clip: what ignoring eta would give"

    def __init__(
        self, model: VideoModel, controls: Float32[np.ndarray, "n e"], *, seed: int = 0
    ) -> None:
        super().__init__(model, seed=seed)
        self._controls = controls

    def condition(
        self, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b c"]:
        """Return what the flow is told: x0, and the control of another clip."""
        return condition(self._model, [self._misled(clip) for clip in clips], x0)

    def _misled(self, clip: RealClip) -> RealClip:
        others = self._controls
        if clip.eta is not None:
            others = others[np.abs(others - clip.eta).max(axis=1) > 0]
        if not len(others):
            return clip
        return replace(clip, eta=others[hash_of(f"{self._seed}/{clip.start.key}") % len(others)])


class Reconstructed(Modelled):
    """Stage 1 alone: the real clip, encoded and decoded."""

    name = "reconstruction"
    sees_real = True
    about = "stage 1 alone, p(x0, q(X)): sees the real clip, and is the ceiling of stage 2"

    def latents(
        self, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"], *, sample: int = 0
    ) -> Float[Tensor, "b z"]:
        """Return the mean of q(z | X)."""
        del x0, sample
        return encoded(self._model, clips)


class StandardLatent(Modelled):
    """z from N(0, I): what stage 1 makes of noise, without stage 2."""

    name = "z ~ N(0, I)"
    about = "stage 2 left out: z is noise"
    is_stochastic = True

    def latents(
        self, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"], *, sample: int = 0
    ) -> Float[Tensor, "b z"]:
        """Return noise."""
        return draws(self._model, clips, seed=self._seed, purpose=f"z {sample}").to(x0)


class Prior(Modelled):
    """z from a simple distribution fitted on training clips.

    Args:
        model: In evaluation mode.
        prior: Fitted.
        name: Of the row.
        about: One sentence.
        seed: Of all draws.
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
    """Training clips to look up by their first frames; only small pictures of these are kept.

    Args:
        dataset: That the clips are of.
        starts: Of the split train, at least one.
        num_frames: T.
    """

    def __init__(self, dataset: PackedDataset, starts: Sequence[Start], *, num_frames: int) -> None:
        self.starts = tuple(starts)
        self._dataset, self._num_frames = dataset, num_frames
        pictures = (dataset.read(s.position, [s.first]).frames[0] for s in starts)
        self.thumbnails: Float[Tensor, "n p"] = torch.stack([_thumbnail(p) for p in pictures])

    def nearest(self, x0: UInt8[np.ndarray, "h w 3"], *, num: int) -> list[RealClip]:
        """Return the clips whose first frames are nearest to another one, the nearest first."""
        distances = (self.thumbnails - _thumbnail(x0)).square().sum(dim=1)
        return [self.read(i) for i in distances.argsort(stable=True)[:num].tolist()]

    def read(self, index: int) -> RealClip:
        """Return a clip by its position in `starts`."""
        return read_clip(self._dataset, self.starts[index], num_frames=self._num_frames)


class NearestTraining(Baseline):
    """The training clip whose first frame is nearest to x0: what remembering is worth.

    Args:
        training: To look up.
    """

    name = "nearest training clip"
    about = f"the training clip whose x0 is nearest, by pixels at {_THUMBNAIL} x {_THUMBNAIL}"

    def __init__(self, training: TrainingClips) -> None:
        self._training = training

    def follow(self, clips: Sequence[RealClip], *, sample: int = 0) -> list[Video]:
        """Return the frames after the nearest first frame."""
        del sample
        return [self._training.nearest(clip.frames[0], num=1)[0].frames[1:] for clip in clips]


def first_frames(model: VideoModel, clips: Sequence[RealClip]) -> Float[Tensor, "b 3 h w"]:
    """Return the first frames of clips where the model is."""
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
    """Return what the flow is told: x0, and the true control where the model takes one.

    A model that can do without is told none by data that have none of its length.

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
        model: Whose z.
        clips: Of the rows.
        seed: Of the draws.
        purpose: Other purposes draw other rows.
    """
    generators = (_generator(clip, seed=seed, purpose=purpose) for clip in clips)
    return torch.stack([torch.randn(model.z_dim, generator=g) for g in generators])


def _generator(clip: RealClip, *, seed: int, purpose: str) -> torch.Generator:
    number = hash_of(f"{seed}/{purpose}/{clip.start.key}")
    return torch.Generator().manual_seed(number % 2**63)


def _thumbnail(picture: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, " p"]:
    small = cv2.resize(picture, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small.astype(np.float32)).flatten()
