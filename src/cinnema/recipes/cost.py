"""What a training will cost, before it is begun: a few steps of it on made-up clips."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cinnema.backbones.lpips import LPIPS
from cinnema.core.precision import fast_dtype
from cinnema.data.crop_batches import ClipBatch
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.flow import ConditionalFlow
from cinnema.models.warping.motion import GRID
from cinnema.models.warping.stage1 import Stage1
from cinnema.recipes.landscape import Recipe
from cinnema.simulators.sky.pool import SkyPool
from cinnema.training.adversarial import Discriminators
from cinnema.training.latent_pool import LatentPool
from cinnema.training.stage2 import trial as stage2_trial
from cinnema.training.warping import Stage1Training
from cinnema.training.warping import trial as stage1_trial

_STEPS = 3  # measured, after one that warms up
_LONG = 10.0  # seconds; a step that takes longer is measured alone
_SKIES = 3  # drawn to see what one takes
_FLOAT = 4  # bytes
# Gradient, two moments of Adam, and the average of each trained weight, in float32.
_COPIES = 4
_COPIES_OF_ADVERSARIES = 4  # the weight itself, gradient and moments; no average


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What one training will take.

    Attributes:
        name: Of the training.
        clips: That it will see.
        batch_size: Clips in a step.
        parameters: By part of the networks.
        trained: Parameters that the training moves.
        state_bytes: Weights, and what goes with the trained ones: gradient, moments, average.
        activation_bytes: What a step keeps for its backward pass.
        clips_per_second: Of the steps, clips at hand.
        drawn_per_second: Clips that one worker draws in a second, skies shown as often as they
            are; None where training draws none.
    """

    name: str
    clips: int
    batch_size: int
    parameters: dict[str, int]
    trained: int
    state_bytes: int
    activation_bytes: int
    clips_per_second: float
    drawn_per_second: float | None

    @property
    def hours(self) -> float:
        """Time to the end at the slower of the two paces."""
        paces = [self.clips_per_second, self.drawn_per_second]
        return self.clips / min(pace for pace in paces if pace is not None) / 3600


def estimate_stage1(recipe: Recipe, *, device: torch.device) -> list[CostEstimate]:
    """Take a few steps of each phase of stage 1, and draw a few skies.

    Args:
        recipe: What would be trained.
        device: Where to compute.

    Raises:
        UserError: The weights of LPIPS are not installed.
    """
    drawn = _drawn_per_second(recipe)
    return [
        _rehearse_phase(recipe, training, device=device, drawn=drawn)
        for training in (recipe.motion, recipe.picture, recipe.mask)
    ]


def estimate_stage2(recipe: Recipe, *, device: torch.device) -> list[CostEstimate]:
    """Take a few steps of stage 2 on a pool of made-up latents.

    The encoding of the pool, which comes first, is not in it.

    Args:
        recipe: What would be trained.
        device: Where to compute.
    """
    config = recipe.stage2
    with torch.random.fork_rng():
        conditioner = Conditioner(recipe.conditioner).to(device)
        flow = ConditionalFlow(recipe.flow).to(device)
        pool = _made_up_pool(recipe, max(256, config.batch_size)).to(device)
        take = stage2_trial(conditioner, flow, pool, config, noise=recipe.stage1.noise)
        kept, pace = measure(take, batch_size=config.batch_size, device=device)
    networks = nn.ModuleDict({"conditioner": conditioner, "flow": flow})
    trained, state = state_bytes(networks)
    return [
        CostEstimate(
            name="stage2",
            clips=config.clips,
            batch_size=config.batch_size,
            parameters=count_parameters(networks),
            trained=trained,
            state_bytes=state,
            activation_bytes=kept,
            clips_per_second=pace,
            drawn_per_second=None,
        )
    ]


