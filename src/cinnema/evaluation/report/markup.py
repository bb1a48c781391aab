"""Builders of HTML and SVG elements; text is escaped."""

import html
from collections.abc import Iterable

_VOID = frozenset({"br", "circle", "img", "line", "meta", "path", "polygon", "rect", "source"})


class Markup(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


Attribute = str | float | bool | None


def element(tag: str, /, *children: str, **attributes: Attribute) -> Markup:
    """Return an element.

    Args:
        tag: Name of the element.
        *children: Content: `Markup` is inserted unchanged, other text is escaped.
        **attributes: A trailing underscore is dropped, others become hyphens; None and False
            leave the attribute out, True gives it no value. Floats are cut to two digits.

    Example:
        >>> element("td", "a < b", class_="name")
        '<td class="name">a &lt; b</td>'
    """
    start = tag + "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{start}/>")
    return Markup(f"<{start}>{joined(children)}</{tag}>")


def joined(parts: Iterable[str], separator: str = "") -> Markup:
    """Concatenate parts; those that are not `Markup` are escaped.

    Args:
        parts: Markup or text.
        separator: Text between parts; escaped unless it is `Markup`.
    """
    return Markup(escaped(separator).join(escaped(part) for part in parts))


def escaped(text: str) -> Markup:
    """Return text as markup: escaped, unless it is markup."""
    return text if isinstance(text, Markup) else Markup(html.escape(text, quote=True))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.removesuffix("_").replace("_", "-")
    if value is True:
        return f" {name}"
    if isinstance(value, float):
        value = f"{value:.2f}".rstrip("0").rstrip(".")
    return f' {name}="{html.escape(str(value), quote=True)}"'
