# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""XML of the S3 API: a nested value to a document and back."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from lab.garage.errors import malformed_xml

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
# what Garage answers without it
WITHOUT_NAMESPACE = ("CopyObjectResult", "Error", "ListAllMyBucketsResult")


def document(name: str, value: dict[str, Any]) -> bytes:
    """An element *name*; in *value* a list repeats its element, and None leaves it out."""
    root = ElementTree.Element(name, {} if name in WITHOUT_NAMESPACE else {"xmlns": NAMESPACE})
    _fill(root, value)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(root)


def _fill(parent: ElementTree.Element, value: Any) -> None:
    if not isinstance(value, dict):
        parent.text = str(value).lower() if isinstance(value, bool) else str(value)
        return
    for name, inner in value.items():
        for item in inner if isinstance(inner, list) else [] if inner is None else [inner]:
            _fill(ElementTree.SubElement(parent, name), item)


def parse(name: str, body: bytes) -> ElementTree.Element:
    """The root element, which must be *name*, without namespaces.

    :raises ApiError: 400.
    """
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError) as error:
        raise malformed_xml(str(error)) from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if root.tag != name:
        raise malformed_xml(f"expected {name}")
    return root


def text(element: ElementTree.Element, path: str) -> str | None:
    """The text of the first element at *path*, None if there is none."""
    found = element.find(path)
    return None if found is None else found.text or ""


def texts(element: ElementTree.Element, name: str) -> list[str]:
    return [found.text or "" for found in element.findall(name)]


def number(element: ElementTree.Element, path: str) -> int | None:
    """As :func:`text`, for an integer.

    :raises ApiError: 400, it is none.
    """
    found = text(element, path)
    try:
        return None if found is None else int(found)
    except ValueError as error:
        raise malformed_xml(f"{path} is no number") from error
