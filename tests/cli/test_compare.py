"""`cinnema compare`: pairs, answers, their statistics, and the server."""

import csv
import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cinnema.cli.comparison.answers import AnswerFile, read_answers, share_of, summarise
from cinnema.cli.comparison.pairs import plan_comparison
from cinnema.cli.comparison.server import ComparisonServer
from cinnema.core.errors import UserError
from cinnema.media.videos import write_video

Run = Callable[..., Any]
QUESTION = "Which is more real?"


def fill(folder: Path, names: list[str], *, shade: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        frames = np.full((2, 16, 16, 3), 8 * i + shade, np.uint8)
        write_video(folder / name, frames, fps=8)
    return folder


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return fill(tmp_path / "ours", [f"clip{i}.gif" for i in range(4)])


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return fill(tmp_path / "theirs", [f"clip{i}.gif" for i in range(4)], shade=100)


@pytest.fixture
def answers(a: Path, b: Path, tmp_path: Path) -> AnswerFile:
    return AnswerFile(tmp_path / "r.csv", plan_comparison(a, b).trials, question=QUESTION)


class Client:
    """A client of the server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str = "", **headers: str) -> tuple[int, Any, Any]:
        return self._open(urllib.request.Request(self.url + path, headers=headers))

    def post(self, path: str, values: object, **headers: str) -> tuple[int, Any, Any]:
        kinds = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        content = values if isinstance(values, bytes) else json.dumps(values).encode()
        return self._open(urllib.request.Request(self.url + path, content, kinds))

    def _open(self, request: urllib.request.Request) -> tuple[int, Any, Any]:
        try:
            response = urllib.request.urlopen(request, timeout=10)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            content = response.read()
            is_json = response.headers["Content-Type"] == "application/json"
            return response.status, json.loads(content) if is_json else content, response.headers


@pytest.fixture
def client(a: Path, b: Path, answers: AnswerFile) -> Iterator[Client]:
    trials = plan_comparison(a, b).trials
    with ComparisonServer(trials, answers, question=QUESTION) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Client(server.url)
        server.shutdown()
        thread.join()


# The interval


@pytest.mark.parametrize(
    ("chosen", "total", "low", "high", "p"),
    [
        (0, 0, 0.0, 1.0, 1.0), (0, 1, 0.0, 0.975, 1.0), (3, 7, 0.098988, 0.815948, 1.0),
        (8, 10, 0.443905, 0.974789, 0.109375), (20, 20, 0.831567, 1.0, 1.9073486e-6),
        (260, 500, 0.475202, 0.564561, 0.395511),
    ],
)  # fmt: skip
def test_a_share_has_the_exact_interval(
    chosen: int, total: int, low: float, high: float, p: float
) -> None:
    share = share_of(chosen, total)
    assert (share.chosen, share.total) == (chosen, total)
    assert np.isnan(share.value) if not total else share.value == chosen / total
    assert (share.low, share.high) == pytest.approx((low, high), abs=1e-6)
    assert share.p == pytest.approx(p, rel=1e-5)


# Pairs


def test_videos_of_one_name_are_a_pair_whatever_their_format(tmp_path: Path) -> None:
    a = fill(tmp_path / "a", ["x.gif", "y.gif", "z.gif"])
    b = fill(tmp_path / "b", ["y.webp", "z.gif"], shade=9)
    plan = plan_comparison(a, b)
    assert {t.pair: (t.a.path.name, t.b.path.name) for t in plan.trials} == {
        "y": ("y.gif", "y.webp"), "z": ("z.gif", "z.gif"),
    }  # fmt: skip
    remarks = "; ".join(plan.remarks)
    assert "pairs by file name: 2" in remarks
    assert "in one folder only, and left out: 1" in remarks
    assert "viewers may recognise the format" in remarks


def test_videos_of_other_names_are_paired_in_natural_order(tmp_path: Path) -> None:
    a = fill(tmp_path / "a", ["a2.gif", "a10.gif"])
    b = fill(tmp_path / "b", ["b9.gif", "b11.gif"], shade=9)
    plan = plan_comparison(a, b)
    assert {t.pair for t in plan.trials} == {"a2 | b9", "a10 | b11"}
    assert "by order" in plan.remarks[0]


def test_the_seed_determines_order_and_sides_and_fewer_pairs_are_the_first(
    tmp_path: Path,
) -> None:
    names = [f"{i}.gif" for i in range(12)]
    a, b = fill(tmp_path / "a", names), fill(tmp_path / "b", names, shade=100)
    trials = plan_comparison(a, b, seed=3).trials
    assert trials == plan_comparison(a, b, seed=3).trials
    assert trials[:5] == plan_comparison(a, b, seed=3, most=5).trials
    assert [t.pair for t in trials] != [t.pair for t in plan_comparison(a, b, seed=4).trials]
    assert [t.left for t in trials].count("A") == 6
    assert [t.left for t in trials] != sorted(t.left for t in trials)
    assert all({t.left, t.right} == {"A", "B"} for t in trials)


def test_grids_and_other_files_are_left_out(tmp_path: Path) -> None:
    names = ["sky_s0_00.gif", "sky_s0_grid.gif"]
    a, b = fill(tmp_path / "a", names), fill(tmp_path / "b", names, shade=9)
    (a / "sky_s0_00.json").write_text("{}")
    (a / ".hidden.mp4").write_text("")
    assert [t.pair for t in plan_comparison(a, b).trials] == ["sky_s0_00"]


def test_folders_of_one_name_get_the_names_of_their_parents(tmp_path: Path) -> None:
    a = fill(tmp_path / "ours" / "videos", ["x.gif"])
    b = fill(tmp_path / "theirs" / "videos", ["x.gif"], shade=9)
    (trial,) = plan_comparison(a, b).trials
    assert (trial.a.name, trial.b.name) == ("ours/videos/x.gif", "theirs/videos/x.gif")


def test_equal_files_are_reported(a: Path, tmp_path: Path) -> None:
    same = fill(tmp_path / "same", [f"clip{i}.gif" for i in range(4)])
    assert any("two equal files" in r and "4" in r for r in plan_comparison(a, same).remarks)


def test_folders_that_make_no_pairs_are_errors(a: Path, tmp_path: Path) -> None:
    def error_of(b: Path, **options: Any) -> str:
        with pytest.raises(UserError) as error:
            plan_comparison(a, b, **options)
        return str(error.value)

    assert "cannot be read" in error_of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no video" in error_of(tmp_path / "empty")
    assert "same folder" in error_of(a / ".." / a.name)
    assert "cannot be paired by order" in error_of(fill(tmp_path / "few", ["other.gif"]))
    assert "--pairs must be at least 1" in error_of(fill(tmp_path / "b", ["clip0.gif"]), most=0)
    twice = fill(tmp_path / "twice", ["clip0.gif", "clip0.webp"])
    assert "the same name" in error_of(twice)
    foreign = fill(tmp_path / "foreign", ["clip0.gif"])
    (foreign / "clip1.avi").write_bytes(b"RIFF")
    assert "not all browsers play .avi" in error_of(foreign)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "clip0.mp4").write_bytes(b"no video at all")
    assert "is not a video that can be read" in error_of(broken)


def test_an_mp4_must_be_h264(a: Path, tmp_path: Path) -> None:
    fill(tmp_path / "b", ["clip0.mp4"], shade=50)
    assert len(plan_comparison(a, tmp_path / "b").trials) == 1
    with av.open(str(tmp_path / "b" / "clip0.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="is encoded as mpeg4"):
        plan_comparison(a, tmp_path / "b")


# Answers


def test_an_answer_is_a_row_at_once(answers: AnswerFile, tmp_path: Path) -> None:
    trial = plan_comparison(tmp_path / "ours", tmp_path / "theirs").trials[0]
    answers.append("left", milliseconds=1234)
    with (tmp_path / "r.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert list(row)[:6] == ["time", "pair", "left", "right", "chosen", "milliseconds"]
    assert (row["pair"], row["milliseconds"]) == (trial.pair, "1234")
    assert row["chosen"] == row["left"] == trial.left != row["right"]
    assert row["file_a"] == f"ours/{trial.pair}.gif"
    assert row["file_b"] == f"theirs/{trial.pair}.gif"
    assert row["question"] == QUESTION


def test_a_comparison_is_continued(answers: AnswerFile, a: Path, b: Path) -> None:
    path, trials = a.parent / "r.csv", plan_comparison(a, b).trials
    answers.append("left", milliseconds=1)
    answers.append("right", milliseconds=2)
    again = AnswerFile(path, trials, question=QUESTION)
    assert again.answers == answers.answers
    assert again.current == 2
    again.append("left", milliseconds=3)
    again.append("left", milliseconds=4)
    assert again.current is None
    assert len(read_answers(path)) == 4


def test_a_comparison_is_continued_with_more_pairs(a: Path, b: Path, tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    few = AnswerFile(path, plan_comparison(a, b, most=2).trials, question=QUESTION)
    few.append("left", milliseconds=1)
    few.append("left", milliseconds=1)
    assert few.current is None
    assert AnswerFile(path, plan_comparison(a, b).trials, question=QUESTION).current == 2


def test_undo_takes_the_last_row_out_of_the_file(answers: AnswerFile, tmp_path: Path) -> None:
    for milliseconds in (1, 2):
        answers.append("left", milliseconds=milliseconds)
    answers.undo()
    assert [x.milliseconds for x in read_answers(tmp_path / "r.csv")] == [1]
    assert answers.current == 1


def test_an_incomplete_last_row_is_asked_again(
    answers: AnswerFile, a: Path, b: Path, tmp_path: Path
) -> None:
    answers.append("left", milliseconds=1)
    answers.append("left", milliseconds=2)
    path = tmp_path / "r.csv"
    path.write_bytes(path.read_bytes()[:-30])
    again = AnswerFile(path, plan_comparison(a, b).trials, question=QUESTION)
    assert again.current == 1
    again.append("right", milliseconds=3)
    assert [x.milliseconds for x in read_answers(path)] == [1, 3]


@pytest.mark.parametrize("change", ["seed", "question", "content"])
def test_answers_to_other_trials_are_refused(
    answers: AnswerFile, a: Path, b: Path, tmp_path: Path, change: str
) -> None:
    for _ in range(4):
        answers.append("left", milliseconds=1)
    seed, question = (1, QUESTION) if change == "seed" else (0, QUESTION)
    if change == "question":
        question = "Which is sharper?"
    if change == "content":
        (a / "clip2.gif").write_bytes((b / "clip1.gif").read_bytes())
    trials = plan_comparison(a, b, seed=seed).trials
    with pytest.raises(UserError, match="belongs to another comparison"):
        AnswerFile(tmp_path / "r.csv", trials, question=question)
    assert len(read_answers(tmp_path / "r.csv")) == 4


def test_a_file_of_anything_else_is_refused_and_kept(a: Path, b: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    trials = plan_comparison(a, b).trials
    for text in ("name,age\nx,3\n", "\n", "no newline"):
        path.write_text(text)
        with pytest.raises(UserError, match="is no file of answers"):
            AnswerFile(path, trials, question=QUESTION)
        assert path.read_text() == text


def test_a_damaged_row_is_an_error(answers: AnswerFile, tmp_path: Path) -> None:
    answers.append("left", milliseconds=1)
    path = tmp_path / "r.csv"
    whole = path.read_text()
    same = re.sub(r",[AB],[AB],[AB],", ",A,A,B,", whole)
    for damaged in (whole.replace(",1,", ",soon,"), whole + "a,b\n", same):
        path.write_text(damaged)
        with pytest.raises(UserError, match="is no file of answers"):
            read_answers(path)


def test_a_full_disk_loses_no_answer_and_leaves_no_half_row(
    answers: AnswerFile, tmp_path: Path, small_disk: Callable[[int], Any]
) -> None:
    path = tmp_path / "r.csv"
    answers.append("left", milliseconds=1)
    with small_disk(path.stat().st_size + 20), pytest.raises(UserError, match="cannot be written"):
        answers.append("left", milliseconds=2)
    assert answers.current == 1
    answers.append("right", milliseconds=3)
    assert [x.milliseconds for x in read_answers(path)] == [1, 3]


def test_a_removed_file_is_an_error(answers: AnswerFile, tmp_path: Path) -> None:
    (tmp_path / "r.csv").unlink()
    with pytest.raises(UserError, match="cannot be written"):
        answers.append("left", milliseconds=1)
    assert not (tmp_path / "r.csv").exists()


def test_a_summary_counts_letters_and_sides(answers: AnswerFile, tmp_path: Path) -> None:
    trials = plan_comparison(tmp_path / "ours", tmp_path / "theirs").trials
    assert answers.summary().to_text() == "There is no answer yet."
    for trial in trials:  # always A
        answers.append("left" if trial.left == "A" else "right", milliseconds=1)
    summary = summarise(read_answers(tmp_path / "r.csv"))
    assert (summary.a, summary.b) == ("ours", "theirs")
    assert (summary.share.chosen, summary.share.total, summary.left) == (4, 4, 2)
    assert summary.to_text().startswith(
        "ours (A) was preferred to theirs (B) in 4 of 4 answers: 100.0%, exact 95 % interval "
        "39.8% to 100.0%, two-sided p = 0.12"
    )


# The server


def test_all_pairs_are_answered_and_the_share_shown(
    client: Client, a: Path, b: Path, tmp_path: Path
) -> None:
    trials = plan_comparison(a, b).trials
    _, state, _ = client.get("state")
    assert state == {"question": QUESTION, "total": 4, "answered": 0, "trial": 0}
    for i, trial in enumerate(trials):
        side = "left" if trial.left == "A" else "right"
        answer = {"trial": i, "chosen": side, "milliseconds": 100 + i}
        status, state, _ = client.post("answer", answer)
        assert (status, state["answered"]) == (200, i + 1)
    assert state["trial"] is None
    assert state["summary"]["chosen"] == state["summary"]["total"] == 4
    assert state["summary"]["value"] == 1
    assert state["summary"]["low"] == pytest.approx(share_of(4, 4).low)
    assert [x.chosen for x in read_answers(tmp_path / "r.csv")] == ["A"] * 4


def test_addresses_and_headers_do_not_reveal_the_set(client: Client, a: Path, b: Path) -> None:
    for i, trial in enumerate(plan_comparison(a, b).trials):
        for side in ("left", "right"):
            status, content, headers = client.get(f"video/{i}/{side}")
            assert status == 200
            assert headers["Content-Type"] == "image/gif"
            assert content == trial.clip(side).path.read_bytes()
            for word in ("ours", "theirs", "clip", "Last-Modified", "ETag"):
                assert word not in str(headers)
    _, page, _ = client.get()
    _, state, _ = client.get("state")
    for word in ("ours", "theirs", "clip0"):
        assert word not in page.decode() + json.dumps(state)


def test_the_page_loads_nothing_from_elsewhere(client: Client) -> None:
    status, page, headers = client.get()
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert not re.search(r"https?:|src=|@import|<link", page.decode())


def test_an_answer_counts_once_and_only_to_the_current_pair(client: Client) -> None:
    answer = {"trial": 0, "chosen": "left", "milliseconds": 5}
    assert client.post("answer", answer)[0] == 200
    assert client.post("answer", answer)[0] == 409
    assert client.post("answer", answer | {"trial": 2})[0] == 409
    assert client.get("state")[1]["answered"] == 1


def test_undo_goes_back_one_pair(client: Client) -> None:
    assert client.post("undo", {})[0] == 409
    client.post("answer", {"trial": 0, "chosen": "left", "milliseconds": 5})
    status, state, _ = client.post("undo", {})
    assert (status, state["trial"], state["answered"]) == (200, 0, 0)


@pytest.mark.parametrize(
    ("values", "headers"),
    [
        (b"no json", {}), ([1], {}), ({"trial": 0, "chosen": "middle", "milliseconds": 1}, {}),
        ({"trial": "0", "chosen": "left", "milliseconds": 1}, {}), ({}, {}),
        ({"trial": 0, "chosen": "left", "milliseconds": 1}, {"Content_Type": "text/plain"}),
        (b" " * 2000, {}),
    ],
)  # fmt: skip
def test_invalid_answers_are_refused(
    client: Client, values: object, headers: dict[str, str]
) -> None:
    assert client.post("answer", values, **headers)[0] == 400
    assert client.get("state")[1]["answered"] == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("video/9/left", 404),
        ("video/0/up", 400),
        ("video/-1/left", 404),
        ("../pyproject.toml", 404),
    ],
)
def test_other_addresses_lead_nowhere(client: Client, path: str, status: int) -> None:
    assert client.get(path)[0] == status
    assert client.post("elsewhere", {})[0] == 404


def test_pages_of_other_sites_are_refused(client: Client) -> None:
    assert client.get("state", Host="evil.example")[0] == 403
    assert client.post("undo", {}, Host="evil.example")[0] == 403


def test_a_full_disk_is_reported_in_the_page(
    client: Client, tmp_path: Path, small_disk: Callable[[int], Any]
) -> None:
    with small_disk((tmp_path / "r.csv").stat().st_size):
        status, received, _ = client.post(
            "answer", {"trial": 0, "chosen": "left", "milliseconds": 5}
        )
    assert status == 500
    assert "cannot be written" in received["error"]


def test_a_port_in_use_is_an_error(answers: AnswerFile, a: Path, b: Path) -> None:
    trials = plan_comparison(a, b).trials
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be used"):
            ComparisonServer(trials, answers, question=QUESTION, port=port)
    with pytest.raises(UserError, match="port 70000 cannot be used"):
        ComparisonServer(trials, answers, question=QUESTION, port=70000)


# The command


def test_the_command_serves_until_it_is_interrupted(
    cinnema: Run, a: Path, b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def serve(server: ComparisonServer) -> None:
        seen.update(server.state())
        server.answer(0, "left", milliseconds=7)
        raise KeyboardInterrupt

    monkeypatch.setattr(ComparisonServer, "serve_forever", serve)
    path = tmp_path / "out" / "answers.csv"
    result = cinnema("compare", a, b, "-o", path, "--pairs", 3, "--question", "Sharper?")
    assert result.code == 0
    assert (seen["total"], seen["question"]) == (3, "Sharper?")
    assert re.fullmatch(r"Open http://127\.0\.0\.1:\d+/ in a browser .*", result.out[0])
    assert "in 1 answers" in result.out[1] or "of 1 answers" in result.out[1]
    assert result.err == ["cinnema: pairs by file name: 4"]
    monkeypatch.setattr(ComparisonServer, "serve_forever", ComparisonServer.state)
    result = cinnema("compare", a, b, "-o", path, "--question", "Sharper?")
    assert "cinnema: answered already: 1 of 4" in result.err


def test_a_summary_needs_no_videos(cinnema: Run, answers: AnswerFile, tmp_path: Path) -> None:
    answers.append("left", milliseconds=3)
    result = cinnema("compare", "--summary", tmp_path / "r.csv")
    assert result.code == 0
    assert result.out == [answers.summary().to_text()]
    missing = cinnema("compare", "--summary", tmp_path / "none.csv")
    assert missing.code == 2
    assert "does not exist" in missing.err[0]


def test_one_folder_is_no_comparison(cinnema: Run, a: Path) -> None:
    result = cinnema("compare", a)
    assert result.code == 2
    assert "two folders of videos are needed" in result.err[0]
