"""The networks of the paper at their published sizes: plain float32 against the fast path."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cinnema.bench.paper_steps import TRAININGS, paper_step
from cinnema.bench.rows import Case, Row, Settings, durations
from cinnema.core.allocator import keep_freed_memory
from cinnema.core.devices import one_thread
from cinnema.core.errors import UserError
from cinnema.core.precision import fast_dtype
from cinnema.models.flow.flow import NormalizingFlow
from cinnema.paper.decoder import Decoder
from cinnema.paper.fast_decoder import FastDecoder
from cinnema.paper.flow import PaperFlow
from cinnema.paper.recipes import PaperRecipe, bair, landscape, tiny
from cinnema.paper.training.precision import Precision
from cinnema.paper.video_encoder import VideoEncoder

_RECIPES: dict[str, Callable[[], PaperRecipe]] = {"landscape": landscape, "bair": bair}
_PRECISIONS: tuple[Precision, ...] = ("float32", "fast")
_CPU = torch.device("cpu")


def measure(settings: Settings) -> Iterator[Row]:
    """Yield durations for one clip on one thread: decoder, encoder, flow and training steps."""
    keep_freed_memory()
    for name, make in _RECIPES.items():
        recipe = tiny(make()) if settings.quick else make()
        for part in (_decoding, _encoding, _flowing):
            with one_thread(), torch.no_grad(), torch.random.fork_rng():
                torch.manual_seed(0)
                rows = list(part(recipe, settings))
            yield from (_named(row, name) for row in rows)
    recipe = tiny(landscape()) if settings.quick else landscape()
    for training in TRAININGS:
        with one_thread(), torch.random.fork_rng():
            torch.manual_seed(0)
            rows = list(_training(recipe, training, settings))
        yield from (_named(row, f"landscape, step of {training}") for row in rows)


def _named(row: Row, prefix: str) -> Row:
    base = None if row.baseline is None else _named(row.baseline, prefix)
    return replace(row, name=f"{prefix}, {row.name}", baseline=base)


def _decoding(recipe: PaperRecipe, settings: Settings) -> Iterator[Row]:
    decoder = Decoder(recipe.stage1.decoder).eval()
    dtype = fast_dtype(_CPU)
    fast = FastDecoder(decoder, dtype=dtype)
    x0 = torch.rand(1, 3, recipe.size, recipe.size) * 2 - 1
    z = torch.randn(1, recipe.stage1.decoder.z_dim)
    plain = "decode, plain float32"
    cases: dict[str, Case] = {
        plain: partial(decoder, x0, z),
        f"decode, fast ({str(dtype).removeprefix('torch.')})": partial(fast, x0, z),
    }
    yield from durations(cases, runs=settings.runs, baseline=plain)
    yield Row(name="decode, PSNR", unit="dB", values=(_psnr(fast(x0, z), decoder(x0, z)),))


def _encoding(recipe: PaperRecipe, settings: Settings) -> Iterator[Row]:
    encoder = VideoEncoder(recipe.stage1.encoder).eval()
    video = torch.rand(1, 3, recipe.num_frames, recipe.size, recipe.size) * 2 - 1
    for row in durations({"encode, plain float32": partial(encoder, video)}, runs=settings.runs):
        yield replace(row, note="it has no other path")


def _flowing(recipe: PaperRecipe, settings: Settings) -> Iterator[Row]:
    flow = PaperFlow(recipe.flow).eval()
    z, c = torch.randn(1, recipe.flow.in_channels), torch.randn(1, recipe.flow.embedding_dim)
    directions: dict[str, tuple[Case, Case]] = {
        "to_residual": (
            partial(NormalizingFlow.to_residual, flow, z, c),
            partial(flow.to_residual, z, c),
        ),
        "to_latent": (
            partial(NormalizingFlow.to_latent, flow, z, c),
            partial(flow.to_latent, z, c),
        ),
    }
    for name, (plain, fast) in directions.items():
        base = f"{name}, as trained"
        cases = {base: plain, f"{name}, fast": fast}
        yield from durations(cases, runs=settings.runs, baseline=base)


def _training(recipe: PaperRecipe, training: str, settings: Settings) -> Iterator[Row]:
    # ActNorm starts from the batch's deviations, which of two samples can be nearly zero.
    batch_size = {"autoencoding": 1, "conditioning": 2, "flow": 8}[training]
    numbers = iter(range(1 << 30))
    cases: dict[str, Case] = {}
    for precision in _PRECISIONS:
        try:
            step = paper_step(recipe, training, batch_size=batch_size, precision=precision)
        except UserError as error:  # bf16 is slower here, or the weights of LPIPS are missing
            yield Row(name=precision, unit="s", values=(), note=str(error))
            continue
        cases[precision] = lambda step=step: step(next(numbers))  # type: ignore[misc]
    if cases:
        yield from durations(cases, runs=settings.runs, baseline=next(iter(cases)))


def _psnr(found: Tensor, expected: Tensor) -> float:
    """Return the peak signal-to-noise ratio of values in [-1, 1], in dB."""
    return float(10 * torch.log10(4 / (found - expected).square().mean()))
