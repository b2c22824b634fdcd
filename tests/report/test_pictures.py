"""A figure is the same in its files and in the page, and brings nothing into the page but itself."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from rewrite.report.figures.pictures import BLUE, Drawn, inline, open_figure, save_picture


def draw(label: str) -> Drawn:
    figures = []
    for width in (7.6, 3.9):
        figure = open_figure(width, 2.0)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "o", color=BLUE, label=label)
        axes.legend()
        axes.fill_between([0, 1], [0, 0], [1, 2])
        figures.append(figure)
    return Drawn("one", "One", "a line", *figures)


def test_it_is_written_as_png_and_svg_with_the_same_words(tmp_path: Path) -> None:
    picture = save_picture(draw("a label"), tmp_path)
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert "a label" in (tmp_path / "one.svg").read_text()
    assert "a label" in picture.wide and "a label" in picture.narrow


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    assert save_picture(draw("x"), tmp_path) == save_picture(draw("x"), tmp_path)


def test_within_a_page_it_is_one_element_with_identifiers_of_its_own(tmp_path: Path) -> None:
    picture = save_picture(draw("<script>alert(1)</script>"), tmp_path)
    for svg in (picture.wide, picture.narrow):
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg") and root.get("width") is None and root.get("viewBox")
        assert "<style" not in svg and "<metadata" not in svg and "<script" not in svg
    names = [re.findall(r' id="([^"]+)"', svg) for svg in (picture.wide, picture.narrow)]
    assert names[0] and not set(names[0]) & set(names[1])
    for svg, own in zip((picture.wide, picture.narrow), names, strict=True):
        assert set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg)) == set(own)


def test_its_colours_are_the_pages() -> None:
    svg = '<?xml version="1.0"?><svg width="1" height="1"><path style="fill: #0072b2; stroke: #123456"/></svg>'
    assert "fill: var(--blue, #0072b2); stroke: #123456" in inline(svg, "a")