def _rehearse_phase(
    recipe: Recipe, training: Stage1Training, *, device: torch.device, drawn: float | None
) -> CostEstimate:
    with torch.random.fork_rng():
        model = Stage1(recipe.stage1)
    is_picture = training.phase == "picture"
    perceptual = LPIPS.load(training.network).to(device) if is_picture else None
    num_rendered = training.frames if is_picture else 0
    batch = made_up_batch(recipe, training.batch_size, num_rendered=num_rendered)
    take = stage1_trial(model, batch, training, device=device, perceptual=perceptual)
    kept, pace = measure(take, batch_size=training.batch_size, device=device)
    weight_bytes = torch.finfo(fast_dtype(device)).bits // 8
    trained, state = state_bytes(model, weight_bytes=weight_bytes)
    if perceptual is not None:
        state += _FLOAT * sum(p.numel() for p in perceptual.parameters())
    adversaries = _count_adversaries(training)
    num_adversarial = sum(adversaries.values())
    return CostEstimate(
        name=training.phase,
        clips=training.clips,
        batch_size=training.batch_size,
        parameters=count_parameters(model) | adversaries,
        trained=trained + num_adversarial,
        state_bytes=state + num_adversarial * _FLOAT * _COPIES_OF_ADVERSARIES,
        activation_bytes=kept,
        clips_per_second=pace,
        drawn_per_second=drawn,
    )


def _count_adversaries(training: Stage1Training) -> dict[str, int]:
    if training.adversaries is None:
        return {}
    networks = Discriminators(
        training.adversaries, batch_size=training.batch_size, device=torch.device("cpu")
    ).networks
    return {f"{name} adversary": num for name, num in count_parameters(networks).items()}


def made_up_batch(recipe: Recipe, num: int, *, num_rendered: int = 0) -> ClipBatch:
    """Return clips of noise, as large as those that a recipe trains on.

    Args:
        recipe: Its sizes.
        num: Of clips.
        num_rendered: Later frames of each, from the first on.
    """
    size, t = recipe.stage1.size, recipe.stage1.num_frames
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(num, 3, size, size, generator=generator) * 2 - 1
    moving = torch.ones(num, 2 * GRID, 2 * GRID)
    return ClipBatch(
        x0=x0,
        flow=0.02 * torch.randn(num, 2, t, GRID, GRID, generator=generator),
        moving=moving,
        known=moving,
        frames=x0[:, None].repeat(1, num_rendered, 1, 1, 1),
        times=(torch.arange(num_rendered) + 1).expand(num, -1) / t,
        ids=tuple(f"made up:{index}" for index in range(num)),
    )


def _made_up_pool(recipe: Recipe, num: int) -> LatentPool:
    return LatentPool(
        joint=torch.randn(num, recipe.stage1.feature_dim, 8, 8).half(),
        z=torch.randn(num, recipe.stage1.z_dim),
        eta=torch.randn(num, 2),
        known=torch.ones(num),
    )


def measure(
    take: Callable[[int], object], *, batch_size: int, device: torch.device
) -> tuple[int, float]:
    """Return the bytes that a step keeps for its backward pass, and clips a second.

    Args:
        take: Takes the step of a number. The first warms up; if it alone takes long, it counts.
        batch_size: Clips in a step.
        device: Where it computes.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def seconds_of(numbers: range) -> float:
        start = time.perf_counter()
        for number in numbers:
            take(number)
        _wait(device)
        return (time.perf_counter() - start) / len(numbers)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        seconds = seconds_of(range(1))
    if seconds < _LONG:
        seconds = seconds_of(range(1, 1 + _STEPS))
    return sum(kept.values()), batch_size / seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def state_bytes(network: nn.Module, *, weight_bytes: int = _FLOAT) -> tuple[int, int]:
    """Return the number of trained parameters, and the bytes of all that belongs to weights.

    Args:
        network: As it is trained.
        weight_bytes: Of each weight.
    """
    everything = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    masters = _FLOAT if weight_bytes < _FLOAT else 0
    return trained, everything * weight_bytes + trained * (_COPIES * _FLOAT + masters)


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Return the number of parameters of each part that has some."""
    counts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()
    }
    return {name: count for name, count in counts.items() if count}


def _drawn_per_second(recipe: Recipe) -> float | None:
    if not recipe.data.sky_share:
        return None
    skies = SkyPool(
        size=recipe.stage1.size,
        num_frames=recipe.stage1.num_frames,
        grid=GRID,
        textures=None,
        seed=0,
        rendered=0,
    )
    start = time.perf_counter()
    for number in range(_SKIES):
        skies.sky(number)
    seconds = (time.perf_counter() - start) / _SKIES
    return skies.uses / recipe.data.sky_share / seconds
