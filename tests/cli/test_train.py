"""`cinnema train`: fields of recipes as options, cost estimates, and bundling."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import pytest
import torch

from cinnema.cli.field_names import field_options
from cinnema.cli.fields import split_fields, with_fields
from cinnema.cli.parser import parse
from cinnema.cli.train import Bundle, RecipeChoice, TrainStage1, TrainStage2
from cinnema.cli.train_nature import TrainConstants, TrainFlow, TrainKinds
from cinnema.cli.train_paper import TrainPaper
from cinnema.core.config import config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.weights import save_weights
from cinnema.models.files import load_model
from cinnema.paper.recipes import PaperRecipe
from cinnema.recipes import RECIPES
from cinnema.training.finetune import Finetuning
from cinnema.training.nature_recipe import NatureRecipe
from cinnema.training.recipe import KeypointRecipe
from cinnema.training.stage2 import FlowNetworks
from tiny_recipes import write_squares

Run = Callable[..., Any]
PAGE = (Path(__file__).parents[2] / "docs/guide/train.md").read_text(encoding="utf-8")
SMALL = [
    "--stage1.size", 32, "--stage1.num-frames", 4, "--stage1.width", 8, "--stage1.encoder-width", 8,
    "--conditioner.feature-dim", 56,
    "--motion.batch-size", 2, "--picture.batch-size", 1, "--picture.network", "alex",
    "--data.landmarks", "where", "--data.validation-clips", 2, "--device", "cpu",
]  # fmt: skip
PLACES = ["--data", "clips", "--run", "run"]


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("data") / "squares")


def test_options_with_a_dot_are_fields_and_set_is_another_form_of_them() -> None:
    own, fields = split_fields(
        ["stage1", "--motion.clips", "5", "--data", "a.b", "--flow.z-dim=3", "--set",
         "data.excluded=[\"a\", \"b\"]", "-o", "x.y", "--motion.mask", "-.5", "--dry-run"]
    )  # fmt: skip
    assert own == ["stage1", "--data", "a.b", "-o", "x.y", "--dry-run"]
    assert list(fields) == [
        "--motion.clips", "5", "--flow.z-dim=3", "--data.excluded", "a", "b", "--motion.mask", "-.5"
    ]  # fmt: skip


@pytest.mark.parametrize("content", [
    '{"motion": {"clips": 5, "kl": 0.5}, "flow": {"hidden_dim": 32}}',
    "motion: {clips: 5, kl: 0.5}\nflow: {hidden_dim: 32}",
], ids=["json", "yaml"])  # fmt: skip
def test_options_count_more_than_a_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine"
    file.write_text(content)
    options = [*PLACES, "--config", str(file), "--motion.clips", "2000"]
    options += ["--picture.train-encoder", "False"]
    recipe = parse(TrainStage1, options, prog="cinnema train stage1").chosen()
    assert (recipe.motion.clips, recipe.motion.kl, recipe.flow.hidden_dim) == (2000, 0.5, 32)
    assert not recipe.picture.train_encoder
    assert recipe.data == RECIPES["robot"]().data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("motion: {clip: 5}", "there is no field --motion.clip: did you mean --motion.clips?"),
        ("motion: {clips: {of: 5}}", "motion.clips does not fit"),
        ("motion: 5", "motion does not fit"),
        ("1: 2", "there is no field --1: "),
        ("clips: 5", "there is no field --clips: "),
        ("motion: {clips: 2020-13-45}", "is neither JSON nor YAML"),
        ("[" * 9999, "is neither JSON nor YAML (it is nested too deeply)"),
        ("- 5", "must hold an object of fields"),
    ],
)
def test_a_wrong_file_of_fields_is_one_line(
    cinnema: Run, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    (tmp_path / "clips").mkdir()
    places = ["--data", tmp_path / "clips", "--run", tmp_path / "run"]
    result = cinnema("train", "stage1", *places, "--config", tmp_path / "mine.yaml")
    assert (result.code, len(result.err)) == (2, 1)
    assert message in result.err[0]


def test_a_file_can_add_discriminators_and_replaces_lists() -> None:
    values = {
        "picture": {"discriminators": {"kind": "hinge"}},
        "data": {"augmentation": {"strides": [1, 2]}},
    }
    recipe = with_fields(RECIPES["robot"](), values=values)
    assert recipe.picture.discriminators.kind == "hinge"
    assert recipe.picture.moved == 2.0
    assert recipe.data.augmentation.strides == (1, 2)


def options_of(kind: type, prefix: str = "--") -> list[str]:
    """Return what `field_options` should find, from the types themselves."""
    options = []
    for name, hint in get_type_hints(kind).items():
        option = f"{prefix}{name.replace('_', '-')}"
        types = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        inner = [part for part in types if is_dataclass(part)]
        options += [] if len(inner) == len(types) else [option]
        for part in inner:
            options += options_of(part, f"{option}.")
    return options


@pytest.mark.parametrize("kind", [KeypointRecipe, NatureRecipe, PaperRecipe, Finetuning])
def test_the_fields_that_are_known_without_torch_are_those_of_the_class(kind: type) -> None:
    assert sorted(field_options(f"{kind.__module__}:{kind.__name__}")) == sorted(options_of(kind))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--motion.clip", 5], r"no field --motion.clip: did you mean --motion.clips\?"),
        (["--flow.qqqqqqqqqq=5"], "no field --flow.qqqqqqqqqq: use one of --flow.z-dim, --flow."),
        (["--xy.zw", 5], "no field --xy.zw: use one of --data., --stage1., --motion., "),
        (["--picture.discriminators.kind", "hinge"], "no field --picture.discriminators.kind"),
        (["--motion.clips", "many"], "Error parsing --motion.clips"),
        (["--motion.clips", 0], "motion: clips Input should be greater than or equal to 1"),
        (["--flow.z-dim", 32], "flow.z_dim and stage1.z_dim must be equal, got 32 and 64"),
        (["--set", "motion.phase=picture"], "motion.phase must be motion, got picture"),
        (["--set", "motion"], "--set needs name=value"),
        (["--recipe", "robot"], "has no option --recipe any more"),
        (["landscape"], "no recipe 'landscape': use one of person, robot; .*kinds, constants and"),
        (["--data", "nowhere"], "nowhere does not exist"),
    ],
)  # fmt: skip
def test_a_mistake_ends_with_2_and_one_line_and_leaves_no_folder(
    cinnema: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[object],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    result = cinnema("train", "stage1", *PLACES, *options)
    assert (result.code, len(result.err)) == (2, 1)
    assert re.search(message, result.err[0])
    assert list(tmp_path.iterdir()) == [tmp_path / "clips"]


def test_a_dry_run_prints_a_config_and_its_cost_and_refuses_what_the_run_refuses(
    cinnema: Run, squares: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "mine"
    places = ["--data", squares, "--run", run]
    result = cinnema("train", "stage1", *places, *SMALL, "--dry-run", "--stage2.seed", 7)
    assert result.code == 0, result.err
    table = "\n".join(result.err)
    for word in ("Nothing has been trained", "clips/s", "MiB", "parameters of ", "picture"):
        assert word in table
    assert not run.exists()  # the cache of the data is kept beside them
    file = tmp_path / "resolved.json"
    file.write_text("\n".join(result.out))
    options = [*map(str, places), "--config", str(file)]
    recipe = parse(TrainStage2, options, prog="cinnema train stage2").chosen()
    assert (recipe.stage2.seed, recipe.stage1.size) == (7, 32)

    stage2 = cinnema("train", "stage2", *options, "--dry-run", "--device", "cpu")
    assert stage2.code == 2
    assert "stage1.safetensors does not exist" in stage2.err[-1]
    (tmp_path / "file").touch()
    elsewhere = ["--data", squares, "--run", tmp_path / "file" / "run", "--config", file]
    assert cinnema("train", "stage1", *elsewhere, "--dry-run").code == 2


@pytest.mark.parametrize("earlier", [False, True], ids=["present", "earlier"])
def test_bundling_follows_the_recipe_that_the_run_keeps(
    cinnema: Run, tmp_path: Path, earlier: object
) -> None:
    values = config_to_dict(RECIPES["person"]())
    values["flow"]["hidden_dim"] = 48
    recipe = with_fields(RECIPES["person"](), values=values)
    if earlier:  # as versions up to 0.1 wrote it
        values["motion"]["twins"] = values["motion"].pop("symmetric_keypoints")
        values["picture"]["adversaries"] = values["picture"].pop("discriminators")
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    model = recipe.new_model()
    networks = FlowNetworks(model.conditioner, model.flow)
    for name, network in (("stage1", model.stage1), ("stage2", networks)):
        path = tmp_path / f"{name}.safetensors"
        save_weights(path, network.state_dict(), {}, dtype=torch.float32)
    output = tmp_path / "a.safetensors"
    options = ["--run", tmp_path, "--output", output]
    assert cinnema("train", "bundle", *options).code == 0
    assert cinnema("train", "bundle", *options, "--overwrite", "--set", "name=mine").code == 0
    bundled = load_model(output).model
    assert (bundled.config.flow.hidden_dim, bundled.config.name) == (48, "mine")


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "robot", "motion": 3}'])
def test_a_damaged_recipe_is_named_when_it_is_bundled(
    cinnema: Run, tmp_path: Path, text: str
) -> None:
    (tmp_path / "recipe.json").write_text(text)
    result = cinnema("train", "bundle", "--run", tmp_path, "--output", "a.safetensors")
    assert (result.code, len(result.err)) == (2, 1)


def commands_of_the_page() -> list[list[str]]:
    """The arguments of every command of the page that trains."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    lines = [
        line.partition(" > ")[0]
        for block in blocks
        for line in block.replace("\\\n", " ").splitlines()
    ]
    words = [shlex.split(re.sub(r"^(cinnema|torchrun .* -m cinnema) ", "", x)) for x in lines]
    return [command for command in words if command[0] == "train"]


