"""Typed configurations to JSON and back."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Gt
from pydantic.dataclasses import dataclass

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError


@dataclass(frozen=True)
class Optimiser:
    rate: Annotated[float, Gt(0)] = 1e-4
    betas: tuple[float, float] = (0.5, 0.9)


@dataclass(frozen=True)
class Training:
    folder: Path
    kind: Literal["stage1", "stage2"] = "stage1"
    optimiser: Optimiser = Optimiser()
    limit: int | None = None


def test_a_nested_configuration_survives_json() -> None:
    config = Training(folder=Path("runs"), optimiser=Optimiser(rate=0.1, betas=(0.1, 0.2)))
    values = json.loads(json.dumps(config_to_dict(config)))
    assert config_from_dict(Training, values) == config


def test_fields_left_out_take_their_defaults() -> None:
    config = config_from_dict(Training, {"folder": "runs", "optimiser": {"rate": 0.5}})
    assert config == Training(folder=Path("runs"), optimiser=Optimiser(rate=0.5))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"folder": "runs", "size": 3}, "size"),
        ({"folder": "runs", "optimiser": {"rates": 1}}, r"optimiser\.rates"),
        ({"folder": "runs", "optimiser": {"rate": -1}}, r"optimiser\.rate .*-1"),
        ({"folder": "runs", "kind": "stage3"}, "kind.*stage3"),
        ({}, "folder"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=rf"run\.json: {named}") as caught:
        config_from_dict(Training, values, source="run.json")
    assert "\n" not in str(caught.value)
