"""Whether the flow's two directions undo each other."""

from dataclasses import asdict, dataclass

import torch

from cinnema.evaluation.likelihood import SceneLatents, with_noise
from cinnema.models.warping.model import WarpingModel


@dataclass(frozen=True)
class Inversion:
    """Largest absolute errors of round trips, in float32.

    Attributes:
        residual: max |nu - to_residual(to_latent(nu))| for standard normal nu.
        latent: max |z - to_latent(to_residual(z))| for codes of held-out clips.
        num_rows: Rows of each.
    """

    residual: float
    latent: float
    num_rows: int

    def to_dict(self) -> dict[str, float | int]:
        """Return what JSON can hold."""
        return asdict(self)


@torch.no_grad()
def measure_inversion(
    model: WarpingModel, latents: SceneLatents, *, noise: float, seed: int = 2
) -> Inversion:
    """Run both round trips under the conditions of held-out first frames.

    Args:
        model: In evaluation mode, float32.
        latents: Of validation scenes.
        noise: Standard deviation of what is added to z.
        seed: Of nu and the noise.
    """
    device = next(model.parameters()).device
    c = model.conditioner(latents.pool.joint.float().to(device))
    z = with_noise(latents.pool.z, noise=noise, draw=0, seed=seed).to(device)
    nu = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    residual = model.to_residual(model.to_latent(nu, c)[0], c)[0]
    latent = model.to_latent(model.to_residual(z, c)[0], c)[0]
    return Inversion(
        residual=float((residual - nu).abs().max()),
        latent=float((latent - z).abs().max()),
        num_rows=len(z),
    )
