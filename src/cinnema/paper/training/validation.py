"""What a training of the paper's model is measured by on the way: clips that are held out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cinnema.backbones.lpips import LPIPS
from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.paper.training.autoencoding import AutoencodingNetworks
from cinnema.paper.training.flow import FlowStep

_NUM_CLIPS = 32
_SEED = 0


@dataclass(frozen=True)
class HeldOut:
    """Some clips of the split "validation", the same at every look.

    Attributes:
        batches: Of clips, not varied.
    """

    batches: tuple[VideoBatch, ...]

    @classmethod
    def of(
        cls, dataset: PackedDataset, *, num_frames: int, size: int, device: torch.device
    ) -> "HeldOut | None":
        """Take up to 32 clips, one window of each; None where no clip is held out.

        Args:
            dataset: Packed clips.
            num_frames: Of a window, x0 counted.
            size: Width and height of the frames, in pixels.
            device: Where the clips shall be.
        """
        try:
            loader = ClipLoader(
                dataset,
                split="validation",
                batch_size=1,
                num_frames=num_frames,
                size=size,
                seed=_SEED,
                num_workers=0,
                device=device,
            )
        except UserError:  # the split is empty, or its clips too short
            return None
        num = min(_NUM_CLIPS, len(loader.sequence))
        return cls(tuple(next(loader) for _ in range(num)))

    def reconstruction(
        self, networks: AutoencodingNetworks, lpips: LPIPS
    ) -> Callable[[], dict[str, float]]:
        """Return what measures LPIPS of decoded clips, and of the frozen first frame beside it.

        Args:
            networks: Of stage 1.
            lpips: On the same device.
        """

        @torch.no_grad()
        def measure() -> dict[str, float]:
            networks.eval()
            distances = torch.stack([_distances(networks, lpips, b) for b in self.batches])
            model, frozen = distances.mean(dim=0).tolist()
            return {"held_out_lpips": model, "held_out_lpips_frozen": frozen}

        return measure

    def likelihood(self, step: FlowStep) -> Callable[[], dict[str, float]]:
        """Return what measures the negative log-likelihood of latents, in nats a dimension.

        Args:
            step: Of the flow's training.
        """
        flow = step.flow

        @torch.no_grad()
        def measure() -> dict[str, float]:
            flow.eval()
            nll = [
                -flow.log_prob(*step.latents(batch, number=number)).mean()
                for number, batch in enumerate(self.batches)
            ]
            return {"held_out_nll": float(torch.stack(nll).mean()) / flow.config.in_channels}

        return measure


def _distances(networks: AutoencodingNetworks, lpips: LPIPS, batch: VideoBatch) -> Tensor:
    """LPIPS of the decoded and of the frozen clip."""
    x0, real = batch.video[:, 0], batch.video[:, 1:]
    mu, _ = networks.encoder(real.transpose(1, 2))
    features = lpips.features(real.flatten(0, 1))
    decoded = lpips.features(networks.decoder(x0, mu).flatten(0, 1))
    frozen = lpips.features(x0[:, None].expand_as(real).flatten(0, 1))
    return torch.stack(
        [lpips.distance(features, decoded).mean(), lpips.distance(features, frozen).mean()]
    )
