"""The fields of a recipe as options, read from the source of its class without importing torch."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cinnema


def field_options(recipe: str) -> list[str]:
    """Return the options of all fields, with those of the configurations inside.

    A field that is a configuration or None is listed both by itself and with its fields.

    Args:
        recipe: Module and name of a frozen dataclass, as "cinnema.training.recipe:KeypointRecipe".

    Example:
        >>> field_options("cinnema.training.recipe:KeypointRecipe")[:2]
        ['--name', '--data.landmarks']
    """
    module, _, name = recipe.partition(":")
    return list(dict.fromkeys(f"--{option}" for option in _options(module, name)))


def _options(module: str, name: str) -> Iterator[str]:
    """Yield the names of the fields of a class and its bases, in the form of options."""
    owner, definition = _class(module, name)
    for base in definition.bases:
        if isinstance(base, ast.Name) and _find(owner, base.id) is not None:
            yield from _options(owner, base.id)
    for field in definition.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        option = field.target.id.replace("_", "-")
        types = [part.id for part in _alternatives(field.annotation) if isinstance(part, ast.Name)]
        inner = [kind for kind in types if _is_config(owner, kind)]
        if len(inner) < len(_alternatives(field.annotation)):
            yield option
        for kind in inner:
            yield from (f"{option}.{below}" for below in _options(owner, kind))


def _alternatives(annotation: ast.expr) -> list[ast.expr]:
    """Split `A | B` into its parts."""
    if isinstance(annotation, ast.BinOp):
        return _alternatives(annotation.left) + _alternatives(annotation.right)
    return [annotation]


def _is_config(module: str, name: str) -> bool:
    found = _find(module, name)
    return found is not None and bool(found[1].decorator_list)  # pydantic's dataclass, renamed


def _class(module: str, name: str) -> tuple[str, ast.ClassDef]:
    found = _find(module, name)
    assert found is not None, f"{module} has no class {name}"
    return found


@cache
def _find(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """Return a class of cinnema and the module that defines it, following imports."""
    for node in _parsed(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            source = node.module or ""
            return _find(source, name) if source.startswith("cinnema.") else None
    return None


@cache
def _parsed(module: str) -> ast.Module:
    file = Path(cinnema.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))
