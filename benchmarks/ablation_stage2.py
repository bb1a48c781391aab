"""Rows of the ablation of stage 2: priors of about equal size, for one frozen stage 1."""

import argparse
import copy
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from ablation_scores import Metric, Scores, num_parameters, pairs
from ablation_stage1 import RECIPES
from rectified_flow import RectifiedConfig, RectifiedPrior
from torch import Tensor, nn
from torch.nn import functional
from transformer_coupling import TokenNetwork

from cinnema.core.precision import MovingAverage
from cinnema.core.weights import load_weights
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import VideoBatch
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.couplings import ConditionedNetwork
from cinnema.models.flow.flow import ConditionalFlow, FlowConfig
from cinnema.models.flow.priors import GaussianPrior, LinearGaussianPrior
from cinnema.models.keypoint.stage1 import KeypointStage1
from cinnema.paper.flow import PaperFlow, PaperFlowConfig
from cinnema.recipes.clips import held_out_clips, training_loader
from cinnema.training.latent_pool import LatentPool, load_or_encode
from cinnema.training.loop import warmup_cosine

STAGE2_MEASURES = (
    Metric("nll", "NLL, nats a dimension"),
    Metric("energy", "energy score"),
    Metric("best", "best of 16"),
)


@dataclasses.dataclass(frozen=True)
class Pools:
    """Latents and features of a frozen stage 1; `clips` are the names of the test clips."""

    train: LatentPool
    validation: LatentPool
    test: LatentPool
    clips: list[str]
    noise: float


Prior = ConditionalFlow | PaperFlow | RectifiedPrior
Build = Callable[[int, int, int], Prior]
"""Builds a prior from the length of z, the number of condition columns, and a seed."""

_NUM_BLOCKS, _HIDDEN = 6, 128


def _flow(network: Callable[..., nn.Module] = ConditionedNetwork, **options: Any) -> Build:  # noqa: ANN401
    def build(z_dim: int, condition_dim: int, seed: int) -> Prior:
        sizes = {"num_blocks": _NUM_BLOCKS, "hidden_dim": _HIDDEN, "depth": 1, "dropout": 0.05}
        sizes |= {"leaky_relu": False, "mixing": "linear", "seed": seed, **options}
        config = FlowConfig(z_dim=z_dim, condition_dim=condition_dim, **sizes)
        return ConditionalFlow(config, network=network)

    return build


def _published(z_dim: int, condition_dim: int, seed: int) -> Prior:
    """Build the published flow, with exact log-determinants, which have the same gradient."""
    torch.manual_seed(seed)
    return PaperFlow(
        PaperFlowConfig(
            in_channels=z_dim,
            embedding_dim=condition_dim,
            hidden_dim=112,
            hidden_depth=1,
            n_flows=_NUM_BLOCKS,
        )
    )


def _rectified(z_dim: int, condition_dim: int, seed: int) -> Prior:
    return RectifiedPrior(
        RectifiedConfig(
            z_dim=z_dim,
            condition_dim=condition_dim,
            hidden_dim=296,
            depth=4,
            dropout=0.05,
            num_steps=32,
            seed=seed,
        )
    )


STAGE2_ROWS: dict[str, Build] = {
    "ours": _flow(),
    "permutations": _flow(mixing="permutation"),
    "leaky ReLU": _flow(leaky_relu=True),
    "paper's block": _published,
    "transformer coupling": _flow(network=TokenNetwork, hidden_dim=32, depth=2),
    "rectified flow": _rectified,
}
FITTED = ("Gaussian", "linear-Gaussian")


def encode_pools(options: argparse.Namespace) -> Pools:
    """Encode windows with the given stage 1, once for all rows."""
    recipe = RECIPES[options.recipe]()
    recipe = dataclasses.replace(
        recipe, data=dataclasses.replace(recipe.data, validation_clips=options.held_out)
    )
    dataset = PackedDataset(options.data)
    stage1 = KeypointStage1(recipe.stage1)
    stage1.load_state_dict(load_weights(options.stage1).state)
    stage1.eval()
    encode = recipe.encode
    train = load_or_encode(
        options.out.with_suffix(".pool.safetensors"),
        stage1,
        training_loader(recipe, dataset, 32, seed=1),
        options.pool,
        device=torch.device("cpu"),
        encode_batch=encode,
    )
    held_out = {
        split: held_out_clips(recipe, dataset, split=split) for split in ("validation", "test")
    }
    pools = {split: _encoded(stage1, clips, encode) for split, clips in held_out.items()}
    names = [f"clip {i}" for i in held_out["test"].index.tolist()]
    return Pools(train=train, clips=names, noise=recipe.stage1.noise, **pools)


def _encoded(
    stage1: KeypointStage1,
    clips: VideoBatch,
    encode: Callable[[KeypointStage1, VideoBatch], LatentPool],
) -> LatentPool:
    fields = [f.name for f in dataclasses.fields(clips)]
    parts = zip(*(getattr(clips, name).split(32) for name in fields), strict=True)
    return LatentPool.joined(
        [encode(stage1, VideoBatch(**dict(zip(fields, part, strict=True)))) for part in parts]
    )


