"""The paper's networks on an accelerator: decoder, flow and training step of Landscape.

Needs torch, numpy, safetensors, einops and pydantic only, and cinnema's sources:

    PYTHONPATH=src python benchmarks/accelerator.py [--photographs 64] [--runs 10] [--tiny]

It computes on a CUDA device. Without one it says so and measures this machine's CPU with one
photograph. Each case is compared with plain float32 on the same weights (TF32 off), both in turns;
times are medians, and PSNR is that of the decoded frames. The training step is that of stage 1 with
both discriminators and the gradient penalty, without LPIPS, whose weights are another package's.
"""

import argparse
import importlib.util
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from typing import Any

if importlib.util.find_spec("jaxtyping") is None:  # annotations alone need it

    class _Shape:
        def __class_getitem__(cls, _: object) -> type:
            return cls

    _stub = types.ModuleType("jaxtyping")
    for _name in ("Bool", "Float", "Float32", "Float64", "Int", "Integer", "Shaped", "UInt8"):
        setattr(_stub, _name, _Shape)
    sys.modules["jaxtyping"] = _stub

import torch
from torch import Tensor

from cinnema.core.allocator import keep_freed_memory
from cinnema.core.precision import fast_dtype
from cinnema.models.flow.flow import NormalizingFlow
from cinnema.paper import build, published_configs
from cinnema.paper.decoder import Decoder
from cinnema.paper.fast_decoder import FastDecoder
from cinnema.paper.flow import PaperFlow
from cinnema.paper.training.losses import gradient_penalty, kl_to_standard_normal
from cinnema.paper.training.precision import Arithmetic, Precision
from cinnema.training.discriminators import frozen
from cinnema.training.losses import feature_matching, hinge_discriminator, hinge_generator

_FRAMES, _SUB_CLIP, _PICTURES = 16, 12, 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=64)
    parser.add_argument("--training-batch", type=int, default=7, help="clips of a training step")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--tiny", action="store_true", help="narrow networks, to see that it runs")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    else:
        options.photographs = options.training_batch = 1
        keep_freed_memory()
        print(f"torch finds no CUDA device: one photograph on the CPU, torch {torch.__version__}")
    print(f"fast format: {fast_dtype(device)}; {options.runs} runs in turns, after one of each")
    torch.manual_seed(0)
    configs = published_configs("landscape")
    if options.tiny:
        _shrink(configs)
    for measure in (_decoding, _flowing, _training):
        measure(configs, device, options)
    return 0


def _shrink(configs: dict[str, dict[str, Any]]) -> None:
    configs["decoder"]["channel_factor"] = 8
    configs["patch_discriminator"]["ndf"] = 8
    configs["flow"] |= {"hidden_dim": 32, "n_flows": 2}
    for name in ("video_encoder", "temporal_discriminator"):
        configs[name]["channels"] = [16] * 5


def _decoding(configs: Any, device: torch.device, options: argparse.Namespace) -> None:  # noqa: ANN401
    decoder = build("decoder", configs["decoder"]).to(device).eval()
    assert isinstance(decoder, Decoder)
    fast = FastDecoder(decoder, dtype=fast_dtype(device))
    for num in sorted({1, options.photographs}):
        x0 = torch.rand(num, 3, decoder.config.size, decoder.config.size, device=device) * 2 - 1
        z = torch.randn(num, decoder.config.z_dim, device=device)
        with torch.no_grad():
            plain, quick = decoder(x0, z), fast(x0, z)
            psnr = 10 * torch.log10(4 / (quick - plain).square().mean())
            _report(
                f"decode {num} photographs",
                {"float32": partial(decoder, x0, z), "fast": partial(fast, x0, z)},
                device,
                options.runs,
                note=f"PSNR {float(psnr):.1f} dB",
            )


