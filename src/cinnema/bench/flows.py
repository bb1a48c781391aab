"""The published cINN against the released code's form of it, FrEIA and zuko, of equal size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from cinnema.bench.rows import Case, Row, Settings, durations
from cinnema.core.devices import one_thread
from cinnema.paper.flow import PaperFlow, PaperFlowConfig

_BATCHES = (1, 16, 256)
# With 64 dimensions and 128 condition columns, one network of three hidden layers of this width has
# the parameters of two of width 512, for log-scales and for shifts.
_JOINT_WIDTH = 735

Map: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps vectors and conditions to vectors and log-determinants."""


@dataclass(frozen=True)
class Contestant:
    """A flow in both directions.

    Attributes:
        to_residual: From latents to residuals.
        to_latent: From residuals to latents.
        num_parameters: Number of its parameters.
    """

    to_residual: Map
    to_latent: Map
    num_parameters: int


def measure(settings: Settings) -> Iterator[Row]:
    """Yield the duration of both directions of each flow, at several batch sizes, on one thread."""
    config = PaperFlowConfig(
        in_channels=64,
        embedding_dim=128,
        hidden_dim=32 if settings.quick else 512,
        hidden_depth=2,
        n_flows=2 if settings.quick else 20,
    )
    width = 46 if settings.quick else _JOINT_WIDTH
    flow = _random_flow(config)
    contestants = {"released code's form": _released(flow), "cinnema": _of(flow, flow)}
    for name, make in (("FrEIA", _freia), ("zuko", _zuko)):
        try:
            contestants[name] = make(config, width)
        except ImportError:
            yield Row(name=name, unit="s", values=(), note=f"not installed: pip install {name}")
    for batch in _BATCHES:
        for direction in ("to_residual", "to_latent"):
            cases = {
                f"{direction}, batch {batch}, {name}": _case(getattr(one, direction), batch)
                for name, one in contestants.items()
            }
            with one_thread():
                rows = list(durations(cases, runs=settings.runs, baseline=next(iter(cases))))
            yield from rows
    for name, one in contestants.items():
        yield Row(name=f"parameters, {name}", unit="million", values=(one.num_parameters / 1e6,))


def _case(function: Map, batch: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(batch, 64, generator=generator)
    # Another condition each time, as what a flow keeps of one does not help others.
    conditions = torch.randn(2, batch, 128, generator=generator)
    turn = iter(range(1 << 30))

    @torch.no_grad()
    def run() -> None:
        function(z, conditions[next(turn) % 2])

    return run


def _random_flow(config: PaperFlowConfig) -> PaperFlow:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        flow = PaperFlow(config)
        for parameter in flow.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return flow.eval()


def _of(flow: Any, network: nn.Module) -> Contestant:  # noqa: ANN401 - has both directions
    size = sum(p.numel() for p in network.parameters())
    return Contestant(flow.to_residual, flow.to_latent, size)


class _ReleasedForm:
    """The operations of the released code, on the weights of a flow."""

    def __init__(self, flow: PaperFlow) -> None:
        self.blocks: Any = list(flow.transform.parts)  # type: ignore[arg-type]

    def to_residual(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Forward."""
        log_det = torch.zeros(len(z))
        for norm, _, couplings, shuffle in (block.parts for block in self.blocks):
            h = norm.scale * (z[:, :, None, None] + norm.loc)
            log_det = log_det + norm.scale.abs().log().sum() * torch.ones(len(z))
            z = h[:, :, 0, 0]
            positive = (z >= 0).to(z)
            z = z * (positive + (1 - positive) * 0.9)
            for index, coupling in enumerate(couplings.parts):
                if index:
                    z = torch.cat(torch.chunk(z, 2, dim=1)[::-1], dim=1)
                kept, changed = torch.chunk(z, 2, dim=1)
                log_scale = coupling.network.s(torch.cat([kept, c], dim=1))
                changed = changed * log_scale.exp()
                changed = changed + coupling.network.t(torch.cat([kept, c], dim=1))
                z = torch.cat([kept, changed], dim=1)
                log_det = log_det + log_scale.sum(dim=1)
            z = torch.cat(torch.chunk(z, 2, dim=1)[::-1], dim=1)[:, shuffle.order]
        return z, log_det

    def to_latent(self, nu: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Backward."""
        log_det = torch.zeros(len(nu))
        for norm, _, couplings, shuffle in (block.parts for block in reversed(self.blocks)):
            nu = nu[:, shuffle.order.argsort()]
            nu = torch.cat(torch.chunk(nu, 2, dim=1)[::-1], dim=1)
            for index, coupling in reversed(list(enumerate(couplings.parts))):
                kept, changed = torch.chunk(nu, 2, dim=1)
                changed = changed - coupling.network.t(torch.cat([kept, c], dim=1))
                log_scale = coupling.network.s(torch.cat([kept, c], dim=1))
                changed = changed * log_scale.neg().exp()
                nu = torch.cat([kept, changed], dim=1)
                if index:
                    nu = torch.cat(torch.chunk(nu, 2, dim=1)[::-1], dim=1)
                log_det = log_det - log_scale.sum(dim=1)
            positive = (nu >= 0).to(nu)
            nu = nu * (positive + (1 - positive) / 0.9)
            h = nu[:, :, None, None] / norm.scale - norm.loc
            log_det = log_det - norm.scale.abs().log().sum() * torch.ones(len(nu))
            nu = h[:, :, 0, 0]
        return nu, log_det


def _released(flow: PaperFlow) -> Contestant:
    return _of(_ReleasedForm(flow), flow)


def _freia(config: PaperFlowConfig, width: int) -> Contestant:
    from FrEIA import framework, modules

    def network(num_in: int, num_out: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(num_in, width), nn.LeakyReLU(),
            nn.Linear(width, width), nn.LeakyReLU(),
            nn.Linear(width, width), nn.LeakyReLU(),
            nn.Linear(width, num_out),
        )  # fmt: skip

    flow = framework.SequenceINN(config.in_channels)
    for index in range(config.n_flows):
        condition = {"cond": 0, "cond_shape": (config.embedding_dim,)}
        flow.append(modules.GLOWCouplingBlock, subnet_constructor=network, **condition)
        flow.append(modules.PermuteRandom, seed=index)
    return Contestant(
        lambda z, c: flow(z, [c]),
        lambda nu, c: flow(nu, [c], rev=True),
        sum(p.numel() for p in flow.parameters()),
    )


def _zuko(config: PaperFlowConfig, width: int) -> Contestant:
    from zuko.flows import NICE

    flow = NICE(
        config.in_channels,
        config.embedding_dim,
        transforms=2 * config.n_flows,
        randmask=True,
        hidden_features=(width,) * 3,
        activation=nn.LeakyReLU,
    )

    def to_residual(z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        nu, log_det = flow(c).transform.call_and_ladj(z)
        return nu, log_det

    def to_latent(nu: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = flow(c).transform.inv.call_and_ladj(nu)
        return z, log_det

    return Contestant(to_residual, to_latent, sum(p.numel() for p in flow.parameters()))
