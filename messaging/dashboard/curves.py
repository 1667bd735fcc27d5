"""Curves: series and shares as SVG, coloured by the style sheet alone.

A point is one unit wide and the height a hundred; the style sheet gives a curve its size. Paths
are written in steps from point to point, which keeps what is sent again and again short.
"""

from collections.abc import Sequence
from itertools import pairwise

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

HEIGHT = 100
# Room for half a stroke in a small curve, so that a flat line is not cut.
MARGIN = 4


def sparkline(label: str, area: Sequence[float], line: Sequence[float] = ()) -> SafeString:
    """Draw a small curve with its area, and a second one as a line on the same scale."""
    top = max([*area, *line, 1])
    return format_html(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}{}{}</svg>',
        len(area) - 1,
        HEIGHT,
        label,
        _area(area, top, MARGIN),
        _line("line", area, top, MARGIN),
        _line("line second", line, top, MARGIN) if line else "",
    )


def meter(label: str, share: float) -> SafeString:
    """Draw a share of 1 as a bar."""
    return format_html(
        '<svg class="meter" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" '
        'aria-label="{}"><rect class="track" width="100" height="6"/>'
        '<rect class="share" width="{}" height="6"/></svg>',
        label,
        round(max(0.0, min(1.0, share)) * 100),
    )


def chart(
    label: str,
    series: Sequence[tuple[str, Sequence[float]]],
    titles: Sequence[str],
    top: float,
) -> SafeString:
    """Draw named series over each other up to ``top``, and a title for each point in time."""
    width = len(titles) - 1
    return format_html(
        '<svg class="chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}{}{}{}</svg>',
        width,
        HEIGHT,
        label,
        format_html_join(
            "",
            '<path class="rule" d="M0 {}h{}"/>',
            ((HEIGHT * quarter // 4, width) for quarter in range(4)),
        ),
        _area(series[0][1], top),
        format_html_join(
            "", "{}", ((_line(f"line {name}", values, top),) for name, values in series)
        ),
        format_html_join(
            "",
            '<rect class="moment" x="{}" width="1" height="{}"><title>{}</title></rect>',
            ((number - 0.5, HEIGHT, title) for number, title in enumerate(titles)),
        ),
    )


def round_top(highest: float) -> float:
    """Return the next round number, of whose quarters the axis is made."""
    top = 4.0
    while top < highest:
        for factor in (2, 2.5, 2):
            top *= factor
            if top >= highest:
                break
    return top


def _path(values: Sequence[float], top: float, margin: int) -> str:
    room = HEIGHT - 2 * margin
    heights = [HEIGHT - margin - round(value / top * room) for value in values]
    steps = [after - before for before, after in pairwise(heights)]
    # `1-7` and `1 7`: a minus sign separates as well.
    moves = "".join(f"l1{step}" if step < 0 else f"l1 {step}" for step in steps)
    flat = f"h{len(steps)}"
    return f"M0 {heights[0]}{moves if any(steps) else flat}"


def _line(name: str, values: Sequence[float], top: float, margin: int = 0) -> SafeString:
    return format_html('<path class="{}" d="{}"/>', name, _path(values, top, margin))


def _area(values: Sequence[float], top: float, margin: int = 0) -> SafeString:
    if not any(values):
        return mark_safe("")
    return format_html('<path class="area" d="{}V{}H0z"/>', _path(values, top, margin), HEIGHT)
