"""The recipe of a nature model, and the files of its run folder."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.documents import parse_json
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path, write_json
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import NatureModel, NatureModelConfig
from cinnema.models.nature.motion import KindDynamics
from cinnema.training.dynamics import DynamicsSearch
from cinnema.training.kinds import KindTraining, load_kinds
from cinnema.training.nature import KindFlowTraining

CONSTANTS_FILE = "constants.json"
"""File in the folder of a run with the constants of each kind."""

_UNFINISHED = "constants.unfinished.json"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NatureData:
    """The clips of a nature model.

    Attributes:
        starts: Largest number of starts that are cut from each scene.
        closest: Largest factor by which closer views are enlarged, of which each start gives one
            more clip; 1 makes none.
    """

    starts: int = Field(default=5, ge=1)
    closest: float = Field(default=2.5, ge=1)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NatureRecipe:
    """The full configuration of a nature model and its training.

    Attributes:
        model: Sizes, and the constants that the search begins with.
        data: The clips.
        kinds: Training of the kind network.
        search: Search for the constants.
        flow: Training of the flow.
    """

    model: NatureModelConfig
    search: DynamicsSearch
    data: NatureData = Field(default_factory=NatureData)
    kinds: KindTraining = Field(default_factory=KindTraining)
    flow: KindFlowTraining = Field(default_factory=KindFlowTraining)

    def new_model(self, run: Path) -> NatureModel:
        """Build the model with what the folder of a run holds: kind network, and constants.

        Args:
            run: Folder of the run; without `CONSTANTS_FILE` the recipe's constants are used.

        Raises:
            UserError: The kind network has not been trained, or a file does not fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.flow.seed)
            model = NatureModel(replace(self.model, dynamics=self.read_constants(run)))
        load_kinds(run, model.kinds)
        return model.eval().requires_grad_(requires_grad=False)

    def read_constants(self, run: Path) -> tuple[KindDynamics, ...]:
        """Return the constants of each of `KINDS`: those of the run, or else the recipe's."""
        path = run / CONSTANTS_FILE
        if not path.exists():
            return self.model.dynamics
        try:
            values = parse_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error}); remove it") from error
        if not isinstance(values, dict) or not values.keys() <= set(KINDS):
            raise UserError(f"{path} must hold constants of {', '.join(KINDS)}: remove it")
        return tuple(
            config_from_dict(KindDynamics, values[kind], source=str(path))
            if kind in values
            else own
            for kind, own in zip(KINDS, self.model.dynamics, strict=True)
        )


def save_constants(run: Path, dynamics: tuple[KindDynamics, ...]) -> Path:
    """Write the constants of each kind into the folder of a run; return the file."""
    values = {kind: config_to_dict(own) for kind, own in zip(KINDS, dynamics, strict=True)}
    run.mkdir(parents=True, exist_ok=True)
    with atomic_path(run / CONSTANTS_FILE, overwrite=True) as part:
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return run / CONSTANTS_FILE


class UnfinishedConstants:
    """The constants that a search has found so far, kept in the folder of a run until it is done.

    Args:
        run: Folder of the run.
        about: What determines the search, as JSON values; what another search found is forgotten.

    Attributes:
        found: Constants by the names of the kinds.
    """

    def __init__(self, run: Path, about: dict[str, Any]) -> None:
        self._path = run / _UNFINISHED
        self._about = json.loads(json.dumps(about))
        self.found: dict[str, KindDynamics] = {}
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            values = parse_json(self._path.read_text(encoding="utf-8"))
            if values["about"] == self._about:
                self.found = {
                    kind: config_from_dict(KindDynamics, own, source=str(self._path))
                    for kind, own in values["found"].items()
                }

    def add(self, kind: str, dynamics: KindDynamics) -> None:
        """Keep the constants of one more kind."""
        self.found[kind] = dynamics
        found = {name: config_to_dict(own) for name, own in self.found.items()}
        write_json(self._path, {"about": self._about, "found": found}, overwrite=True)

    def forget(self) -> None:
        """Remove the file, as the search is done."""
        self._path.unlink(missing_ok=True)
