"""Clips to look at: the best, the median and the worst, as several contestants continue them."""

from collections.abc import Sequence

import numpy as np

from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.baselines import Baseline
from cinnema.evaluation.protocols import Start, read_clip
from cinnema.evaluation.results import Example


def exhibits_of(
    ranking: Sequence[tuple[str, float]],
    starts: Sequence[Start],
    contestants: Sequence[Baseline],
    dataset: PackedDataset,
    *,
    num_frames: int,
    measure: str,
) -> list[Example]:
    """Draw the best, the median and the worst clip again.

    Args:
        ranking: Keys of starts and their scores, the best first.
        starts: All of them.
        contestants: Who is shown.
        dataset: That the clips are of.
        num_frames: T.
        measure: What the score is called.
    """
    if not ranking:
        return []
    start_of = {start.key: start for start in starts}
    places = {"best": 0, "median": (len(ranking) - 1) // 2, "worst": len(ranking) - 1}
    exhibits = []
    for title, place in places.items():
        key, score = ranking[place]
        clip = read_clip(dataset, start_of[key], num_frames=num_frames)
        videos = {"real": clip.frames} | {
            c.name: np.concatenate([clip.frames[:1], c.follow([clip])[0]]) for c in contestants
        }
        start = start_of[key]
        fps = dataset.manifest.clips[start.position].fps / start.stride
        exhibits.append(
            Example(
                title=f"{title} by {measure}",
                key=key,
                videos=videos,
                score=score,
                fps=float(min(max(fps, 4.0), 12.0)),
            )
        )
    return exhibits
