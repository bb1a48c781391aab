"""What happens when a visitor does something, without a browser."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinnema.app.desk import Desk
from cinnema.app.sessions import NUM_FUTURES, Session
from cinnema.app.studio import Studio
from cinnema.core.errors import UserError
from cinnema.media.videos import read_video
from visitor import WISH, bytes_of, looks_the_same

Answer = Callable[..., dict[str, Any]]
UNPINNED = (False,) * NUM_FUTURES


@pytest.fixture
def nothing_is_familiar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinnema.synthesis.certainty.FAMILIAR", -1.0)


@pytest.fixture
def dropped(
    desk: Desk, session: Session, answer: Answer, picture_at: Callable[..., Path], tmp_path: Path
) -> dict[str, Any]:
    """The page after a coast of 96x64 pixels was dropped."""
    path = picture_at(tmp_path / "upload.png")
    return answer(desk.drop_picture, session, (str(path), "coast.png"), *WISH)


def sources(values: dict[str, Any]) -> list[str]:
    return [values[f"tile{i}"]["videos"][0]["src"] for i in range(NUM_FUTURES)]


def drawn(width: int, height: int, cells: np.ndarray | None = None, **more: Any) -> dict[str, Any]:
    if cells is not None:
        data = base64.b64encode(cells.astype(np.uint8).tobytes()).decode()
        more["paint"] = {"width": width, "height": height, "data": data}
    return more


def test_a_dropped_picture_has_four_different_futures(dropped: dict[str, Any]) -> None:
    assert len(set(sources(dropped))) == NUM_FUTURES
    assert dropped["status"].startswith("coast.png, 96x64 pixels.")
    labels = [dropped[f"tile{i}"]["videos"][0]["label"] for i in range(NUM_FUTURES)]
    assert labels == ["Future 1", "Future 2", "Future 3", "Future 4"]
    assert "of what the model would draw here" in dropped["tile0"]["videos"][0]["note"]


def test_the_editor_gets_the_picture_and_what_the_model_takes_for_moving(
    dropped: dict[str, Any],
) -> None:
    editor = dropped["editor"]
    assert editor["mode"] == "arrows"
    assert (editor["width"], editor["height"]) == (96, 64)
    assert editor["image"].startswith("data:image/jpeg;base64,")
    guess = np.frombuffer(base64.b64decode(editor["guess"]["data"]), np.uint8)
    guess = guess.reshape(editor["guess"]["height"], editor["guess"]["width"])
    height, width = guess.shape
    assert guess[height // 8, width // 8] > 250  # sky
    assert guess[height // 2, width // 2] < 5  # the rock


def test_the_dice_leave_pinned_futures_alone(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any]
) -> None:
    kept = session.futures[1]
    rolled = answer(desk.roll, session, False, True, False, False, *WISH)
    assert session.futures[1] is kept
    assert "tile1" not in rolled
    assert rolled["tile0"]["videos"][0]["src"] != dropped["tile0"]["videos"][0]["src"]


def test_all_pinned_leaves_nothing_to_roll(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="all four futures are kept"):
        answer(desk.roll, session, True, True, True, True, *WISH)


def test_other_settings_keep_the_seeds(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any]
) -> None:
    calm = answer(desk.redraw, session, *UNPINNED, None, 0.5, 1.0, 0.0, True)
    first, *others = sources(calm)  # the most likely motion, for all seeds
    for other in others:
        assert looks_the_same(bytes_of(other), bytes_of(first), session.folder)
    again = answer(desk.redraw, session, *UNPINNED, *WISH)
    for now, then in zip(sources(again), sources(dropped), strict=True):
        assert looks_the_same(bytes_of(now), bytes_of(then), session.folder)


def test_an_arrow_asks_for_as_much_velocity_as_it_is_long(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any], studio: Studio
) -> None:
    wish = ({"arrows": [[0.1, 0.2, -0.2, 0.0]]}, *WISH[1:])
    answer(desk.steer, session, *wish)
    future = session.shown["steered"]
    video = studio.render(future, side=96)
    (arrow,) = video.settings["arrows"]
    np.testing.assert_allclose(arrow, [9.6, 12.8, -0.2 * 96 / 4, 0])


def test_what_is_painted_as_still_does_not_move(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any], studio: Studio
) -> None:
    cells = np.zeros((64, 96))
    cells[:32] = 1
    answer(desk.steer, session, drawn(96, 64, cells), *WISH[1:])
    video = studio.render(session.shown["steered"], side=96)
    np.testing.assert_array_equal(
        video.frames[:, :30], np.broadcast_to(video.x0, video.frames.shape)[:, :30]
    )
    assert (video.frames[:, 34:] != video.x0[34:]).any()


def test_an_arrow_on_still_ground_is_told_in_the_words_of_the_page(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any]
) -> None:
    told = answer(desk.steer, session, {"arrows": [[0.5, 0.5, 0.1, 0.0]]}, *WISH[1:])
    assert "moves nothing" in told["status"]
    assert "the brush “must move”" in told["status"]
    assert "--move" not in told["status"]


def test_a_video_moves_the_picture_in_step(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any], waves: Path
) -> None:
    answer(desk.drop_video, session, (str(waves), "waves.mp4"))
    moved = answer(desk.transfer, session, 0.0, *WISH)
    query, result = moved["transferred"]["videos"]
    assert (query["label"], result["label"]) == ("waves.mp4", "Your picture")
    lengths = [len(video_of(video["src"], session.folder)) for video in (query, result)]
    assert lengths == [48, 48]  # 2 seconds at 24 a second


def video_of(src: str, folder: Path) -> np.ndarray:
    path = folder / "seen.mp4"
    path.write_bytes(bytes_of(src))
    return read_video(path).frames


def test_the_wind_of_a_video_can_be_turned(
    desk: Desk, session: Session, answer: Answer, waves: Path
) -> None:
    answer(desk.drop_video, session, (str(waves), "waves.mp4"))
    turned = answer(desk.edit, session, 0.0, 180.0, 1.0, *WISH)
    assert "now to 180 degrees" in turned["status"]
    assert len(turned["edited"]["videos"]) == 2


def test_a_video_that_is_too_short_is_named(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any], waves: Path
) -> None:
    answer(desk.drop_video, session, (str(waves), "waves.mp4"))
    with pytest.raises(UserError, match=r"^waves\.mp4 is too short"):
        answer(desk.transfer, session, 2.4, *WISH)


def test_steps_lead_from_one_future_to_another(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any]
) -> None:
    steps = answer(desk.between, session, "Future 1", "Future 3", *WISH)["between"]
    assert steps["choose"] is True
    found = [clip["src"] for clip in steps["videos"]]
    assert len(set(found)) == 5
    tiles = sources(dropped)
    for end, tile in ((found[0], tiles[0]), (found[-1], tiles[2])):
        assert looks_the_same(bytes_of(end), bytes_of(tile), session.folder)


def test_between_needs_two_different_futures(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="choose two different futures"):
        answer(desk.between, session, "Future 1", "Future 1", *WISH)


@pytest.mark.parametrize("format_", ["mp4", "gif", "webp"])
def test_a_future_is_saved_at_the_pictures_size(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any], format_: str
) -> None:
    saved = answer(desk.save, "tile2", session, format_, 16_384.0)
    video, motion, sidecar = map(Path, saved["files"])
    assert read_video(video).frames.shape == (12, 64, 96, 3)
    assert motion.name == "coast_s0_02.nu.safetensors"
    about = json.loads(sidecar.read_text())
    assert (about["seed"], about["sample"], about["settings"]["loop"]) == (0, 2, "seamless")
    assert about["source"]["file"] == "coast.png"


def test_a_future_is_saved_as_a_page_that_plays_it(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any]
) -> None:
    saved = answer(desk.save, "tile0", session, "html", 16_384.0)
    page = Path(saved["files"][0])
    assert page.name == "coast_s0_00.html"
    assert "coast_s0_00.html: a page that plays 96x64 pixels without an end" in saved["status"]
    assert json.loads(Path(saved["files"][2]).read_text())["output"]["num_frames"] == 12
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert 'dataset.state = "playing"' in text


def test_saving_what_is_not_there_or_in_an_odd_format_is_refused(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any]
) -> None:
    for place in ("tile9", "tilex", "transferred", "../tile0"):
        with pytest.raises(UserError, match="there is no video here"):
            answer(desk.save, place, session, "mp4", 64.0)
    with pytest.raises(UserError, match="format: must be one of mp4, gif, webp, html"):
        answer(desk.save, "tile0", session, "npy", 64.0)


@pytest.mark.parametrize("which", [1, 2], ids=["motion", "json"])
def test_a_saved_file_gives_the_same_future_again(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any], which: int
) -> None:
    cells = np.zeros((64, 96))
    cells[:20, :40] = 1
    hints = drawn(96, 64, cells, arrows=[[0.7, 0.2, -0.1, 0.02]])
    wish = (hints, 0.75, 1.3, 0.8, True)
    shown = answer(desk.redraw, session, *UNPINNED, *wish)
    saved = answer(desk.save, "tile1", session, "mp4", 16_384.0)
    answer(desk.redraw, session, *UNPINNED, *WISH)
    file = Path(saved["files"][which])
    again = answer(desk.restore, session, (str(file), file.name))
    found, first = (values["tile0"]["videos"][0]["src"] for values in (again, shown))
    assert looks_the_same(bytes_of(found), bytes_of(sources(shown)[1]), session.folder)
    assert not looks_the_same(bytes_of(found), bytes_of(first), session.folder)
    assert (again["pin0"], again["seconds"], again["speed"]) == (True, 0.75, 1.3)
    assert again["editor"]["hints"]["paint"] is not None


def test_a_transferred_motion_comes_back_from_its_motion_file_and_not_from_the_json(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any], waves: Path
) -> None:
    answer(desk.drop_video, session, (str(waves), "waves.mp4"))
    moved = answer(desk.transfer, session, 0.0, *WISH)
    _, motion, sidecar = map(Path, answer(desk.save, "transferred", session, "mp4", 96.0)["files"])
    assert json.loads(sidecar.read_text())["settings"]["query"]["file"] == "waves.mp4"
    again = answer(desk.restore, session, (str(motion), motion.name))
    found, first = again["tile0"]["videos"][0]["src"], moved["transferred"]["videos"][1]["src"]
    assert looks_the_same(bytes_of(found), bytes_of(first), session.folder)
    with pytest.raises(UserError, match="drop its motion file"):
        answer(desk.restore, session, (str(sidecar), sidecar.name))


@pytest.mark.usefixtures("dropped")
@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"seed": 1}', '{"seed": 1, "settings": {}}', '{"a": ' * 9999,
     '{"seed": 1e999, "sample": 0, "settings": {}, "weights": {"sha256": ""}}',
     '{"seed": 0, "sample": 0, "settings": {"eta": ["a"]}, "weights": {"sha256": ""}}'],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_json_of_something_else_is_refused(
    desk: Desk, session: Session, answer: Answer, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"^other\.json is not a"):
        answer(desk.restore, session, (str(path), "other.json"))


def test_arrows_of_a_large_picture_are_saved_in_its_own_pixels(
    desk: Desk, session: Session, answer: Answer, picture_at: Callable[..., Path], tmp_path: Path
) -> None:
    path = picture_at(tmp_path / "upload.png", width=1000, height=800)  # videos have 500x400
    answer(desk.drop_picture, session, (str(path), "large.png"), *WISH)
    answer(desk.steer, session, {"arrows": [[0.1, 0.1, 0.02, 0.0]]}, *WISH[1:])
    saved = answer(desk.save, "steered", session, "mp4", 100.0)
    (arrow,) = json.loads(Path(saved["files"][2]).read_text())["settings"]["arrows"]
    np.testing.assert_allclose(arrow, [100, 80, 5, 0], atol=1e-9)


def test_a_new_picture_forgets_the_old_one(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any]
) -> None:
    gone = answer(desk.drop_picture, session, None, *WISH)
    assert gone["tile0"] is None
    assert session.picture is None
    with pytest.raises(UserError, match="there is no picture yet"):
        answer(desk.steer, session, *WISH)
    with pytest.raises(UserError, match="there is no video here"):
        answer(desk.save, "tile0", session, "mp4", 64.0)


def test_the_length_is_limited(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="seconds: must be above 0 and at most 4"):
        answer(desk.roll, session, *UNPINNED, None, 60.0, 1.0, 1.0, True)


@pytest.mark.usefixtures("nothing_is_familiar")
def test_a_picture_unlike_the_training_is_told(
    desk: Desk,
    session: Session,
    answer: Answer,
    picture_at: Callable[..., Path],
    tmp_path: Path,
) -> None:
    path = picture_at(tmp_path / "upload.png")
    told = answer(desk.drop_picture, session, (str(path), "coast.png"), *WISH)
    assert "I have not seen such a picture in training" in told["status"]


def test_a_stopped_computation_ends_at_the_next_frame(
    desk: Desk, session: Session, dropped: dict[str, Any]
) -> None:
    class StopError(Exception):
        pass

    frames = []

    def stop_at_three(_: str, done: int, __: int) -> None:
        frames.append(done)
        if len(frames) == 3:
            raise StopError

    with pytest.raises(StopError):
        list(desk.roll(session, *UNPINNED, *WISH, progress=stop_at_three))
    assert frames == [1, 2, 3]


def test_futures_that_were_not_finished_cannot_be_saved(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any]
) -> None:
    running = desk.roll(session, *UNPINNED, *WISH, progress=lambda *_: None)
    next(running)
    running.close()
    assert session.futures[0] is not None
    with pytest.raises(UserError, match="there is no video here"):
        answer(desk.save, "tile3", session, "mp4", 64.0)


def test_the_settings_of_a_wish_reach_the_video(
    desk: Desk, session: Session, answer: Answer, dropped: dict[str, Any], studio: Studio
) -> None:
    future = session.futures[0]
    assert future is not None
    wish = replace(future.wish, seconds=1.0, speed=0.0, loop=False)
    video = studio.render(replace(future, wish=wish), side=48)
    assert video.frames.shape == (24, 32, 48, 3)
    np.testing.assert_array_equal(video.frames, np.broadcast_to(video.x0, video.frames.shape))
