"""What is needed of training clips: simple priors on z, and clips to look up."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.baselines import (
    Baseline,
    NearestTraining,
    Prior,
    TrainingClips,
    condition,
    encoded,
    first_frames,
)
from cinnema.evaluation.protocols import choose_protocol, choose_starts
from cinnema.models.base import VideoModel
from cinnema.models.flow.priors import GaussianPrior, LatentPrior, LinearGaussianPrior

_MOST = 512  # training clips that priors are fitted on and that are looked up
_BATCH = 8

GAUSSIAN, LINEAR = "Gaussian prior", "linear-Gaussian prior"
_ABOUT = {
    GAUSSIAN: "z from a Gaussian fitted on training clips, x0 ignored",
    LINEAR: "z from a Gaussian around a linear map of what the flow is told, fitted on training "
    "clips: a flow that does not beat it adds nothing",
}


@dataclass(frozen=True)
class Training:
    """Training clips, and what was made of them.

    Attributes:
        clips: To look up.
        priors: On z, by row.
    """

    clips: TrainingClips
    priors: Mapping[str, LatentPrior]

    def contestants(self, model: VideoModel, *, seed: int) -> list[Baseline]:
        """Return the contestants that rest on training clips.

        Args:
            model: That decodes what the priors draw.
            seed: Of the draws.
        """
        drawn: list[Baseline] = [
            Prior(model, prior, name=name, about=_ABOUT[name], seed=seed)
            for name, prior in self.priors.items()
        ]
        return [*drawn, NearestTraining(self.clips)]


def prepare_training(
    model: VideoModel, dataset: PackedDataset, *, stride: int, seed: int
) -> Training:
    """Read training clips and fit the priors that the flow has to beat.

    At most 512 windows of the split train, spread by a hash. Latents are drawn from q(z | X), as
    the flow was trained on.

    Args:
        model: In evaluation mode.
        dataset: With a split train of two source videos at least.
        stride: Every which frame follows.
        seed: Of the latents.

    Raises:
        UserError: There are too few training clips.
    """
    num_frames = model.num_frames
    starts = choose_starts(
        dataset,
        choose_protocol("aligned", dataset.manifest.name, num_frames=num_frames),
        split="train",
        num_frames=num_frames,
        most=_MOST,
        stride=stride,
        seed=seed,
    )
    clips = TrainingClips(dataset, starts, num_frames=num_frames)
    z, c, groups = _latents(model, clips, seed=seed)
    if len(groups.unique()) < 2:
        raise UserError(
            "simple priors are fitted on 2 source videos at least, the split train has 1: give "
            "more training clips (--training)"
        )
    return Training(
        clips=clips,
        priors={
            GAUSSIAN: GaussianPrior.fit(z, c),
            LINEAR: LinearGaussianPrior.fit(z, c, groups=groups),
        },
    )


@torch.inference_mode()
def _latents(
    model: VideoModel, training: TrainingClips, *, seed: int
) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n c"], Int[Tensor, " n"]]:
    """Draws from q(z | X), conditions, and the number of each clip's source."""
    z, c = [], []
    for first in range(0, len(training.starts), _BATCH):
        clips = [training.read(i) for i in range(first, min(first + _BATCH, len(training.starts)))]
        z.append(encoded(model, clips, seed=seed).double().cpu())
        c.append(condition(model, clips, first_frames(model, clips)).double().cpu())
    sources = [start.source for start in training.starts]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(sources))}
    # Clones, as what was made in inference mode takes no part in later arithmetic of autograd.
    return (
        torch.cat(z).clone(),
        torch.cat(c).clone(),
        torch.tensor([numbers[source] for source in sources]),
    )
