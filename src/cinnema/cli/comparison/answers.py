"""Answers in a CSV file: one row each, written to disk before the next pair is shown."""

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import cast

from cinnema.cli.comparison.pairs import Letter, Side, Trial
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path, check_input_file


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A row of the file.

    Attributes:
        time: Time of the answer in UTC, in ISO format.
        pair: Name of the pair.
        left: The set whose video was on the left.
        right: The set whose video was on the right.
        chosen: The set whose video was chosen.
        milliseconds: Time from the start of both videos to the answer.
        file_a: Folder and name of A's video.
        file_b: Folder and name of B's video.
        sha256_a: SHA-256 of A's file.
        sha256_b: SHA-256 of B's file.
        question: The question that was asked.
    """

    time: str
    pair: str
    left: Letter
    right: Letter
    chosen: Letter
    milliseconds: int
    file_a: str
    file_b: str
    sha256_a: str
    sha256_b: str
    question: str


_HEADER = tuple(field.name for field in fields(Answer))
# The columns that the comparison determines, not the answer.
_asked = attrgetter(*(n for n in _HEADER if n not in {"time", "chosen", "milliseconds"}))


@dataclass(frozen=True)
class Share:
    """A share of choices with its 95 % interval.

    Attributes:
        chosen: Number of choices of A.
        total: Number of all choices.
        value: The share, from 0 to 1; NaN without a choice.
        low: Lower end of the exact 95 % interval (Clopper and Pearson).
        high: Upper end.
        p: Two-sided probability of a share at least as far from one half if both are equally
            likely to be chosen.
    """

    chosen: int
    total: int
    value: float
    low: float
    high: float
    p: float


def share_of(chosen: int, total: int) -> Share:
    """Return a share with its exact interval, each choice independent of the others.

    Args:
        chosen: Number of choices of A, from 0 to `total`.
        total: Number of all choices.

    Example:
        >>> share = share_of(8, 10)
        >>> round(share.low, 4), round(share.high, 4), round(share.p, 4)
        (0.4439, 0.9748, 0.1094)
    """
    from scipy.stats import binomtest

    if not total:
        return Share(0, 0, math.nan, 0.0, 1.0, 1.0)
    test = binomtest(chosen, total)
    interval = test.proportion_ci(0.95, method="exact")
    return Share(chosen, total, chosen / total, interval.low, interval.high, test.pvalue)


@dataclass(frozen=True)
class Summary:
    """Statistics of answers.

    Attributes:
        a: Folder of A's videos.
        b: Folder of B's videos.
        share: How often A was chosen.
        left: How often the video on the left was chosen.
    """

    a: str
    b: str
    share: Share
    left: int

    def to_text(self) -> str:
        """Return the summary as two sentences."""
        s = self.share
        if not s.total:
            return "There is no answer yet."
        return (
            f"{self.a} (A) was preferred to {self.b} (B) in {s.chosen} of {s.total} answers: "
            f"{s.value:.1%}, exact 95 % interval {s.low:.1%} to {s.high:.1%}, two-sided p = "
            f"{s.p:.2g} against one half. The left one was chosen in {self.left} of {s.total}."
        )


class AnswerFile:
    """The answers to the trials of one comparison.

    Answers in an existing file count, so that an interrupted comparison can be continued.

    Args:
        path: CSV file; made if it is missing.
        trials: Trials in the order in which they are shown.
        question: The question that is asked.

    Raises:
        UserError: The file belongs to another comparison or is no file of answers, or it cannot be
            read or written.
    """

    def __init__(self, path: Path, trials: Sequence[Trial], *, question: str) -> None:
        self._path, self._trials, self._question = path, tuple(trials), question
        self.answers: list[Answer] = []
        if path.exists():
            self._resume()
        else:
            self._rewrite(overwrite=False)

    @property
    def current(self) -> int | None:
        """Number of the first trial without an answer; None if all are answered."""
        done = {answer.pair for answer in self.answers}
        return next((i for i, t in enumerate(self._trials) if t.pair not in done), None)

    def append(self, side: Side, *, milliseconds: int) -> None:
        """Write the answer to the current trial.

        Args:
            side: The chosen side.
            milliseconds: Time that the answer took.

        Raises:
            UserError: The file cannot be written.
        """
        assert self.current is not None
        trial = self._trials[self.current]
        answer = _answer_to(trial, side, milliseconds=milliseconds, question=self._question)
        self._append_row(_as_csv([astuple(answer)]).encode())
        self.answers.append(answer)

    def undo(self) -> None:
        """Remove the last answer.

        Raises:
            UserError: The file cannot be written.
        """
        self.answers.pop()
        self._rewrite(overwrite=True)

    def summary(self) -> Summary:
        """Return the statistics of the answers so far."""
        return summarise(self.answers)

    def _resume(self) -> None:
        self.answers = read_answers(self._path)
        expected = {
            trial.pair: _asked(_answer_to(trial, "left", milliseconds=0, question=self._question))
            for trial in self._trials
        }
        seen: set[str] = set()
        for row, answer in enumerate(self.answers, 2):
            if answer.pair in seen or _asked(answer) != expected.get(answer.pair):
                raise UserError(
                    f"{self._path} belongs to another comparison (line {row}, pair "
                    f"{answer.pair!r}): name another file with --output, or give the same "
                    "videos, --pairs, --seed and --question"
                )
            seen.add(answer.pair)
        if not self._path.read_bytes().endswith(b"\n"):
            self._rewrite(overwrite=True)  # without the incomplete last row

    def _append_row(self, row: bytes) -> None:
        try:
            # Mode "a" would make a new file without its header if the file had been removed.
            # With a buffer, bytes that did not fit would be written again when the file is closed.
            with self._path.open("r+b", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                try:
                    while row:
                        row = row[file.write(row) :]
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self._path, end)  # half a row would damage the next one
                    raise
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be written ({error.strerror}): free some space or correct "
                "its permissions, then answer again"
            ) from error

    def _rewrite(self, *, overwrite: bool) -> None:
        with atomic_path(self._path, overwrite=overwrite) as partial:
            text = _as_csv([_HEADER, *map(astuple, self.answers)])
            partial.write_text(text, encoding="utf-8", newline="")


def _answer_to(trial: Trial, side: Side, *, milliseconds: int, question: str) -> Answer:
    return Answer(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        pair=trial.pair,
        left=trial.left,
        right=trial.right,
        chosen=trial.letter(side),
        milliseconds=milliseconds,
        file_a=trial.a.name,
        file_b=trial.b.name,
        sha256_a=trial.a.sha256,
        sha256_b=trial.b.sha256,
        question=question,
    )


def read_answers(path: Path) -> list[Answer]:
    """Read a CSV file of answers; an incomplete last row is ignored.

    Args:
        path: Path of the file.

    Raises:
        UserError: The file is missing, or is no file of answers.
    """
    check_input_file(path, kind="a CSV file of answers")
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.reader(io.StringIO(whole), strict=True))
        return [_parsed(row) for row in _below_header(rows)]
    except (ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is no file of answers of `cinnema compare` ({error}): name another file"
        ) from None


def _below_header(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    if not rows or tuple(rows[0]) != _HEADER:
        raise ValueError("its first line is not the header of such a file")
    return rows[1:]


def _parsed(row: Sequence[str]) -> Answer:
    values = dict(zip(_HEADER, row, strict=True))
    letters = {values[name] for name in ("left", "right", "chosen")}
    if letters != {"A", "B"} or values["left"] == values["right"]:
        raise ValueError(f"left, right and chosen are {', '.join(sorted(letters))}")
    return Answer(
        time=values["time"],
        pair=values["pair"],
        left=cast(Letter, values["left"]),
        right=cast(Letter, values["right"]),
        chosen=cast(Letter, values["chosen"]),
        milliseconds=int(values["milliseconds"]),
        file_a=values["file_a"],
        file_b=values["file_b"],
        sha256_a=values["sha256_a"],
        sha256_b=values["sha256_b"],
        question=values["question"],
    )


def summarise(answers: Sequence[Answer]) -> Summary:
    """Return the statistics of answers.

    Args:
        answers: Answers of one comparison.
    """
    chosen = Counter(answer.chosen for answer in answers)
    folders = [
        " and ".join(dict.fromkeys(file.rpartition("/")[0] for file in files)) or "–"
        for files in ([x.file_a for x in answers], [x.file_b for x in answers])
    ]
    return Summary(
        a=folders[0],
        b=folders[1],
        share=share_of(chosen["A"], len(answers)),
        left=sum(answer.chosen == answer.left for answer in answers),
    )


def _as_csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
