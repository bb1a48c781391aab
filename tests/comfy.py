"""A stand-in for ComfyUI's `comfy_api.latest`: signatures as there, and what its executor checks.

It knows the inputs and outputs that a node of ours may use. Unlike ComfyUI, it refuses what is only
wrong by convention: defaults out of range, and values that no schema names.
"""

import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from torch import Tensor

INPUT = {"id", "display_name", "optional", "tooltip", "lazy", "extra_dict", "raw_link"}
OUTPUT = {"id", "display_name", "tooltip", "is_output_list"}
WIDGET = {"default", "socketless", "force_input"}
NUMBER = WIDGET | {"min", "max", "step", "display_mode"}
OPTIONS = {
    "BOOLEAN": WIDGET | {"label_on", "label_off"},
    "INT": NUMBER | {"control_after_generate"},
    "FLOAT": NUMBER | {"round"},
    "STRING": WIDGET | {"multiline", "placeholder", "dynamic_prompts"},
    "IMAGE": set[str](),
    "MASK": set[str](),
}
TYPES = {
    "BOOLEAN": bool,
    "INT": int,
    "FLOAT": (int, float),
    "STRING": str,
    "IMAGE": Tensor,
    "MASK": Tensor,
}


class Part:
    """An input or output of a node, such as io.Float.Input."""

    kind: str
    names: set[str]

    def __init__(self, id: str | None = None, **options: Any) -> None:  # noqa: A002 - as there
        assert options.keys() <= self.names, options.keys() - self.names
        self.id, self.optional = id, options.get("optional", False)
        self.default, self.low = options.get("default"), options.get("min")
        self.high = options.get("max")
        self.check(self.default)

    def check(self, value: Any) -> None:
        if value is not None:
            assert isinstance(value, TYPES[self.kind]), self.id
            assert self.low is None or self.low <= value, self.id
            assert self.high is None or value <= self.high, self.id


def comfy_type(kind: str) -> SimpleNamespace:
    """Return the namespace of a type, such as io.Float, with Input and Output."""
    sides = {"Input": INPUT | OPTIONS[kind], "Output": OUTPUT}
    parts = {side: type(side, (Part,), {"kind": kind, "names": n}) for side, n in sides.items()}
    return SimpleNamespace(**parts)


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    hidden: list[Any] = field(default_factory=list)
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    not_idempotent: bool = False

    def checked(self) -> "Schema":
        for number, output in enumerate(self.outputs):
            output.id = output.id or f"_{number}_{output.kind}_"
        names = [part.id for part in (*self.inputs, *self.outputs)]
        assert len(set(names)) == len(names), "ids of inputs and outputs are unique"
        return self


class NodeOutput:
    def __init__(self, *args: Any, **options: Any) -> None:
        assert options.keys() <= {"ui", "expand", "block_execution"}
        self.args = args


class ComfyNode:
    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def execute(cls, **inputs: Any) -> NodeOutput:
        raise NotImplementedError


class ComfyExtension:
    async def on_load(self) -> None:
        pass

    async def get_node_list(self) -> list[type[ComfyNode]]:
        raise NotImplementedError


class Comfy:
    """A ComfyUI with one custom node, and what it was told of progress."""

    def __init__(self) -> None:
        self.progress: list[tuple[float, float]] = []
        self.node: type[ComfyNode] = ComfyNode

    def set_progress(self, value: float, max_value: float, **options: Any) -> None:
        assert options.keys() <= {"node_id", "preview_image", "ignore_size_limit"}
        self.progress.append((value, max_value))

    def modules(self) -> dict[str, ModuleType]:
        """Return comfy_api and comfy_api.latest."""
        latest = ModuleType("comfy_api.latest")
        types = {kind.capitalize(): comfy_type(kind) for kind in OPTIONS}
        io = SimpleNamespace(Schema=Schema, NodeOutput=NodeOutput, ComfyNode=ComfyNode, **types)
        execution = SimpleNamespace(set_progress=self.set_progress)
        names = {
            "io": io,
            "ComfyExtension": ComfyExtension,
            "ComfyAPISync": lambda: SimpleNamespace(execution=execution),
        }
        latest.__dict__.update(names)
        return {"comfy_api": ModuleType("comfy_api"), "comfy_api.latest": latest}

    def run(self, **linked: Any) -> tuple[Any, ...]:
        """Execute the node with defaults for what is not linked, as the executor does."""
        schema = self.node.define_schema().checked()
        values = {part.id: part.default for part in schema.inputs if part.default is not None}
        values.update(linked)
        for part in schema.inputs:
            value = values.pop(part.id, None)
            if value is None:
                assert part.optional, f"{part.id} is required"
                continue
            part.check(value)
            linked[part.id] = value
        assert not values, f"no such inputs: {list(values)}"
        result = self.node.execute(**linked).args
        assert len(result) == len(schema.outputs)
        for value, part in zip(result, schema.outputs, strict=True):
            part.check(value)
        return result


@contextmanager
def comfy(folder: Path) -> Iterator[Comfy]:
    """Load a folder as ComfyUI loads custom nodes, and yield a ComfyUI with its only node."""
    served, name = Comfy(), "custom_nodes.loaded"
    modules = served.modules()
    sys.modules.update(modules)
    try:
        spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        extension = asyncio.run(module.comfy_entrypoint())
        assert isinstance(extension, ComfyExtension)
        (served.node,) = asyncio.run(extension.get_node_list())
        yield served
    finally:
        for one in modules:
            del sys.modules[one]
