"""`cinnema compare`: blind comparison of two sets of videos by people."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cinnema.cli.console import DONE
from cinnema.cli.ranges import Range, Seed
from cinnema.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Show blind pairs of videos in a browser, and record which ones are chosen.

    The arrow keys choose left or right, the space bar replays, u undoes. Every answer is written to
    the CSV file at once; the same command run again continues. Ctrl-C ends.
    """

    a: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="A")] = None
    """Folder of videos (mp4 with H.264, webp or gif)."""
    b: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="B")] = None
    """Folder of the videos to compare them with. Pairs have the same name or, if no name is in
    both folders, the same position in the order of names."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="CSV")] = Path("results.csv")
    """File of the answers."""
    question: str = "Which looks more real?"
    """The question that is asked."""
    pairs: Annotated[int | None, Range(1, 10**9)] = None
    """Largest number of pairs, chosen at random; by default all."""
    seed: Seed = 0
    """Seed of the order of the pairs, and of which video is on the left."""
    port: Annotated[int, Range(0, 65_535)] = 0
    """Port of the local server; 0 chooses a free one."""
    summary: Annotated[Path | None, tyro.conf.arg(metavar="CSV")] = None
    """Only print a summary of the answers in this file."""

    def run(self) -> int:
        """Serve until Ctrl-C, then print a summary of the answers."""
        from cinnema.cli.comparison.answers import AnswerFile, read_answers, summarise
        from cinnema.cli.comparison.pairs import plan_comparison
        from cinnema.cli.comparison.server import ComparisonServer

        if self.summary is not None:
            print(summarise(read_answers(self.summary)).to_text())
            return DONE
        if self.a is None or self.b is None:
            raise UserError("two folders of videos are needed: cinnema compare A B")
        plan = plan_comparison(self.a, self.b, seed=self.seed, most=self.pairs)
        answers = AnswerFile(self.output, plan.trials, question=self.question)
        for remark in plan.remarks:
            print(f"cinnema: {remark}", file=sys.stderr)
        if answers.answers:
            done = f"{len(answers.answers)} of {len(plan.trials)}"
            print(f"cinnema: answered already: {done}", file=sys.stderr)
        with ComparisonServer(
            plan.trials, answers, question=self.question, port=self.port
        ) as server:
            print(f"Open {server.url} in a browser on this machine; Ctrl-C ends.", flush=True)
            with suppress(KeyboardInterrupt):
                server.serve_forever()
        print(answers.summary().to_text())
        return DONE
