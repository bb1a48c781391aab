"""Weights on the Hugging Face hub, against a stand-in for its server on this machine."""

import json
from pathlib import Path

import pytest
import torch

from bodies import tiny_body
from cinnema.cli.main import main
from cinnema.core.bundled import find_weights
from cinnema.core.errors import UserError
from cinnema.core.files import sha256_of
from cinnema.models.files import LoadedModel, load_model, save_model
from cinnema.synthesis.pipeline import Pipeline
from hub_server import Hub, Repository

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "body.safetensors"
    save_model(path, tiny_body())
    return path


def copy_in_cache(path: Path) -> Path:
    """Return the file of the hub's cache that a path in it is a link to."""
    return path.resolve()


def test_what_is_pushed_is_loaded_by_the_id_that_is_returned(hub: Hub, saved: Path) -> None:
    pipe = Pipeline.from_pretrained(saved)
    pinned = pipe.push_to_hub("somebody/body")
    assert pinned.startswith("somebody/body@")
    assert len(pinned.partition("@")[2]) == 40
    there = Pipeline.from_pretrained(pinned, sha256=pipe.sha256)
    assert there.sha256 == pipe.sha256 == sha256_of(saved)
    for name, tensor in pipe.model.state_dict().items():
        assert torch.equal(there.model.state_dict()[name], tensor)
    assert find_weights(pinned).parent.name == pinned.partition("@")[2]


def test_every_command_takes_a_hub_id(
    hub: Hub, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned = Pipeline.from_pretrained(saved).push_to_hub("somebody/body")
    assert main(["info", pinned]) == 0
    assert sha256_of(saved) in capsys.readouterr().out


def test_an_id_without_a_revision_is_the_newest_and_a_pinned_one_stays(
    hub: Hub, saved: Path, tmp_path: Path
) -> None:
    first = Pipeline.from_pretrained(saved)
    pinned = first.push_to_hub("somebody/body")
    hub.repositories["somebody/body"].refs["v1"] = pinned.partition("@")[2]
    model = tiny_body()
    with torch.no_grad():
        next(model.parameters()).add_(1)
    second = Pipeline(LoadedModel(model))
    second.push_to_hub("somebody/body")
    assert load_model("somebody/body").sha256 not in ("", first.sha256)
    for name in (pinned, "somebody/body@v1"):
        assert load_model(name).sha256 == first.sha256


def test_what_was_downloaded_once_is_loaded_without_a_network(
    hub: Hub, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = Pipeline.from_pretrained(saved).push_to_hub("somebody/body")
    loaded = {name: load_model(name).sha256 for name in (pinned, "somebody/body")}
    before = len(hub.asked)
    assert load_model(pinned).sha256 == loaded[pinned]
    assert len(hub.asked) == before, "a pinned id asks the hub once"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name, sha256 in loaded.items():
        assert load_model(name).sha256 == sha256
    with pytest.raises(UserError, match=r"somebody/other could not be downloaded"):
        load_model("somebody/other")


def test_a_file_of_another_hash_than_stated_is_refused_with_the_way_out(
    hub: Hub, saved: Path
) -> None:
    pinned = Pipeline.from_pretrained(saved).push_to_hub("somebody/body")
    kept = copy_in_cache(find_weights(pinned))
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1  # a bit of the last weight
    kept.write_bytes(content)
    with pytest.raises(UserError, match=rf"SHA-256.*says {sha256_of(saved)}: delete {kept}"):
        load_model(pinned)
    kept.unlink()
    assert load_model(pinned).sha256 == sha256_of(saved)


def test_a_hash_that_is_asked_for_is_checked_for_files_and_names_too(saved: Path) -> None:
    right = sha256_of(saved)
    assert load_model(saved, sha256=right.upper()).sha256 == right
    with pytest.raises(UserError, match=rf"{right}, and {'0' * 64} was asked for"):
        Pipeline.from_pretrained(saved, sha256="0" * 64)


def test_a_repository_of_weights_alone_is_loaded(hub: Hub, saved: Path) -> None:
    repository = Repository(private=False)
    repository.commit({"model.safetensors": saved.read_bytes()})
    hub.repositories["somebody/bare"] = repository
    assert load_model("somebody/bare").sha256 == sha256_of(saved)


@pytest.mark.parametrize("config", [b"{}", b"[1]", b"no json", b'{"sha256": 3}'])
def test_a_configuration_that_states_no_hash_is_not_compared(
    hub: Hub, saved: Path, config: bytes
) -> None:
    repository = Repository(private=False)
    repository.commit({"model.safetensors": saved.read_bytes(), "config.json": config})
    hub.repositories["somebody/odd"] = repository
    assert load_model("somebody/odd").sha256 == sha256_of(saved)


@pytest.mark.parametrize("name", ["somebody/nothing", "somebody/body@v7", "somebody/empty"])
def test_what_the_hub_does_not_have_is_named(hub: Hub, saved: Path, name: str) -> None:
    Pipeline.from_pretrained(saved).push_to_hub("somebody/body")
    empty = hub.repositories["somebody/empty"] = Repository(private=False)
    empty.commit({})
    with pytest.raises(UserError, match=rf"{name.partition('@')[0]} could not be downloaded"):
        load_model(name)


def test_a_new_repository_is_private_unless_told_otherwise(
    hub: Hub, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Pipeline.from_pretrained(saved)
    pipe.push_to_hub("somebody/body")
    pipe.push_to_hub("somebody/open", private=False)
    monkeypatch.delenv("HF_TOKEN")
    assert load_model("somebody/open").sha256 == pipe.sha256
    with pytest.raises(UserError, match=r"somebody/body could not be downloaded.*hf auth login"):
        load_model("somebody/body")
    with pytest.raises(UserError, match=r"somebody/open could not be uploaded.*hf auth login"):
        pipe.push_to_hub("somebody/open", token="of somebody else")


def test_the_card_is_that_beside_the_file_with_how_to_load_it(hub: Hub, saved: Path) -> None:
    saved.with_suffix(".md").write_text("# Bodies\n\nSee [splits](body.json).\n", "utf-8")
    Pipeline.from_pretrained(saved).push_to_hub("somebody/body")
    (commit,) = [c for c in hub.repositories["somebody/body"].commits.values() if len(c) > 1]
    card = commit["README.md"].decode()
    assert card.startswith("---\nlibrary_name: cinnema\npipeline_tag: image-to-video\n")
    assert "# Bodies\n\nSee splits.\n" in card
    assert 'from_pretrained(\n    "somebody/body",' in card
    assert sha256_of(saved) in card
    assert json.loads(commit["config.json"])["sha256"] == sha256_of(saved)


def test_a_card_of_the_user_keeps_its_front_matter(hub: Hub) -> None:
    pipe = Pipeline(tiny_body())
    pipe.push_to_hub("somebody/body", card="---\nlicense: mit\n---\n# Mine\n")
    pipe.push_to_hub("somebody/other")
    mine, other = (
        repository.commits[repository.refs["main"]]["README.md"].decode()
        for repository in hub.repositories.values()
    )
    assert mine.startswith("---\nlicense: mit\n---\n# Mine\n")
    assert "KeypointModel" in other
    assert "under which licence" in other
