"""A model on the Hugging Face hub: its weights file with a model card."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from cinnema.core.files import sha256_of
from cinnema.core.hub import WEIGHTS, upload_weights
from cinnema.models.files import LoadedModel, save_model

_FRONT_MATTER = """\
---
library_name: cinnema
pipeline_tag: image-to-video
tags:
- cinnema
- image-to-video
---
"""
_USE = """
## Use

```python
from cinnema import Pipeline

pipe = Pipeline.from_pretrained(
    "{hub_id}",  # or "{hub_id}@commit", which never changes
    sha256="{sha256}",
)
videos = pipe("photo.jpg")
```
"""


def push_model(
    loaded: LoadedModel,
    hub_id: str,
    *,
    card: str | None = None,
    private: bool = True,
    token: str | None = None,
    message: str = "Upload weights",
) -> str:
    """Upload a model to the hub: model.safetensors, config.json with its hash, and the card.

    Args:
        loaded: The model. The file that it was loaded from is uploaded as it is.
        hub_id: The repository, "owner/name"; it is created if it does not exist.
        card: Text of the card, see `model_card`.
        private: Whether a new repository can be seen by its owner only.
        token: Token of an account that may write. Defaults to that of `hf auth login`.
        message: Message of the commit.

    Returns:
        "owner/name@commit".

    Raises:
        UserError: As in `cinnema.core.hub.upload_weights`.
    """
    with TemporaryDirectory() as folder:
        path = loaded.path
        if path is None or sha256_of(path) != loaded.sha256:  # it was overwritten meanwhile
            path = Path(folder, WEIGHTS)
            save_model(path, loaded.model)
        text = model_card(loaded, hub_id, sha256=sha256_of(path), text=card)
        commit = upload_weights(
            hub_id, path, card=text, private=private, token=token, message=message
        )
    return f"{hub_id}@{commit}"


def model_card(loaded: LoadedModel, hub_id: str, *, sha256: str, text: str | None = None) -> str:
    """Return the card of a model on the hub: front matter, text, and how to load it.

    Args:
        loaded: The model.
        hub_id: The repository, "owner/name".
        sha256: SHA-256 of the weights file.
        text: The text, Markdown; front matter of its own is kept instead of ours. Defaults to the
            card beside the weights file, or to a list of what the model is.
    """
    if text is None:
        text = _card_beside(loaded.path) or _description(loaded)
    front = "" if text.startswith("---\n") else _FRONT_MATTER
    return f"{front}{text.rstrip()}\n{_USE.format(hub_id=hub_id, sha256=sha256)}"


def _card_beside(path: Path | None) -> str | None:
    """Return the card beside a weights file, with its links to other files as plain text."""
    if path is None or not path.with_suffix(".md").is_file():
        return None
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    return re.sub(r"\[([^]]*)\]\((?!https?:)[^)]*\)", r"\1", text)


def _description(loaded: LoadedModel) -> str:
    model = loaded.model
    control = "none" if model.control is None else model.control.describe()
    scenes = model.scenes or "photographs"
    return (
        f"# {model.name}\n\nA `{type(model).__name__}` of cinnema: it animates {scenes}, seen at "
        f"{model.size}x{model.size} pixels, {model.num_frames} frames a clip. Control: {control}. "
        "Nobody has written yet what it was trained on, and under which licence it may be used.\n"
    )
