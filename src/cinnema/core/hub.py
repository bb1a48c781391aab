"""Weights on the Hugging Face hub: model.safetensors, and config.json, which holds its hash."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cinnema.core.documents import parse_json
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file, sha256_of

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""Files of a repository; the hub shows the card and counts downloads of the configuration."""


def download_weights(hub_id: str, revision: str | None) -> Path:
    """Return the weights file of a repository, downloaded unless it is in the hub's cache.

    Without a network, what was downloaded before is used. If the repository has a config.json, as
    those of `upload_weights` have, the file has the SHA-256 that is stated there.

    Args:
        hub_id: The repository, "owner/name".
        revision: A commit, tag or branch. Defaults to the newest.

    Returns:
        The file in the cache; the folder that it is in has the name of its commit.

    Raises:
        UserError: The extra `hub` is missing; the repository, revision or file does not exist, or
            cannot be reached and is not in the cache; the file has another hash.
    """
    with _errors(hub_id, "downloaded"):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        expected = None
        with suppress(EntryNotFoundError):
            config = Path(hf_hub_download(hub_id, CONFIG, revision=revision))
            expected = _stated_hash(config)
            revision = config.parent.name  # the same commit, even if another is made meanwhile
        path = Path(hf_hub_download(hub_id, WEIGHTS, revision=revision))
    got = sha256_of(path)
    if expected not in (None, got):
        raise UserError(
            f"{hub_id}: {WEIGHTS} of commit {path.parent.name} has the SHA-256 {got}, and {CONFIG} "
            f"says {expected}: delete {path.resolve()} so that it is downloaded again; if that "
            "does not help, do not use these weights"
        )
    return path


def upload_weights(
    hub_id: str, weights: str | Path, *, card: str, private: bool, token: str | None, message: str
) -> str:
    """Upload weights as one commit to a repository, which is created if it does not exist.

    Args:
        hub_id: The repository, "owner/name".
        weights: The weights file.
        card: The model card, Markdown with its front matter.
        private: Whether a new repository can be seen by its owner only.
        token: Token of an account that may write. Defaults to that of `hf auth login`, or HF_TOKEN.
        message: Message of the commit.

    Returns:
        The commit, 40 hexadecimal digits.

    Raises:
        UserError: The extra `hub` or the file is missing, or the hub refuses.
    """
    from cinnema import __version__

    path = check_input_file(weights, kind="a weights file")
    config = {"model_type": "cinnema", "cinnema": __version__, "sha256": sha256_of(path)}
    with _errors(hub_id, "uploaded"):
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(token=token)
        api.create_repo(hub_id, private=private, exist_ok=True)
        contents: dict[str, Path | bytes] = {
            WEIGHTS: path,
            CONFIG: (json.dumps(config, indent=2) + "\n").encode(),
            CARD: card.encode(),
        }
        files = [CommitOperationAdd(name, content) for name, content in contents.items()]
        return str(api.create_commit(hub_id, files, commit_message=message).oid)


def _stated_hash(config: Path) -> str | None:
    """Return the SHA-256 that config.json states; None if it states none."""
    try:
        values = parse_json(config.read_bytes())
    except ValueError:
        return None
    stated = values.get("sha256") if isinstance(values, dict) else None
    return stated if isinstance(stated, str) else None


@contextmanager
def _errors(hub_id: str, done: str) -> Iterator[None]:
    """Raise what fails in the block as a UserError."""
    try:
        yield
    except ImportError:
        raise UserError(
            f"{hub_id} is a name on the hub, which needs an extra: pip install 'cinnema[hub]', or "
            "name a file"
        ) from None
    except Exception as error:  # of many types: network, access rights, unknown name
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{hub_id} could not be {done} ({reason[0] if reason else 'no reason given'}): check "
            "the name, the revision, your access (hf auth login) and the network, or name a file"
        ) from error