@pytest.mark.parametrize("command", commands_of_the_page(), ids=" ".join)
def test_every_command_of_the_page_on_training_is_accepted(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("overrides.json").write_text('{"motion": {"learning_rate": 5e-4}}')
    Path("discriminators.json").write_text('{"picture": {"discriminators": {"kind": "hinge"}}}')
    kinds: dict[str, type] = {
        "stage1": TrainStage1, "stage2": TrainStage2, "bundle": Bundle, "paper": TrainPaper,
        "kinds": TrainKinds, "constants": TrainConstants, "flow": TrainFlow,
    }  # fmt: skip
    made: Any = parse(kinds[command[1]], command[2:], prog=" ".join(command[:2]))
    if isinstance(made, RecipeChoice):
        assert made.chosen().name in RECIPES


def test_the_page_lists_every_field_of_discriminators_and_its_file_is_valid(
    tmp_path: Path,
) -> None:
    section = PAGE.partition("## Discriminators\n")[2].partition("\n## ")[0]
    (content,) = re.findall(r"^```json\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    recipe = with_fields(RECIPES["robot"](), values=json.loads(content))
    judges = recipe.picture.discriminators
    assert (recipe.picture.moments, [p.module for p in judges.phases]) == (
        4,
        ["spatial", "temporal"],
    )
    named = re.findall(r"^\| `([\w.]+)` \|", section, flags=re.MULTILINE)
    assert sorted(named) == sorted(["picture.moments", *judges.__dataclass_fields__])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"picture": {"discriminators": {"gama": 1}}}, r"picture\.discriminators\.gama"),
        (
            {"picture": {"discriminators": {"phases": [{"module": "spatial", "rate": 1}]}}},
            r"picture\.discriminators\.phases\.0\.rate",
        ),
        (
            {"picture": {"moments": 1, "discriminators": {"phases": [{"module": "temporal"}]}}},
            "moments must be at least 2 for a temporal discriminator",
        ),
    ],
)
def test_discriminators_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_fields(RECIPES["robot"](), values=values)
