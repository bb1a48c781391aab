"""How well stage 1 gives a clip back: encode it, decode it, compare."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.backbones.lpips import LPIPS
from cinnema.data.crops import SceneCrops
from cinnema.evaluation.motion import pictures, seen_flow
from cinnema.evaluation.scores import ClipScore, Metric
from cinnema.models.layers import warp
from cinnema.models.warping.stage1 import Stage1

RECONSTRUCTION_MEASURES = (
    Metric("LPIPS", "lpips_model"),
    Metric("frozen", "lpips_frozen"),
    Metric("warped", "lpips_warped"),
    Metric("LPIPS below frozen", "lpips_saved", "lpips_frozen", shows_interval=True),
    Metric("warped below frozen", "lpips_warped_saved", "lpips_frozen"),
)
PIXEL_MEASURES = (
    Metric("L1", "l1_model", digits=4),
    Metric("L1 frozen", "l1_frozen", digits=4),
    Metric("L1 warped", "l1_warped", digits=4),
    Metric("PSNR", "psnr_model", digits=2),
    Metric("PSNR frozen", "psnr_frozen", digits=2),
    Metric("PSNR warped", "psnr_warped", digits=2),
)
FLOW_MEASURES = (
    Metric("relative flow error", "flow_error", "flow_motion", shows_interval=True),
    Metric("true motion, px a frame", "true_speed"),
)


@torch.no_grad()
def score_reconstruction(
    stage1: Stage1,
    lpips: LPIPS,
    crops: SceneCrops,
    *,
    num_clips: int,
    times: Sequence[int],
) -> list[ClipScore]:
    """Compare decoded clips, the frozen first frame, and x0 warped by the library's own flow.

    Args:
        stage1: In evaluation mode, float32.
        lpips: The distance, on the same device.
        crops: Clips of one scene.
        num_clips: How many of them, at most.
        times: Which frames are compared, from 1 to T.
    """
    device = next(stage1.parameters()).device
    scores = []
    for index in range(min(num_clips, len(crops))):
        x0 = pictures(crops.frames[index, :1]).to(device)
        real = pictures(crops.frames[index, list(times)]).to(device)
        flow = torch.from_numpy(crops.flow[index : index + 1]).to(device)
        chosen = flow[0, :, [t - 1 for t in times]].transpose(0, 1)
        values = _compare(
            lpips,
            real,
            model=_decode(stage1, x0, flow, times),
            frozen=x0,
            warped=warp(x0.expand(len(times), -1, -1, -1), chosen),
        )
        values["lpips_saved"] = values["lpips_frozen"] - values["lpips_model"]
        values["lpips_warped_saved"] = values["lpips_frozen"] - values["lpips_warped"]
        scores.append(ClipScore(crops.scene.name, crops.scene.texture, values))
    return scores


@torch.no_grad()
def score_flow(stage1: Stage1, crops: SceneCrops, *, num_clips: int) -> list[ClipScore]:
    """Compare the flow that comes back from z with the library's.

    Args:
        stage1: In evaluation mode.
        crops: Clips of one scene.
        num_clips: How many of them, at most.
    """
    like = next(stage1.parameters())
    x0 = pictures(crops.frames[:num_clips, 0]).to(like)
    flow = torch.from_numpy(crops.flow[:num_clips]).to(like)
    predicted = seen_flow(stage1, stage1.encode(flow), stage1.scene(x0)).float()
    flow = flow.float()
    steps = torch.diff(flow, dim=2, prepend=torch.zeros_like(flow[:, :, :1]))
    columns = {
        "flow_error": (predicted - flow).abs().sum(dim=(1, 2, 3, 4)),
        "flow_motion": flow.abs().sum(dim=(1, 2, 3, 4)),
        "true_speed": steps.norm(dim=1).mean(dim=(1, 2, 3)) * x0.shape[-1],
    }
    return [
        ClipScore(
            crops.scene.name, crops.scene.texture, {k: float(v[i]) for k, v in columns.items()}
        )
        for i in range(len(x0))
    ]


def _decode(
    stage1: Stage1,
    x0: Float[Tensor, "1 3 h w"],
    flow: Float[Tensor, "1 2 t g g"],
    times: Sequence[int],
) -> Float[Tensor, "n 3 h w"]:
    features = stage1.scene(x0)
    predicted = stage1.basis.clip(stage1.motion(stage1.encode(flow), features.joint))
    layers = stage1.layers(x0, features)
    frames = [stage1.frame(layers, predicted[:, :, t - 1]) for t in times]
    return torch.cat(frames).clamp(-1, 1)


def _compare(lpips: LPIPS, real: Tensor, **guesses: Tensor) -> dict[str, float]:
    real_features = lpips.features(real)
    values = {}
    for name, guess in guesses.items():
        distance = lpips.distance(real_features, lpips.features(guess))
        values[f"lpips_{name}"] = float(distance.mean())
        error = (guess - real) / 2  # of values in [0, 1]
        values[f"l1_{name}"] = float(error.abs().mean())
        squared = error.square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
        values[f"psnr_{name}"] = float((-10 * squared.log10()).mean())
    return values
