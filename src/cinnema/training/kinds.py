"""Training of the kind network on photographs with a class for each pixel."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.backbones.efficientnet import EfficientNetLite0
from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.precision import fast_dtype
from cinnema.core.state_dicts import load_state
from cinnema.core.weights import load_weights, save_weights
from cinnema.data.labelled import UNKNOWN, LabelledBatch, LabelledBatches, LabelledPictures
from cinnema.media.pictures import to_tensor
from cinnema.models.files import load_model
from cinnema.models.nature.kinds import KINDS, STILL, KindNetwork
from cinnema.models.nature.model import NatureModel
from cinnema.training.loop import (
    FitResult,
    Position,
    Schedule,
    Step,
    evaluating,
    fit,
    require_finite,
    take_gradients,
    warmup_cosine,
)
from cinnema.training.run import Stateful

NUM_CLASSES = 1 + len(KINDS)
"""Still, and the kinds."""

KINDS_FILE = "kinds.safetensors"
"""File in the folder of a run with the trained kind network."""

_IGNORED = -100
# Loss of a pixel by its class: standing pixels and fire count more, sky is easy.
_CLASS_WEIGHTS = {STILL: 1.2, 1 + KINDS.index("sky"): 0.8, 1 + KINDS.index("fire"): 1.5}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KindTraining:
    """The training of the kind network.

    Attributes:
        clips: Pictures seen before the training ends.
        batch_size: Pictures a step.
        learning_rate: Peak learning rate of AdamW for the new layers.
        backbone_rate: Peak learning rate of the backbone's later blocks.
        weight_decay: Weight decay of AdamW.
        frozen_blocks: Number of first blocks of the backbone that keep their ImageNet weights,
            as the stem does.
        label_smoothing: Probability that is spread over all classes, from 0 to below 1.
        size: Width and height of the pictures in pixels, a multiple of 32. Crops are enlarged to
            it, so that what they show is as large as in a whole picture at `KIND_SIZE`.
        validate_every: Pictures between two validations.
        seed: Seed of all random draws.
    """

    clips: int = Field(default=20_000, ge=1)
    batch_size: int = Field(default=12, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    backbone_rate: float = Field(default=2.5e-4, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    frozen_blocks: int = Field(default=5, ge=0, le=16)
    label_smoothing: float = Field(default=0.02, ge=0, lt=1)
    size: int = Field(default=320, ge=32, multiple_of=32)
    validate_every: int = Field(default=3_000, ge=1)
    seed: int = Field(default=0, ge=0)

    def schedule(self) -> Schedule:
        """Return the schedule of the training."""
        return Schedule(
            clips=self.clips,
            batch_size=self.batch_size,
            validate_every=max(self.validate_every, self.batch_size),
        )


class KindStep(Step[LabelledBatch]):
    """A step of AdamW on the kind network: cross-entropy of the pixels whose class is known.

    Args:
        network: Trained in place.
        config: The training.
        device: Device to compute on.
        data: What determines the pictures, as JSON values.
    """

    networks: KindNetwork

    def __init__(
        self,
        network: KindNetwork,
        config: KindTraining,
        *,
        device: torch.device,
        data: object = None,
    ) -> None:
        self.config, self.device, self.data, self.ranks = config, device, data, Ranks()
        self.networks = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        freeze(network, num_blocks=config.frozen_blocks)
        self._autocast = fast_dtype(device) == torch.bfloat16
        self._weights = torch.ones(NUM_CLASSES, device=device)
        for index, weight in _CLASS_WEIGHTS.items():
            self._weights[index] = weight
        backbone = [p for p in network.backbone.parameters() if p.requires_grad]
        own = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
        self._rates = (config.learning_rate, config.backbone_rate)
        self._optimiser = torch.optim.AdamW(
            [{"params": own}, {"params": backbone}], weight_decay=config.weight_decay
        )

    def about(self) -> dict[str, Any]:
        """Return everything that determines the outcome."""
        width = self.networks.leave.in_channels
        return {"width": width, "training": config_to_dict(self.config), "data": self.data}

    def parts(self) -> dict[str, Stateful]:
        """Return the state that a checkpoint has to hold, by name."""
        return {"network": self.networks, "optimiser": self._optimiser}

    def take(self, batch: LabelledBatch, position: Position) -> dict[str, float]:
        """Take the step; the loss is computed in float32."""
        self.networks.train()
        x = batch.x.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            logits = self.networks(x).logits
        losses = {"loss": self.loss(logits.float(), batch.labels.to(self.device))}
        losses["loss"].backward()
        trained = [p for group in self._optimiser.param_groups for p in group["params"]]
        numbers = take_gradients(losses, trained, ranks=self.ranks, largest=1.0)
        require_finite(numbers, number=position.number)
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * warmup_cosine(position.progress, warmup=0.1)
        self._optimiser.step()
        self._optimiser.zero_grad()
        return numbers

    def loss(
        self, logits: Float[Tensor, "b c i j"], labels: Int64[Tensor, "b s s"]
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy; 0 for a batch of which nothing is known."""
        target = torch.where(labels == UNKNOWN, _IGNORED, labels)
        if bool((target == _IGNORED).all()):
            return 0 * logits.sum()
        return functional.cross_entropy(
            _enlarged(logits, labels.shape[-1]),
            target,
            weight=self._weights,
            label_smoothing=self.config.label_smoothing,
        )

    def averaged(self) -> AbstractContextManager[None]:
        """Set the network to evaluation mode for the time of a `with` block."""
        return evaluating(self.networks)