def stage2_row(options: argparse.Namespace, pools: Pools, row: str, *, seed: int) -> dict[str, Any]:
    recipe = RECIPES[options.recipe]()
    start = time.process_time()
    if row in FITTED:
        prior, condition = _fitted(row, pools)
        num = 0
    else:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            conditioner = Conditioner(recipe.conditioner)
            prior = STAGE2_ROWS[row](pools.train.z.shape[1], recipe.conditioner.out_dim, seed)
            fit(prior, conditioner, pools, options, seed=seed)
        condition = lambda pool: conditioner(pool.joint.float())  # noqa: E731
        num = num_parameters(prior)
    return {
        "parameters": num,
        "seconds": round(time.process_time() - start, 1),
        "clips": pools.clips,
        "scores": stage2_scores(prior, condition, pools),
    }


def _fitted(row: str, pools: Pools) -> tuple[Any, Callable[[LatentPool], Tensor]]:
    """Fit a Gaussian, conditioned on the features of x0 averaged over quarters."""

    def condition(pool: LatentPool) -> Tensor:
        return functional.adaptive_avg_pool2d(pool.joint.float(), 2).flatten(1)

    kind = {"Gaussian": GaussianPrior, "linear-Gaussian": LinearGaussianPrior}[row]
    generator = torch.Generator().manual_seed(0)
    noise = pools.noise * torch.randn(pools.train.z.shape, generator=generator)
    return kind.fit(pools.train.z + noise, condition(pools.train)), condition


def fit(
    prior: Prior, conditioner: Conditioner, pools: Pools, options: argparse.Namespace, *, seed: int
) -> None:
    """Train as stage 2 does, and keep the averaged weights that are best on validation clips."""
    networks = nn.ModuleList([conditioner, prior])
    generator = torch.Generator().manual_seed(seed)
    batch, total = options.batch, options.clips // options.batch
    first = _draw(pools.train, torch.arange(min(1024, len(pools.train))), pools.noise, generator)
    with torch.no_grad():
        prior.initialise(first, conditioner.eval()(pools.train.joint[: len(first)].float()))
    average = MovingAverage(networks.parameters(), decay=0.998)
    optimiser = _optimiser(networks)
    best, kept = math.inf, copy.deepcopy(networks.state_dict())
    for number in range(total):
        networks.train()
        rows = torch.randint(len(pools.train), (batch,), generator=generator)
        z = _draw(pools.train, rows, pools.noise, generator)
        loss = _objective(prior, z, conditioner(pools.train.joint[rows].float()), generator)
        loss.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * warmup_cosine(number / total)
        optimiser.step()
        optimiser.zero_grad()
        average.update()
        if number % 100 == 99 or number == total - 1:
            average.exchange()
            held_out = _held_out(prior, conditioner, pools)
            if held_out < best:
                best, kept = held_out, copy.deepcopy(networks.state_dict())
            average.exchange()
    networks.load_state_dict(kept)
    networks.eval()


def _optimiser(networks: nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in networks.parameters() if p.ndim > 1]
    vectors = [p for p in networks.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))


def _objective(prior: Prior, z: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
    if isinstance(prior, RectifiedPrior):
        return prior.loss(z, c, generator=generator)
    return -prior.log_prob(z, c).mean() / z.shape[1]


@torch.no_grad()
def _held_out(prior: Prior, conditioner: Conditioner, pools: Pools) -> float:
    """Return the objective on the validation split, always with the same random draws."""
    prior.eval(), conditioner.eval()
    generator, pool = torch.Generator().manual_seed(0), pools.validation
    c, rows = conditioner(pool.joint.float()), torch.arange(len(pool))
    losses = [
        float(_objective(prior, _draw(pool, rows, pools.noise, generator), c, generator))
        for _ in range(4)
    ]
    return sum(losses) / len(losses)


def _draw(pool: LatentPool, rows: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    z = pool.z[rows]
    return z + noise * torch.randn(z.shape, generator=generator)


@torch.no_grad()
def stage2_scores(
    prior: Any,  # noqa: ANN401
    condition: Callable[[LatentPool], Tensor],
    pools: Pools,
    *,
    num_samples: int = 16,
) -> Scores:
    """Score the likelihood of test latents and the distance of samples from them.

    The energy score E|Z - z| - E|Z - Z'| / 2 is minimal for the true distribution (Gneiting and
    Raftery, 2007); distances are divided by sqrt(dim z).
    """
    pool, generator = pools.test, torch.Generator().manual_seed(0)
    z, c = _draw(pool, torch.arange(len(pool)), pools.noise, generator), condition(pool)
    drawn = prior.sample(c.repeat_interleave(num_samples, dim=0), generator=generator)
    drawn = drawn.view(len(z), num_samples, -1)
    away = (drawn - z[:, None]).norm(dim=2) / math.sqrt(z.shape[1])
    apart = torch.cdist(drawn, drawn).sum(dim=(1, 2)) / math.sqrt(z.shape[1])
    apart = apart / (num_samples * (num_samples - 1))
    return {
        "nll": pairs(-prior.log_prob(z, c) / z.shape[1]),
        "energy": pairs(away.mean(dim=1) - 0.5 * apart),
        "best": pairs(away.amin(dim=1)),
    }
