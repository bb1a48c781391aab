"""The numbers of a run for TensorBoard, if it is installed."""

from collections.abc import Mapping
from pathlib import Path

from cinnema.core.errors import UserError


class TensorBoardLog:
    """Event files in the folder of a run; `tensorboard --logdir` shows them.

    Args:
        folder: Of the run.
        clips: Seen so far; what the files hold beyond is no longer shown.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, clips: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--tensorboard needs the package tensorboard, which is not installed: "
                "pip install 'cinnema[tensorboard]', or leave the option out (metrics.jsonl has "
                "the same numbers)"
            ) from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=clips + 1)

    def append(self, numbers: Mapping[str, float], *, clips: int) -> None:
        """Add numbers at a count of clips."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, global_step=clips)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()