def _flowing(configs: Any, device: torch.device, options: argparse.Namespace) -> None:  # noqa: ANN401
    flow = build("flow", configs["flow"]).to(device).eval()
    assert isinstance(flow, PaperFlow)
    for num in sorted({1, options.photographs}):
        z = torch.randn(num, flow.z_dim, device=device)
        c = torch.randn(num, flow.condition_dim, device=device)
        with torch.no_grad():
            for name in ("to_residual", "to_latent"):
                plain, quick = getattr(NormalizingFlow, name), getattr(flow, name)
                cases = {"float32": partial(plain, flow, z, c), "fast": partial(quick, z, c)}
                _report(f"{name}, {num} rows", cases, device, options.runs)


def _training(configs: Any, device: torch.device, options: argparse.Namespace) -> None:  # noqa: ANN401
    size = 128
    shape = (options.training_batch, _FRAMES + 1, 3, size, size)
    video = torch.rand(shape, device=device) * 2 - 1
    formats: list[Precision] = ["float32"]
    if fast_dtype(device) == torch.bfloat16:
        formats.append("fast")
    steps = {name: _Step(configs, name, device) for name in formats}
    cases = {name: partial(step.take, video) for name, step in steps.items()}
    _report(f"training step of {len(video)} clips", cases, device, options.runs)
    if device.type == "cuda":
        print(f"  peak memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


class _Step:
    """A step of stage 1: both discriminators, then encoder and decoder."""

    def __init__(self, configs: Any, precision: Precision, device: torch.device) -> None:  # noqa: ANN401
        names = ("video_encoder", "decoder", "temporal_discriminator", "patch_discriminator")
        made = [build(name, configs[name]).to(device).train() for name in names]
        self.encoder, self.decoder, self.temporal, self.patch = made
        self.ready = Arithmetic(precision, device=device).ready
        groups = ([self.encoder, self.decoder], [self.temporal], [self.patch])
        self.generator, self.for_temporal, self.for_patch = (
            torch.optim.Adam([p for n in group for p in n.parameters()], 2e-4, betas=(0.5, 0.9))
            for group in groups
        )

    def take(self, video: Tensor) -> None:
        x0, real = video[:, 0], video[:, 1:]
        mu, log_var = self.ready(self.encoder)(real.transpose(1, 2))
        fake = self.ready(self.decoder)(x0, mu + (log_var / 2).exp() * torch.randn_like(mu))
        pictures = torch.randint(fake.shape[0] * fake.shape[1], (_PICTURES,), device=fake.device)
        self._descend(self.for_temporal, self._temporal_loss(real, fake.detach()))
        patch = self.ready(self.patch)
        shown = [clip.flatten(0, 1)[pictures] for clip in (real, fake)]
        loss = hinge_discriminator(patch(shown[0]), patch(shown[1].detach()))
        self._descend(self.for_patch, loss)
        with frozen(self.temporal, self.patch):
            loss = 20 * (fake - real).abs().mean() + 1e-6 * kl_to_standard_normal(mu, log_var)
            loss = loss + hinge_generator(self.ready(self.patch)(shown[1]))
            temporal = self.ready(self.temporal)
            with torch.no_grad():
                _, real_features = temporal(_part(real))
            score, features = temporal(_part(fake))
            loss = loss + hinge_generator(score) + 10 * feature_matching(real_features, features)
            self._descend(self.generator, loss)

    def _temporal_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        discriminator = self.ready(self.temporal)
        shown = _part(real).requires_grad_()
        real_score, _ = discriminator(shown)
        fake_score, _ = discriminator(_part(fake))
        penalty = gradient_penalty(real_score, shown)
        return hinge_discriminator(real_score, fake_score) + 10 * penalty

    def _descend(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _part(video: Tensor) -> Tensor:
    return video[:, :_SUB_CLIP].transpose(1, 2)


def _report(
    title: str,
    cases: dict[str, Callable[[], object]],
    device: torch.device,
    runs: int,
    *,
    note: str = "",
) -> None:
    """Run cases in turns, and print medians and ratios to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(runs + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    print(f"{title}  {note}".rstrip())
    first = next(iter(seconds.values()))
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(first, values, strict=True))
        print(f"  {name:8} {1e3 * statistics.median(values):9.1f} ms  {ratio:5.2f} x", flush=True)


if __name__ == "__main__":
    sys.exit(main())