def freeze(network: KindNetwork, *, num_blocks: int) -> None:
    """Let the backbone be trained, except for its stem and first blocks.

    Args:
        network: The network.
        num_blocks: Number of blocks that are not trained.
    """
    network.requires_grad_(requires_grad=True)
    first: list[nn.Module] = [network.backbone.stem, *network.backbone.blocks[:num_blocks]]
    for block in first:
        block.requires_grad_(requires_grad=False)


def new_kind_network(*, width: int, seed: int = 0) -> KindNetwork:
    """Build the network with ImageNet weights in its backbone.

    Args:
        width: Channels of its pyramid.
        seed: Seed of the other weights; torch's global random state is not changed.

    Raises:
        UserError: The package with the ImageNet weights is not installed.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = KindNetwork(width=width)
        imagenet = EfficientNetLite0.imagenet().fold_batch_norm()
    network.backbone.load_state_dict(imagenet.state_dict())
    return network


def kind_network_of(weights: str, *, width: int) -> KindNetwork:
    """Return the kind network of weights, to be trained further.

    Args:
        weights: Name or file of a nature model.
        width: Channels of its pyramid.

    Raises:
        UserError: They are of another kind of model or of another width.
    """
    model = load_model(weights).model
    if not isinstance(model, NatureModel) or model.config.kind_width != width:
        raise UserError(
            f"--weights {weights} holds no kind network of width {width}: give weights of a nature "
            "model such as landscape, with the same kind_width"
        )
    return model.kinds


def train_kinds(
    network: KindNetwork,
    pictures: LabelledPictures,
    config: KindTraining,
    *,
    run: Path,
    device: torch.device,
    blend: float = 1.0,
    tensorboard: bool = False,
) -> FitResult:
    """Train the kind network, or resume the run, and write its weights.

    A network that was trained before keeps more of what it knew if its weights are averaged with
    the new ones (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).

    Args:
        network: Trained in place.
        pictures: Pictures with their classes, of `config.size`.
        config: The training.
        run: Folder of the run; the weights are `KINDS_FILE` in it.
        device: Device to compute on.
        blend: Share of the trained weights in the result, from 0 to 1; the rest is what the network
            came with.
        tensorboard: Whether the numbers are written for TensorBoard as well.

    Returns:
        How the training ended; the network is in evaluation mode.

    Raises:
        UserError: The folder holds another run or cannot be written to; a loss is not finite.
    """
    first = {name: value.clone() for name, value in network.state_dict().items()}
    batches = LabelledBatches(
        pictures,
        batch_size=config.batch_size,
        falling=1 + KINDS.index("falling"),
        fire=1 + KINDS.index("fire"),
        sky=1 + KINDS.index("sky"),
        seed=config.seed,
    )
    data = sorted(zip(pictures.names, pictures.weights.tolist(), strict=True))
    result = fit(
        KindStep(network, config, device=device, data=data),
        batches,
        config.schedule(),
        folder=run / "kinds",
        validate=lambda: kind_scores(network, pictures),
        tensorboard=tensorboard,
    )
    trained = network.state_dict()
    network.load_state_dict(
        {name: torch.lerp(value, trained[name].cpu(), blend) for name, value in first.items()}
    )
    about = {"width": network.leave.in_channels}
    save_weights(run / KINDS_FILE, network.state_dict(), about, dtype=torch.float32, overwrite=True)
    return result


def load_kinds(run: Path, network: KindNetwork) -> None:
    """Give a network the weights of a run.

    Raises:
        UserError: They have not been trained, or are of another width.
    """
    path = run / KINDS_FILE
    if not path.exists():
        raise UserError(f"{path} does not exist: run `cinnema train kinds` first")
    load_state(
        network,
        load_weights(path).state,
        otherwise=f"{path} was trained with another width: give that recipe, or train it again",
    )


@torch.no_grad()
def kind_scores(network: KindNetwork, pictures: LabelledPictures) -> dict[str, float]:
    """Return how well the held-out pictures are classified, over their known pixels.

    "iou_<class>" is intersection over union of a class that the pictures show; "still_moves" the
    share of still pixels that are called moving, and "moves_still" that of moving pixels that are
    called still; "accuracy" is the share of pixels that are right.

    Args:
        network: In evaluation mode.
        pictures: The pictures.
    """
    table = np.zeros((NUM_CLASSES, NUM_CLASSES))
    device = next(network.parameters()).device
    for index in np.flatnonzero(pictures.held_out):
        x = to_tensor(pictures.pictures[index : index + 1]).to(device)
        logits = _enlarged(network(x).logits, x.shape[-1])
        called = logits.argmax(1)[0].cpu().numpy()
        known = pictures.labels[index] != UNKNOWN
        pairs = pictures.labels[index][known].astype(int) * NUM_CLASSES + called[known]
        table += np.bincount(pairs, minlength=NUM_CLASSES**2).reshape(table.shape)
    return scores_of_table(table)


def scores_of_table(table: Float[np.ndarray, "c c"]) -> dict[str, float]:
    """Return the scores of `kind_scores` from a table of counts: rows are true, columns called."""
    right, union = np.diag(table), table.sum(0) + table.sum(1) - np.diag(table)
    names = ("still", *KINDS)
    out = {
        f"iou_{name}": float(right[k] / union[k])
        for k, name in enumerate(names)
        if table[k].sum() > 0
    }
    still, moving = table[STILL], np.delete(table, STILL, axis=0)
    out["still_moves"] = float(1 - still[STILL] / max(1.0, still.sum()))
    out["moves_still"] = float(moving[:, STILL].sum() / max(1.0, moving.sum()))
    out["accuracy"] = float(right.sum() / max(1.0, table.sum()))
    return out


def _enlarged(logits: Tensor, size: int) -> Tensor:
    return functional.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
