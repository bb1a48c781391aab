"""The library computes what it computed before: to the bit where the machine is the same.

See record.py for what is computed, and for how to record it anew where that is meant to change.
"""

from pathlib import Path

import pytest
import torch

from golden.record import GROUPS, compute
from golden.store import Golden, fingerprint

NEARLY = ("imported",)
"""Groups that are since computed by fewer operations: their last bits differ on all machines."""


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden()


@pytest.mark.parametrize("name", GROUPS)
def test_values_are_as_they_were_recorded(name: str, golden: Golden, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    is_same_machine = fingerprint() == golden.fingerprint
    record = compute(name, tmp_path)
    exactly = is_same_machine and name not in NEARLY
    found = golden.differences(record, exactly=exactly, within=GROUPS[name][1])
    kind = "to the bit" if exactly else "nearly"
    assert not found, f"{len(found)} values are not as recorded ({kind}):\n" + "\n".join(found[:40])
