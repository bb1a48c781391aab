"""The recipe with adversaries, as the documentation says."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from cinnema.core.errors import UserError
from cinnema.core.overrides import override
from cinnema.recipes import RECIPES, Recipe
from cinnema.training.adversarial import AdversaryPhase, DiscriminatorsConfig

PAGE = (Path(__file__).parents[2] / "docs/guide/train.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Discriminators\n")[2].partition("\n## ")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def landscape() -> Recipe:
    recipe = RECIPES["landscape"]()
    assert recipe.picture.adversaries is None
    return recipe


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The page's configuration."""
    (content,) = blocks("json")
    (tmp_path / "adversaries.json").write_text(content)
    return tmp_path / "adversaries.json"


def test_the_pages_commands_turn_adversaries_on(landscape: Recipe, file: Path) -> None:
    made = []
    for line in blocks("sh")[0].splitlines():
        words = shlex.split(line)
        named = {a: b for a, b in pairwise(words) if a.startswith("--")}
        config = file if "--config" in named else None
        made.append(override(landscape, [named["--set"]], file=config).picture)
    assert made[0].adversaries == DiscriminatorsConfig()
    assert made[0].frames == 1
    assert made[1].frames == 4
    assert made[1].adversaries == DiscriminatorsConfig(
        kind="relativistic",
        phases=(
            AdversaryPhase(module="spatial", learning_rate=2e-4, betas=(0.0, 0.99)),
            AdversaryPhase(module="temporal", interval=2, weight=0.25),
        ),
        gamma=2.0,
        start=4000,
    )


def test_every_field_of_the_pages_table_is_one_and_none_is_missing() -> None:
    named = re.findall(r"^\| `([\w.]+)` \|", SECTION, flags=re.MULTILINE)
    fields = DiscriminatorsConfig.__dataclass_fields__
    assert sorted(named) == sorted(["picture.frames", *fields])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("picture.adversaries.gama=1", r"no field picture\.adversaries\.gama; did you mean"),
        (
            'picture.adversaries.phases=[{"module": "spatial", "rate": 1}]',
            r"picture\.adversaries\.phases\.0\.rate does not fit",
        ),
        (
            'picture.adversaries={"phases": [{"module": "temporal"}]}',
            r"frames must be at least 2 for a temporal adversary",
        ),
        ("motion.adversaries={}", r'adversaries need phase "picture"'),
    ],
)
def test_what_does_not_fit_is_refused(landscape: Recipe, setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        override(landscape, [setting])
