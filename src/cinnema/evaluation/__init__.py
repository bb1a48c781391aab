"""Evaluation: metrics of a model and of baselines on real clips, with intervals and reports.

`runner` computes a list of metrics over the starts of a `ClipSet` (`protocol`), for the model and
the `baselines`. `metrics` holds the general metrics and those of nature models, `known_truth` those
of tasks, `statistics` intervals and distances, `report` the page. `held_out` validates models while
they are trained.
"""

from typing import Literal, TypeAlias

MetricName: TypeAlias = Literal[
    "kvd",
    "lpips",
    "lpips-alex",
    "pixels",
    "fvd",
    "fid",
    "dtfvd-16",
    "dtfvd-32",
    "div-vgg",
    "div-i3d",
    "div-dti3d-16",
    "div-dti3d-32",
    "motion",
    "control",
    "memory",
    "long-videos",
    "latents",
    "motion-kept",
    "end-point",
    "direction",
    "transfer",
    "edit",
    "swap",
    "futures",
    "kind-motion",
    "still-moving",
]
"""Names of metrics: general ones up to "motion-kept", which are the default, those of tasks up to
"futures", and those of nature."""
