"""Batches of packed clips: the same whoever prepares them, and resumable to the clip."""

import dataclasses
import doctest
import gc
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data import loader as loader_module
from cinnema.data.augmentation import PAPER, Augmentation
from cinnema.data.dataset import PackedClip, PackedDataset
from cinnema.data.loader import ClipLoader, ClipSequence, VideoBatch
from cinnema.data.prepare import prepare
from cinnema.data.records import Control, Item, RawClip, Split

SIZE, FPS = 8, 30.0
ARM = Control(
    name="arm", kind="position", labels=("x", "y"), unit="m", mirror_axis=1, mirror_centre=50.0
)
WIND = Control(name="wind", kind="velocity", labels=("x", "y"), unit="picture sizes")


@dataclasses.dataclass(frozen=True)
class Toys:
    """Clips whose pixels tell which clip (red), frame (green) and column (blue) they show."""

    lengths: Sequence[int]
    control: Control | None = None
    splits: Mapping[int, Split] = dataclasses.field(default_factory=dict)
    is_sure: bool = True
    gap: int | None = None
    size: int = SIZE
    name: str = "toys"

    def settings(self) -> dict[str, Any]:
        return {}

    def items(self) -> list[Item]:
        return [
            Item(name=f"toy{number:02}", split=self.splits.get(number, "train"))
            for number in range(len(self.lengths))
        ]

    def read(self, item: Item) -> Iterator[RawClip]:
        number = int(item.name.removeprefix("toy"))
        length = self.lengths[number]
        frames = np.zeros((length, self.size, self.size, 3), dtype=np.uint8)
        frames[..., 0] = number
        frames[..., 1] = np.arange(length)[:, None, None]
        frames[..., 2] = np.arange(self.size)
        track = track_of(length)
        if self.gap is not None:
            track[self.gap] = np.nan
        yield RawClip(
            name=item.name,
            source=item.name,
            frames=frames,
            fps=FPS,
            tracks={} if self.control is None else {self.control.name: track},
            confidence=None if self.is_sure else confidence_of(length),
        )


def track_of(length: int) -> NDArray[np.float32]:
    return np.stack([np.arange(length), np.arange(length) ** 2], axis=-1).astype(np.float32)


def confidence_of(length: int) -> NDArray[np.float32]:
    return np.linspace(0, 1, length, dtype=np.float32)


Pack = Callable[..., PackedDataset]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    def make(lengths: Sequence[int], **options: Any) -> PackedDataset:
        folder = tmp_path_factory.mktemp("packed") / "toys"
        prepare(Toys(lengths, **options), folder, encoding="raw")
        return PackedDataset(folder)

    return make


@pytest.fixture(scope="module")
def toys(pack: Pack) -> PackedDataset:
    """Eleven clips of 5 to 15 frames."""
    return pack(range(5, 16), control=ARM)


VARIED = Augmentation(mirror=0.5, strides=(1, 2), brightness=0.3, enlarge=1.25)


def loader_of(dataset: PackedDataset, **options: Any) -> ClipLoader:
    defaults = {"batch_size": 4, "num_frames": 4, "num_workers": 0, "augmentation": VARIED}
    return ClipLoader(dataset, **{**defaults, **options})


def take(loader: ClipLoader, num: int) -> list[VideoBatch]:
    batches = [next(loader) for _ in range(num)]
    loader.close()
    return batches


def join(batches: Sequence[VideoBatch]) -> VideoBatch:
    names = [field.name for field in dataclasses.fields(VideoBatch)]
    return VideoBatch(**{n: torch.cat([getattr(b, n) for b in batches]) for n in names})


def same(a: VideoBatch, b: VideoBatch) -> bool:
    names = [field.name for field in dataclasses.fields(VideoBatch)]
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def levels(video: torch.Tensor) -> torch.Tensor:
    """What `Toys` painted: clip, frame, column."""
    return ((video + 1) * 127.5).round().int()


def test_a_batch_has_the_shapes_that_training_wants(toys: PackedDataset) -> None:
    batch = next(loader_of(toys))
    assert batch.video.shape == (4, 4, 3, SIZE, SIZE)
    assert batch.video.dtype == batch.control.dtype == batch.confidence.dtype == torch.float32
    assert batch.video.is_contiguous()
    assert batch.control.shape == (4, 2)
    assert batch.number.tolist() == [0, 1, 2, 3]
    assert {
        field.name: len(getattr(batch, field.name)) for field in dataclasses.fields(batch)
    } == dict.fromkeys(("video", "control", "confidence", "track", "fps", "index", "number"), 4)
    assert batch.track.shape == (4, 4, 0)


