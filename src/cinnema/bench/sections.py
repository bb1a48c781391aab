"""The sections of the bench, by name.

A section is a function that takes `Settings` and yields rows, see `cinnema.bench.rows`. To add one,
write its module and name it here. A section imports what it measures, and packages that it compares
with may be missing: it then yields a row without values whose note says how to get them.
"""

from importlib import import_module

from cinnema.bench.rows import Section

SECTIONS: dict[str, tuple[str, str]] = {
    "animate": ("cinnema.bench.animate.measure", "cinnema animate, cold and warm"),
    "rendering": ("cinnema.bench.rendering.measure", "Frames a second of the weights landscape"),
    "growth": ("cinnema.bench.growth.measure", "Growth with frames, futures and pixels"),
    "published": (
        "cinnema.bench.published.measure",
        "The paper's networks, published size",
    ),
    "machine": (
        "cinnema.bench.peak.measure",
        "The machine's peak, and the share of it that networks and warps reach",
    ),
    "flow": ("cinnema.bench.flows.measure", "The cINN against others of equal size, one thread"),
}
"""Function and title of each section, by its name."""


def find_section(name: str) -> Section:
    """Return the function of a section.

    Args:
        name: One of `SECTIONS`.
    """
    module, _, function = SECTIONS[name][0].rpartition(".")
    section: Section = getattr(import_module(module), function)
    return section
