"""`cinnema compare`: which of two sets of videos do people prefer, when they do not know."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cinnema.cli.console import DONE
from cinnema.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Show blind pairs of videos in a browser, and write down which ones are chosen.

    The arrows choose left or right, the space bar replays, u undoes. Every answer is in the CSV
    file at once; run the same command again to go on. Ctrl-C ends.
    """

    a: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="A")] = None
    """Folder of videos (mp4 with H.264, webp or gif)."""
    b: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="B")] = None
    """Folder of the videos to compare them with: pairs have the same name, or, if no name is in
    both, the same place in the order of names."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="CSV")] = Path("results.csv")
    """File of the answers."""
    question: str = "Which looks more real?"
    """What is asked."""
    pairs: int | None = None
    """Show so many pairs at most, chosen at random; all unless given."""
    seed: int = 0
    """Of the order of pairs, and of which video is on the left."""
    port: int = 0
    """Port on this machine; 0 takes one that is free."""
    summary: Annotated[Path | None, tyro.conf.arg(metavar="CSV")] = None
    """Only print what the answers in this file say."""

    def run(self) -> int:
        """Serve until Ctrl-C, then print what the answers say."""
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
