"""What the machine can do, and the share of it that networks and warps reach."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cinnema.bench.photographs import example
from cinnema.bench.rows import Case, Row, Settings, alternate
from cinnema.core.allocator import keep_freed_memory
from cinnema.core.precision import fast_dtype
from cinnema.models.nature.kinds import KIND_SIZE, KindNetwork
from cinnema.paper.decoder import Decoder
from cinnema.paper.fast_decoder import FastDecoder
from cinnema.paper.recipes import landscape, tiny
from cinnema.synthesis.pipeline import Pipeline, open_scene
from cinnema.synthesis.request import NATURAL, Request
from cinnema.synthesis.residual import draw

_CPU = torch.device("cpu")
_NAMES = {torch.float32: "float32", torch.bfloat16: "bf16"}
_POSITION, _PIXEL = 8, 4  # bytes of what the renderer's warp reads and writes


@dataclass(frozen=True)
class _Work:
    """A case, and how much it does.

    Attributes:
        case: Does it once.
        amount: Floating-point operations, or bytes read and written.
        limit: Name of the work whose rate is the machine's limit for this one; none for a limit.
    """

    case: Case
    amount: float
    limit: str = ""


def measure(settings: Settings) -> Iterator[Row]:
    """Yield the rates of matrix products and copies, and beside them those of networks and warps.

    The ratio of a network is the share of the matrix product's rate in its number format, that of
    a warp the share of the copy's; with one thread, and with all that torch uses.
    """
    keep_freed_memory()
    most = torch.get_num_threads()
    for num in sorted({1, most}):
        with _threads(num), torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(0)
            yield from _rates(_products(settings), settings, unit="GFLOP/s", threads=num)
            traffic = _traffic(settings, has_frame=num == most)
            yield from _rates(traffic, settings, unit="GB/s", threads=num)


@contextmanager
def _threads(num: int) -> Iterator[None]:
    """Make torch and OpenCV compute on a number of threads inside the block."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(num)
    cv2.setNumThreads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _rates(
    works: Mapping[str, _Work], settings: Settings, *, unit: str, threads: int
) -> Iterator[Row]:
    costs = alternate({name: work.case for name, work in works.items()}, runs=settings.runs)
    rows: dict[str, Row] = {}
    for name, work in works.items():
        cost = costs[name]
        # Of one thread, processor time is what it would take alone; other programs do not count.
        seconds = cost.processor if threads == 1 else cost.wall
        row = Row(
            name=f"{name}, {threads} thread{'s' * (threads > 1)}",
            unit=unit,
            values=tuple(work.amount / second / 1e9 for second in seconds),
            processor=cost.processor,
        )
        rows[name] = replace(row, baseline=rows.get(work.limit))
        yield rows[name]


def _products(settings: Settings) -> dict[str, _Work]:
    """Return matrix products, the kind network and the published decoder."""
    size = 256 if settings.quick else 1024
    works = {}
    for dtype, name in _NAMES.items():
        matrix = torch.ones(size, size, dtype=dtype)
        works[name] = _Work(_repeated(torch.mm, matrix, matrix), 2.0 * size**3)
    kinds, picture = KindNetwork(width=48).eval(), torch.rand(1, 3, KIND_SIZE, KIND_SIZE)
    works["kind network, float32"] = _counted(kinds, picture, limit="float32")
    recipe = tiny(landscape()) if settings.quick else landscape()
    decoder = Decoder(recipe.stage1.decoder).eval()
    inputs = torch.rand(1, 3, recipe.size, recipe.size), torch.randn(1, decoder.config.z_dim)
    works["Decoder, float32"] = _counted(decoder, *inputs, limit="float32")
    for dtype in dict.fromkeys((torch.float32, fast_dtype(_CPU))):
        fast = FastDecoder(decoder, dtype=dtype)
        works[f"FastDecoder, {_NAMES[dtype]}"] = _counted(fast, *inputs, limit=_NAMES[dtype])
    return works


def _repeated(function: Callable[..., object], *inputs: Tensor) -> Case:
    return lambda: function(*inputs)


def _counted(function: Callable[..., object], *inputs: Tensor, limit: str) -> _Work:
    """Return the work of a function, by the multiplications and additions that it really does."""
    function(*inputs)  # what it keeps for later calls is not counted
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return _Work(_repeated(function, *inputs), counter.get_total_flops(), limit)


def _traffic(settings: Settings, *, has_frame: bool) -> dict[str, _Work]:
    """Return a copy, the renderer's warp, and whole frames, which it renders on all cores."""
    source = torch.zeros(1 << (16 if settings.quick else 26))
    works = {"copy": _Work(_repeated(torch.empty_like(source).copy_, source), 2.0 * source.nbytes)}
    size = (160, 96) if settings.quick else (1280, 720)
    pixels, num_pixels = example(size), float(size[0] * size[1])
    plate = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA))
    works["warp"] = _Work(_warp(plate), (_POSITION + 2 * _PIXEL) * num_pixels, "copy")
    if has_frame:
        num_frames = 2 if settings.quick else 16
        frames = _frames(pixels, num_frames)
        works["frames, each read and written once"] = _Work(
            frames, 2 * pixels.nbytes * float(num_frames), "copy"
        )
    return works


def _warp(plate: UInt8[np.ndarray, "h w 4"]) -> Case:
    """Return a linear warp of a whole picture by 3.5 pixels, as the renderer does it."""
    height, width, _ = plate.shape
    y, x = np.indices((height, width), np.float32) + np.float32(3.5)
    out = np.empty_like(plate)
    return lambda: cv2.remap(plate, x, y, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REFLECT)


def _frames(pixels: UInt8[np.ndarray, "h w 3"], num_frames: int) -> Case:
    """Return what renders frames of a video of the weights `landscape`."""
    model = Pipeline.from_pretrained("landscape").model
    scene = open_scene(model, pixels, Request.of(NATURAL, num_frames=num_frames))
    (residual,) = draw(model, num_samples=1, seed=0, eta=None, weights="")

    def run() -> None:
        for _ in scene.stream(residual).frames:
            pass

    return run
