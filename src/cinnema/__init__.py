"""cinnema: a photograph moves.

    from cinnema import Pipeline

    pipe = Pipeline.from_pretrained("landscape")
    videos = pipe("photo.jpg", num_samples=4, seed=0)
    videos[0].save("future.mp4")

`Pipeline`, `Video` and the controls are imported at their first use, so that `import cinnema` is
fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cinnema.models.control import Drift, EndPoint
    from cinnema.synthesis.hints import Arrow
    from cinnema.synthesis.pipeline import Pipeline
    from cinnema.synthesis.video import Video

__all__ = ["Arrow", "Drift", "EndPoint", "Pipeline", "Video", "__version__"]
__version__ = "0.1.0"

_MODULES = {
    "Arrow": "cinnema.synthesis.hints",
    "Drift": "cinnema.models.control",
    "EndPoint": "cinnema.models.control",
    "Pipeline": "cinnema.synthesis.pipeline",
    "Video": "cinnema.synthesis.video",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the protocol of PEP 562
    """Import a public class when it is first used."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'cinnema' has no attribute {name!r}")