def test_a_track_comes_frame_by_frame_and_mirrored_as_the_control_is(toys: PackedDataset) -> None:
    batch = next(loader_of(toys, batch_size=11, track="arm"))
    assert batch.track.shape == (11, 4, 2)
    assert torch.equal(batch.track[:, -1], batch.control)
    with pytest.raises(UserError, match="has no track leg, it has arm"):
        next(loader_of(toys, track="leg", augmentation=None))


def test_points_are_mirrored_with_the_picture_control_or_not(toys: PackedDataset) -> None:
    mirrored = Augmentation(mirror=1.0)
    plain, turned = (
        next(loader_of(toys, track="arm", has_points=True, augmentation=a)).track
        for a in (None, mirrored)
    )
    torch.testing.assert_close(turned[..., 0], 1 - plain[..., 0])
    torch.testing.assert_close(turned[..., 1], plain[..., 1])


def test_levels_0_and_255_are_minus_one_and_one(pack: Pack) -> None:
    video = next(loader_of(pack([256], size=16), num_frames=256, augmentation=None)).video
    assert video.min() == -1
    assert video.max() == 1
    assert torch.equal(video[0, :, 1, 0, 0], torch.arange(256) / 127.5 - 1)


def test_a_batch_moves_to_a_device(toys: PackedDataset) -> None:
    moved = next(loader_of(toys)).to("meta")
    assert {getattr(moved, field.name).device.type for field in dataclasses.fields(moved)} == {
        "meta"
    }
    assert next(loader_of(toys, device="meta")).video.device.type == "meta"


def test_windows_hold_the_frames_and_the_control_that_they_claim(pack: Pack) -> None:
    for control in (ARM, WIND):
        dataset = pack(range(5, 16), control=control, is_sure=False)
        sequence = ClipSequence(dataset, num_frames=3, augmentation=Augmentation(strides=(1, 2, 3)))
        for number in range(60):
            clip = sequence.clip(number)
            entry = dataset.manifest.clips[clip.index]
            shown = clip.frames[:, 0, 0, 1].tolist()
            step, first, last = shown[1] - shown[0], shown[0], shown[-1]
            assert (np.diff(shown) == step).all()
            assert f"toy{clip.frames[0, 0, 0, 0]:02}" == entry.clip
            assert (clip.frames[..., 2] == np.arange(SIZE)).all()
            expected = control.of(track_of(entry.frames), first=first, last=last)
            np.testing.assert_array_equal(clip.control, expected)
            assert clip.fps == pytest.approx(FPS / step)
            confidence = confidence_of(entry.frames)[first + 1 : last + 1].mean()
            assert clip.confidence == pytest.approx(confidence)


def test_the_control_is_mirrored_with_the_picture(toys: PackedDataset) -> None:
    mirrored = ClipSequence(toys, num_frames=3, augmentation=Augmentation(mirror=1.0))
    plain = ClipSequence(toys, num_frames=3)
    for number in range(10):
        a, b = mirrored.clip(number), plain.clip(number)
        assert np.array_equal(a.frames, b.frames[:, :, ::-1])
        np.testing.assert_allclose(a.control, [b.control[0], 100 - b.control[1]])


def test_an_exact_control_has_confidence_one_and_none_has_zero(pack: Pack) -> None:
    exact = next(loader_of(pack([6, 7], control=ARM)))
    assert (exact.confidence == 1).all()
    without = next(loader_of(pack([6, 7])))
    assert (without.confidence == 0).all()
    assert without.control.shape == (4, 0)


def test_a_control_with_a_gap_is_zero_and_not_trusted(pack: Pack) -> None:
    batch = next(loader_of(pack([8, 8], control=ARM, gap=7), batch_size=20, augmentation=None))
    last = levels(batch.video)[:, -1, 1, 0, 0]
    assert 0 < int((last == 7).sum()) < 20
    assert torch.equal(batch.confidence, (last < 7).float())
    expected = torch.stack([last, last**2], dim=-1) * (last < 7)[:, None]
    assert torch.equal(batch.control, expected.float())


def test_windows_lie_anywhere_in_their_clip(pack: Pack) -> None:
    sequence = ClipSequence(pack([10]), num_frames=4)
    first = [int(sequence.clip(number).frames[0, 0, 0, 1]) for number in range(350)]
    values, counts = np.unique(first, return_counts=True)
    assert values.tolist() == list(range(7))
    assert counts.min() > 25  # 50 in the mean


