"""Curves: series and shares as SVG, coloured by the style sheet alone."""

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

WIDTH, HEIGHT = 120, 24
CHART_WIDTH, CHART_HEIGHT = 600, 120


def sparkline(label: str, area: Sequence[float], line: Sequence[float] = ()) -> SafeString:
    """Draw a small curve with its area, and a second one as a line on the same scale."""
    top = max([*area, *line, 1])
    lines = [_line("area-line", area, top, WIDTH, HEIGHT)]
    if line:
        lines.append(_line("second-line", line, top, WIDTH, HEIGHT))
    return format_html(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}{}</svg>',
        WIDTH,
        HEIGHT,
        label,
        _area(area, top, WIDTH, HEIGHT) if any(area) else "",
        mark_safe("".join(lines)),  # noqa: S308 - made of numbers above
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
    width = CHART_WIDTH / max(1, len(titles))
    return format_html(
        '<svg class="chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}{}{}{}</svg>',
        CHART_WIDTH,
        CHART_HEIGHT,
        label,
        format_html_join(
            "",
            '<path class="rule" d="M0 {y}H{x}"/>',
            ({"x": CHART_WIDTH, "y": CHART_HEIGHT * n // 4} for n in range(1, 4)),
        ),
        _area(series[0][1], top, CHART_WIDTH, CHART_HEIGHT) if any(series[0][1]) else "",
        mark_safe(  # noqa: S308 - made of numbers and our own class names
            "".join(
                _line(f"{name}-line", values, top, CHART_WIDTH, CHART_HEIGHT)
                for name, values in series
            )
        ),
        format_html_join(
            "",
            '<rect class="moment" x="{}" width="{}" height="{}"><title>{}</title></rect>',
            (
                (round(number * width, 1), round(width, 1), CHART_HEIGHT, title)
                for number, title in enumerate(titles)
            ),
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


def _points(values: Sequence[float], top: float, width: int, height: int) -> str:
    step = width / max(1, len(values) - 1)
    # Half a stroke of room above and below, so that a flat line is not cut.
    return " ".join(
        f"{round(number * step)},{height - 1 - value / top * (height - 2):.1f}"
        for number, value in enumerate(values)
    )


def _line(name: str, values: Sequence[float], top: float, width: int, height: int) -> str:
    bottom = f"0,{height - 1} {width},{height - 1}"
    points = _points(values, top, width, height) if any(values) else bottom
    return f'<polyline class="{name}" points="{points}"/>'


def _area(values: Sequence[float], top: float, width: int, height: int) -> SafeString:
    points = f"0,{height} {_points(values, top, width, height)} {width},{height}"
    return format_html('<polygon class="area" points="{}"/>', points)
