"""matplotlib's SVG made fit for a page: its colours follow the page's, its ids are its own, and it has a text alternative."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"

# Colours that nobody uses by accident; each stands for a CSS variable of the page.
INK, GRID, SURFACE = "#010203", "#010204", "#010205"
SERIES = ("#020301", "#020302", "#020303", "#020304", "#020305")
_VARIABLES = {INK: "--muted", GRID: "--line", SURFACE: "--surface"} | {c: f"--plot-{i}" for i, c in enumerate(SERIES, 1)}
_REFERENCE = re.compile(r"#[\w.:-]+")
_DECIMALS = re.compile(r"(\.\d\d)\d+")


def for_the_page(source: bytes, id_: str, title: str, description: str) -> str:
    """matplotlib's SVG without what a page does not need, with the page's colours, ids of its own, and a text alternative."""
    root = ET.fromstring(source)  # noqa: S314 (made by matplotlib a moment ago)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    used = {name for element in root.iter() for value in element.attrib.values() for name in _REFERENCE.findall(value)}
    for element in root.iter():
        _adapt(element, id_, used)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("class", "plot")
    root.set("aria-labelledby", f"{id_}-title")
    root.set("aria-describedby", f"{id_}-desc")
    root.insert(0, _text_element("desc", f"{id_}-desc", description))
    root.insert(0, _text_element("title", f"{id_}-title", title))
    return ET.tostring(root, encoding="unicode")


def _adapt(element: ET.Element, id_: str, used: set[str]) -> None:
    """One element for use in an HTML page: there, names have no namespace, and ids must be unique over all plots."""
    element.tag = element.tag.rpartition("}")[2]
    if element.tag != "text":
        element.text = (element.text or "").strip()
    element.tail = (element.tail or "").strip()
    for name, value in list(element.attrib.items()):
        del element.attrib[name]
        if name == "id":
            if f"#{value}" in used:
                element.set("id", f"{id_}-{value}")
        elif name == f"{{{_XLINK}}}href":
            element.set("href", f"#{id_}-{value[1:]}")
        elif name == "style":
            element.set("style", _restyle(value.replace("url(#", f"url(#{id_}-")))
        else:
            element.set(name, _DECIMALS.sub(r"\1", value.replace("url(#", f"url(#{id_}-")))


def _restyle(style: str) -> str:
    """The page's variables for our colours, and its font for matplotlib's."""
    style = re.sub(r"font: (\d+)px [^;]*;?", r"font-size: \1px;", style)
    style = re.sub(r"font-family: [^;]*;?", "", style)
    return _REFERENCE.sub(lambda match: f"var({_VARIABLES[match[0]]})" if match[0] in _VARIABLES else match[0], style)


def _text_element(tag: str, id_: str, text: str) -> ET.Element:
    element = ET.Element(tag, {"id": id_})
    element.text = text
    return element