def test_a_clip_too_short_for_a_stride_takes_the_largest_that_fits(pack: Pack) -> None:
    sequence = ClipSequence(
        pack([5, 9, 12, 13, 40]), num_frames=5, augmentation=Augmentation(strides=(4,))
    )
    steps = {}
    for number in range(len(sequence)):
        frames = sequence.clip(number).frames[:, 0, 0]
        steps[int(frames[0, 0])] = int(frames[1, 1]) - int(frames[0, 1])
    assert steps == {0: 1, 1: 2, 2: 2, 3: 3, 4: 4}


def test_clips_too_short_for_a_window_are_left_out(toys: PackedDataset) -> None:
    sequence = ClipSequence(toys, num_frames=13)
    assert [toys.manifest.clips[index].frames for index in sequence.indices] == [13, 14, 15]
    assert {sequence.clip(number).index for number in range(9)} == set(sequence.indices.tolist())
    with pytest.raises(UserError, match=r"16 frames.*longest of toys \(train\), toy10, has 15"):
        ClipSequence(toys, num_frames=16)


def test_splits_do_not_mix(pack: Pack) -> None:
    dataset = pack([6] * 5, splits={1: "test", 3: "test"})
    shown = {s: ClipSequence(dataset, split=s, num_frames=2) for s in ("train", "test")}
    for split, numbers in (("train", {0, 2, 4}), ("test", {1, 3})):
        clips = [shown[split].clip(number) for number in range(12)]
        assert {int(clip.frames[0, 0, 0, 0]) for clip in clips} == numbers
    with pytest.raises(UserError, match=r"toys has no clips.*validation, only of train, test"):
        ClipSequence(dataset, split="validation", num_frames=2)


