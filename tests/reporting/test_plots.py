from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from trainctl.reporting import plots

NASTY = "<script>alert('x')</script>&\"\x00"


def svg(text: str) -> ET.Element:
    """The chart parsed as XML: well-formed, or the test fails."""
    return ET.fromstring(re.sub(r"<p class.*", "", text))


def test_a_stage_has_its_colour_and_name_also_when_it_is_alone() -> None:
    text = plots.line_chart({"val": [(1.0, 0.5), (2.0, 0.4)]})
    assert 'class="line c1"' in text and '<i class="c1"></i>val' in text
    assert "legend" not in plots.line_chart({"lr": [(1.0, 0.5), (2.0, 0.4)]})


def test_a_line_per_series_with_a_legend_and_escaped_names() -> None:
    text = plots.line_chart({NASTY: [(0, 1.0), (1, 0.5)], "val": [(0, 2.0), (1, math.nan), (2, 1.0)]}, y_label=NASTY)
    assert len(svg(text).findall("polyline")) == 2
    assert "<script" not in text and "\x00" not in text and "&lt;script&gt;" in text
    assert 'class="legend"' in text and "nan" not in text


def test_nothing_to_draw_is_nothing() -> None:
    assert plots.line_chart({"loss": [(0, math.inf)]}) == ""
    assert plots.scatter([], "x", "y") == plots.histogram([0, 1], [0], "x") == plots.histogram([], [], "x") == ""
    assert plots.calibration([]) == ""


def test_one_point_and_flat_lines_have_axes() -> None:
    for points in ([(3.0, 0.0)], [(0.0, 5.0), (1.0, 5.0)]):
        assert svg(plots.line_chart({"loss": points})).find("polyline") is not None
    assert svg(plots.line_chart({"loss": [(0.1, 1.0)]}, log_x=True)).find("polyline") is not None


def test_a_thousand_epochs_are_thinned_and_keep_the_last() -> None:
    chart = svg(plots.line_chart({"loss": [(float(i), float(i)) for i in range(5000)]}))
    line = chart.find("polyline")
    assert line is not None
    points = line.attrib["points"].split()
    assert len(points) <= 501 and points[-1].startswith(f"{plots.WIDTH - plots.RIGHT}.0,")


def test_a_log_axis_leaves_out_what_is_not_positive() -> None:
    chart = svg(plots.line_chart({"loss": [(0.0, 1.0), (1e-4, 1.0), (1e-1, 0.5)]}, "lr", log_x=True))
    assert len(chart.findall("circle")) == 2
    assert {"0.0001", "0.001", "0.01", "0.1"} <= {t.text for t in chart.findall("text")}


def test_confusion_has_a_cell_per_pair_with_its_count() -> None:
    text = plots.confusion([[5, 1], [0, 0]], ["no", NASTY])
    chart = svg(text)
    assert [cell.attrib["class"] for cell in chart.findall("rect")] == ["hit", "miss", "miss", "hit"]
    assert [t.text for t in chart.findall("text") if t.attrib["class"].startswith("cell")] == ["5", "1", "0", "0"]
    assert "<script" not in text
    many = svg(plots.confusion([[1] * 20 for _ in range(20)], [f"a long class name {i}" for i in range(20)]))
    assert len(many.findall("rect")) == 400


def test_other_charts_are_well_formed() -> None:
    bins = [{"low": 0.0, "high": 0.1, "count": 3, "claimed": 0.05, "true": 0.0}]
    assert len(svg(plots.calibration(bins)).findall("circle")) == 1
    assert len(svg(plots.histogram([-1, 0, 1], [2, 3], "error")).findall("rect")) == 2
    assert len(svg(plots.scatter([(1, 2), (2, 1)], "a", "b", diagonal=True)).findall("circle")) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (12.0, "12"), (0.123456, "0.1235"), (12345678.0, "1.23e+07"), (0.00001, "1e-05"),
     (math.nan, "nan"), (123456.7, "123457"), (-1234567.0, "-1234567")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert plots.short(value) == text


def test_ticks_are_round_and_short() -> None:
    assert plots.ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert plots.ticks(0.61, 0.89) == [0.65, 0.7, 0.75, 0.8, 0.85]
    assert plots.ticks(1, 3, least=1) == [1, 2, 3]
    assert plots.ticks(3, 3) == [3]
    assert [plots.tick(value) for value in (350_000, -20_000, 1_200_000, 5e9, 2_000, 0.5)] == [
        "350k", "-20k", "1.2M", "5G", "2000", "0.5",
    ]  # fmt: skip
