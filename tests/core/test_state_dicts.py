"""State dicts of other programs: what cannot be read is one line."""

from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.core.state_dicts import read_state_dict


def test_tensors_come_without_the_prefix_of_parallel_training(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"module.x": torch.ones(2)}, "epoch": 3}, path)
    state = read_state_dict(path, kind="weights")
    assert state.keys() == {"x"}
    assert torch.equal(state["x"], torch.ones(2))


@pytest.mark.parametrize("is_archive", [False, True])
@pytest.mark.parametrize(
    "damaged",
    [b"\x80\x02.", b"\x80\x02]R.", b"\x80\x02K\x01Q.", b"\x80\x02h\x00.", b"\x80\x02K\x01.", b"a"],
)
def test_a_damaged_pickle_is_one_line_whatever_it_raises(
    tmp_path: Path, damaged: bytes, *, is_archive: bool
) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "a.pth"
    torch.save({"x": torch.ones(2)}, whole)
    path.write_bytes(damaged)
    if is_archive:
        with ZipFile(whole) as source, ZipFile(path, "w") as target:
            for name in source.namelist():
                is_pickle = name.endswith("data.pkl")
                target.writestr(name, damaged if is_pickle else source.read(name))
    with pytest.raises(UserError, match=r"a\.pth") as caught:
        read_state_dict(path, kind="weights")
    assert "\n" not in str(caught.value)