def test_an_epoch_visits_each_clip_once(toys: PackedDataset) -> None:
    sequence = ClipSequence(toys, num_frames=4)
    epochs = [[sequence.clip(11 * e + i).index for i in range(11)] for e in range(4)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = ClipSequence(toys, num_frames=4, seed=1)
    assert [other.clip(i).index for i in range(11)] not in epochs


def test_a_clip_depends_on_seed_and_number_alone(toys: PackedDataset) -> None:
    sequence = ClipSequence(toys, num_frames=4, augmentation=VARIED, seed=2**70)
    copy = pickle.loads(pickle.dumps(sequence))
    for number in (30, 2, 10**12, 2):
        a, b = sequence.clip(number), copy.clip(number)
        assert np.array_equal(a.frames, b.frames)
        assert np.array_equal(a.control, b.control)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_changes_nothing(toys: PackedDataset, num_workers: int) -> None:
    here = take(loader_of(toys), 7)
    there = take(loader_of(toys, num_workers=num_workers), 7)
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_no_two_workers_make_the_same_draw(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one clip of one window, so that only the draws differ; its control tells the process."""
    dataset = pack([4], control=ARM, size=32)
    read = PackedDataset.read

    def signed(self: PackedDataset, index: int, **options: Any) -> PackedClip:
        clip = read(self, index, **options)
        track = np.full_like(clip.tracks["arm"], os.getpid())
        frames = np.full_like(clip.frames, 100)
        return dataclasses.replace(clip, tracks={"arm": track}, frames=frames)

    monkeypatch.setattr(PackedDataset, "read", signed)
    config = Augmentation(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5)
    draws: list[tuple[float, ...]] = []
    draw = Augmentation.draw

    def noted(self: Augmentation, generator: np.random.Generator) -> Any:
        variation = draw(self, generator)
        draws.append((variation.brightness, variation.hue))
        return variation

    loader = loader_of(dataset, num_workers=2, augmentation=config)
    batch = join(take(loader, 12))
    assert len(batch.control[:, 0].unique()) == 2
    assert os.getpid() not in batch.control[:, 0].tolist()
    assert batch.number.tolist() == list(range(48))
    monkeypatch.setattr(Augmentation, "draw", noted)
    again = join(take(loader_of(dataset, augmentation=config), 12))
    assert torch.equal(again.video, batch.video)
    assert len(set(draws)) == 48


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("seen", [0, 1, 4])
def test_a_resumed_loader_goes_on_to_the_bit(
    toys: PackedDataset, num_workers: int, seen: int
) -> None:
    uninterrupted = take(loader_of(toys), seen + 4)
    first = loader_of(toys, num_workers=num_workers)
    take(first, seen)
    state = first.state_dict()
    assert state == {"clips": 4 * seen}
    second = loader_of(toys, num_workers=num_workers)
    next(second)
    second.load_state_dict(state)
    for expected, batch in zip(uninterrupted[seen:], take(second, 4), strict=True):
        assert same(expected, batch)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 50), st.integers(0, 2**80))
def test_ranks_share_the_batches_of_one(
    toys: PackedDataset, num_ranks: int, batch_size: int, clips: int, seed: int
) -> None:
    def of(**options: int) -> ClipLoader:
        loader = loader_of(toys, seed=seed, **options)
        loader.load_state_dict({"clips": clips})
        return loader

    alone = of(batch_size=batch_size * num_ranks)
    ranks = [of(batch_size=batch_size, rank=r, num_ranks=num_ranks) for r in range(num_ranks)]
    for _ in range(3):
        assert same(next(alone), join([next(rank) for rank in ranks]))
    assert {rank.clips for rank in ranks} == {alone.clips}


def test_two_ranks_with_workers_see_what_one_does(toys: PackedDataset) -> None:
    alone = take(loader_of(toys, batch_size=6), 4)
    both = [
        take(loader_of(toys, batch_size=3, rank=rank, num_ranks=2, num_workers=1), 4)
        for rank in range(2)
    ]
    for expected, *parts in zip(alone, *both, strict=True):
        assert same(expected, join(parts))


def test_a_training_resumes_on_another_number_of_ranks(toys: PackedDataset) -> None:
    uninterrupted = join(take(loader_of(toys), 6))
    two = loader_of(toys, batch_size=2, rank=1, num_ranks=2)
    take(two, 3)
    four = loader_of(toys, batch_size=3)
    four.load_state_dict(two.state_dict())
    assert same(
        join(take(four, 4)),
        VideoBatch(
            **{f.name: getattr(uninterrupted, f.name)[12:] for f in dataclasses.fields(VideoBatch)}
        ),
    )


def test_the_global_random_streams_are_left_alone(toys: PackedDataset) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the stream that must be left alone
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    take(loader_of(toys, num_workers=1), 2)
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002


@pytest.mark.parametrize("num_workers", [0, 1])
def test_damaged_data_are_told_in_one_line_and_the_batch_is_not_lost(
    pack: Pack, num_workers: int
) -> None:
    dataset = pack([6] * 4, size=32)
    shard = dataset.folder / dataset.manifest.shards[0].file
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    loader = loader_of(dataset, num_workers=num_workers)
    shard.write_bytes(damaged)
    with pytest.raises(UserError, match=r"^[^\n]*damaged[^\n]*$"):
        next(loader)
    assert loader.state_dict() == {"clips": 0}
    shard.write_bytes(whole)
    assert same(next(loader), next(loader_of(dataset)))
    loader.close()


def test_an_interrupt_is_left_to_the_training(toys: PackedDataset) -> None:
    loader = loader_of(toys, num_workers=1)
    batches = [next(loader)]
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)
    batches += [next(loader) for _ in range(6)]
    assert worker.is_alive()
    assert join(batches).number.tolist() == list(range(28))
    loader.close()
    worker.join(timeout=5)
    assert not worker.is_alive()


def test_workers_end_with_the_last_reference_to_their_loader(toys: PackedDataset) -> None:
    loader = loader_of(toys, num_workers=2)
    next(loader)
    assert len(multiprocessing.active_children()) == 2
    gc.disable()  # a worker forked meanwhile would try, and fail, to end them
    try:
        del loader
        assert not multiprocessing.active_children()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_frames": 1}, "num_frames must be at least 2, got 1"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
        ({"rank": 2, "num_ranks": 2}, "rank must be less than num_ranks, 2, got 2"),
        ({"rank": -1}, "rank must be at least 0"),
        ({"num_ranks": 0}, "num_ranks must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(
    toys: PackedDataset, wrong: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        loader_of(toys, **wrong)


@pytest.mark.parametrize("state", [{}, {"clips": -1}, {"clips": "4"}, {"clips": 1.5}])
def test_a_state_of_something_else_is_refused(toys: PackedDataset, state: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="number of clips"):
        loader_of(toys).load_state_dict(state)


def test_a_control_in_the_picture_cannot_be_cropped(pack: Pack) -> None:
    face = Control(name="face", kind="position", labels=("x", "y"), unit="picture sizes")
    with pytest.raises(UserError, match="face is a position"):
        loader_of(pack([6], control=face), augmentation=PAPER["dtdb"])


def test_frames_come_at_another_size(toys: PackedDataset) -> None:
    assert next(loader_of(toys, size=12, augmentation=PAPER["dtdb"])).video.shape[-2:] == (12, 12)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(Toys([20, 18], size=64), tmp_path / "bair", encoding="raw")
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(loader_module, extraglobs={"Path": Path}).failed == 0
