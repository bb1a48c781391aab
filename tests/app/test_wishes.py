"""What visitors draw becomes arrows and masks of the right size, or is refused."""

import base64

import numpy as np
import pytest

from cinnema.app.wishes import ARROW_SECONDS, Hints, Paint, Wish, read_hints
from cinnema.core.errors import UserError
from cinnema.synthesis.hints import Arrow


def drawn_paint(cells: np.ndarray) -> dict[str, object]:
    data = base64.b64encode(cells.astype(np.uint8).tobytes()).decode()
    return {"width": cells.shape[1], "height": cells.shape[0], "data": data}


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (48, 200), (200, 48), (100, 100)])
def test_arrows_are_shares_of_pictures_of_any_shape(size: tuple[int, int]) -> None:
    hints = read_hints({"arrows": [[0.25, 0.5, 0.1, -0.2]], "paint": None, "point": None})
    (arrow,) = Wish(hints=hints).options(size, seamless=True)["arrows"]
    height, width = size
    expected = (0.25 * width, 0.5 * height, 0.1 * width, -0.2 * height)
    assert isinstance(arrow, Arrow)
    np.testing.assert_allclose(arrow, np.array(expected) / (1, 1, ARROW_SECONDS, ARROW_SECONDS))


def test_paint_becomes_two_masks_of_the_pictures_size() -> None:
    cells = np.zeros((4, 8))
    cells[:2, :4], cells[2:, 4:] = 1, 2
    hints = read_hints({"paint": drawn_paint(cells)})
    options = Wish(hints=hints).options((40, 80), seamless=True)
    still, move = options["keep_still"], options["move"]
    assert isinstance(still, np.ndarray)
    assert isinstance(move, np.ndarray)
    assert still.shape == move.shape == (40, 80)
    assert (still[5, 5], still[35, 75]) == (1, 0)
    assert (move[5, 5], move[35, 75]) == (0, 1)


def test_a_painting_of_one_sort_is_one_mask_and_an_empty_one_none() -> None:
    cells = np.zeros((4, 4))
    assert read_hints({"paint": drawn_paint(cells)}).paint is None
    cells[0] = 1
    options = Wish(hints=read_hints({"paint": drawn_paint(cells)})).options((8, 8), seamless=True)
    assert options["keep_still"] is not None
    assert options["move"] is None


def test_what_is_drawn_survives_being_written_and_read() -> None:
    hints = Hints(((0.1, 0.2, 0.3, 0.4),), Paint(np.eye(3, dtype=np.uint8)), (0.5, 0.6))
    again = read_hints(hints.as_json())
    assert again.arrows == hints.arrows
    assert again.point == hints.point
    assert again.paint is not None
    np.testing.assert_array_equal(again.paint.cells, np.eye(3))


def test_a_loop_is_seamless_where_the_motion_repeats_and_runs_back_where_it_does_not() -> None:
    assert Wish().options((8, 8), seamless=True)["loop"] == "seamless"
    assert Wish().options((8, 8), seamless=False)["loop"] == "pingpong"
    assert "loop" not in Wish(loop=False).options((8, 8), seamless=True)


@pytest.mark.parametrize(
    "drawn",
    [
        7,
        {"arrows": [[1, 2, 3]]},
        {"arrows": [["a", 0, 0, 0]]},
        {"arrows": [[float("nan"), 0, 0, 0]]},
        {"arrows": [[0, 0, 0, 0]] * 101},
        {"arrows": 5},
        {"point": [1]},
        {"paint": "all"},
        {"paint": {"width": 2, "height": 2}},
        {"paint": {"width": 2, "height": 2, "data": "AAA"}},
        {"paint": {"width": 2, "height": 2, "data": "AAAA"}},
        {"paint": {"width": 1, "height": 1, "data": "/w=="}},
        {"paint": {"width": 100_000, "height": 100_000, "data": ""}},
        {"paint": {"width": float("inf"), "height": 2, "data": ""}},
        {"arrows": [[10**400, 0, 0, 0]]},
    ],
)
def test_what_no_editor_would_send_is_refused(drawn: object) -> None:
    with pytest.raises(UserError, match="the drawing cannot be read"):
        read_hints(drawn)
