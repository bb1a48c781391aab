"""cinnema: a photograph moves.

`Pipeline` is imported at its first use, so that `import cinnema` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cinnema.synthesis.pipeline import Pipeline

__all__ = ["Pipeline", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the protocol of PEP 562
    """Import `Pipeline` when it is first asked for."""
    if name == "Pipeline":
        return import_module("cinnema.synthesis.pipeline").Pipeline
    raise AttributeError(f"module 'cinnema' has no attribute {name!r}")
