"""The names of the files that are written."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinnema.cli.outputs import all_or_none, distinct_names


@pytest.mark.parametrize(
    ("photos", "names"),
    [
        (["a/sky.jpg", "sea.png"], ["sky", "sea"]),
        (["a/sky.jpg", "b/sky.jpg", "sea.png"], ["a_sky", "b_sky", "sea"]),
        (["a/sky.jpg", "a/sky.png"], ["a_sky_jpg", "a_sky_png"]),
        (["a/Sky.jpg", "b/sky.jpg"], ["a_Sky", "b_sky"]),
        (["x/a/sky.jpg", "y/a/sky.jpg"], ["a_sky_jpg", "a_sky_jpg-2"]),
        (["a/sky.jpg", "b/sky.jpg", "c/a_sky.jpg"], ["a_sky_jpg", "b_sky", "c_a_sky_jpg"]),
    ],
)
def test_names_are_as_short_as_they_can_be(photos: list[str], names: list[str]) -> None:
    assert distinct_names([Path(photo) for photo in photos]) == names


@given(
    st.lists(
        st.builds(
            lambda folder, stem, suffix: Path(f"/{folder}/{stem}.{suffix}"),
            st.sampled_from(["a", "b", "x/a"]),
            st.sampled_from(["sky", "Sky", "a_sky", "a_sky_jpg", "sky-2"]),
            st.sampled_from(["jpg", "png"]),
        ),
        unique=True,
    )
)
def test_no_two_photographs_share_a_name(photos: list[Path]) -> None:
    names = [name.lower() for name in distinct_names(photos)]
    assert len(names) == len(photos) == len(set(names))


@pytest.mark.parametrize("existed", [True, False])
def test_a_block_that_fails_leaves_nothing_of_what_it_wrote(
    tmp_path: Path, *, existed: bool
) -> None:
    out = tmp_path / "out"
    if existed:
        out.mkdir()
    file, folder = out / "file", out / "folder"
    with pytest.raises(KeyboardInterrupt), all_or_none(out) as written:
        folder.mkdir(parents=True)
        file.write_text("x")
        (folder / "0000.png").write_text("x")
        written += [file, folder]
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == ([out] if existed else [])
