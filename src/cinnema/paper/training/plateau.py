"""Halving the rate when a loss stops falling."""

import math
from typing import Any

_MARGIN = 1e-4  # what counts as better, in the loss's own unit, as in the released code


class Plateau:
    """A factor on the learning rate that is halved after epochs without a better mean loss.

    Call `enter` with the epoch before each step and `take` with the loss after it.

    Args:
        patience: Epochs without a better one that are let pass before the next is punished.

    Attributes:
        factor: On the learning rate, 1 at first.

    Example:
        >>> plateau = Plateau(patience=0)
        >>> for epoch, loss in enumerate([3.0, 2.0, 2.0, 2.0]):
        ...     plateau.enter(epoch)
        ...     plateau.take(loss)
        >>> plateau.factor  # the last epoch is not over
        0.5
    """

    def __init__(self, *, patience: int) -> None:
        self.patience = patience
        self.factor = 1.0
        self._epoch, self._sum, self._count = 0, 0.0, 0
        self._best, self._num_stale = math.inf, 0

    def enter(self, epoch: int) -> None:
        """Judge the epoch before, if this one is new.

        Args:
            epoch: Of the next step, from 0.
        """
        if epoch == self._epoch:
            return
        if self._count:
            self._judge(self._sum / self._count)
        self._epoch, self._sum, self._count = epoch, 0.0, 0

    def take(self, loss: float) -> None:
        """Count a step's loss."""
        self._sum += loss
        self._count += 1

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {
            name.removeprefix("_"): value
            for name, value in vars(self).items()
            if name != "patience"
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint."""
        self.factor = state["factor"]
        self._epoch, self._sum, self._count = state["epoch"], state["sum"], state["count"]
        self._best, self._num_stale = state["best"], state["num_stale"]

    def _judge(self, loss: float) -> None:
        if loss < self._best - _MARGIN:
            self._best, self._num_stale = loss, 0
            return
        self._num_stale += 1
        if self._num_stale > self.patience:
            self.factor, self._num_stale = self.factor / 2, 0
