"""Charts as inline SVG: stacked bars, grouped bars and lines. Text is XML-escaped here."""

import math
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, BOTTOM = 760, 70, 14, 40
COLOURS = ("#2f6fab", "#d2802c", "#3d8f5f", "#b3475a", "#7b62a8", "#7d6a55", "#7c8a97")


def colour(index):
    return COLOURS[index % len(COLOURS)]


def _text(x, y, text, anchor="middle", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(str(text))}</text>'


def number(value):
    """Three digits, more before the point than after it."""
    if value == 0:
        return "0"
    if abs(value) >= 10000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _rect(x, y, width, height, fill, title):
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(0.5, height):.1f}" fill="{fill}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _legend(names):
    items = (
        f'<span><i style="background:{colour(i)}"></i>{escape(n)}</span>'
        for i, n in enumerate(names)
    )
    return f'<p class="legend">{"".join(items)}</p>'


def _frame(height, parts):
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(parts)}</svg>"
    )


class Scale:
    """From values to heights, linear from 0 or logarithmic."""

    def __init__(self, values, height, log):
        values = [value for value in values if value and value > 0] or [1]
        self.log, self.height = log, height
        if log:
            self.low = math.floor(math.log10(min(values)))
            self.high = max(self.low + 1, math.ceil(math.log10(max(values))))
        else:
            self.low, self.high = 0, max(values) * 1.08

    def __call__(self, value):
        if self.log:
            value = math.log10(max(value, 10.0**self.low))
        return (value - self.low) / (self.high - self.low) * self.height

    def ticks(self):
        if self.log:
            return [10.0**power for power in range(self.low, self.high + 1)]
        step = 10 ** math.floor(math.log10(self.high))
        step = next(step * part for part in (1, 0.5, 0.2, 0.1) if self.high / (step * part) >= 3.5)
        return [step * i for i in range(int(self.high / step) + 1)]

    def axis(self, top, unit):
        parts = [_text(LEFT - 40, top - 12, unit, "start")]
        for tick in self.ticks():
            y = top + self.height - self(tick)
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(_text(LEFT - 8, y + 4, number(tick), "end"))
        return parts


def grouped_bars(categories, series, unit, log=False):
    """series: name -> a value for each category, or None."""
    top, height = 24, 240
    scale = Scale([value for values in series.values() for value in values], height, log)
    parts = scale.axis(top, unit)
    room = (WIDTH - LEFT - RIGHT) / len(categories)
    bar = room * 0.82 / max(1, len(series))
    for place, category in enumerate(categories):
        begin = LEFT + place * room + room * 0.09
        parts.append(_text(begin + room * 0.41, top + height + 18, category))
        for index, (name, values) in enumerate(series.items()):
            if values[place] is not None:
                tall = scale(values[place])
                x, y = begin + index * bar, top + height - tall
                title = f"{name}, {category}: {number(values[place])} {unit}"
                parts.append(_rect(x, y, bar * 0.92, tall, colour(index), title))
                if bar > 22:
                    parts.append(
                        _text(x + bar * 0.46, y - 4, number(values[place]), more='class="small"')
                    )
    return _frame(top + height + BOTTOM, parts) + _legend(series)


def stacked_rows(rows, stages, unit):
    """rows: name -> a value for each stage. Each row is drawn to its own scale, as shares of its sum."""
    parts, line = [], 34
    left = 150
    for place, (name, values) in enumerate(rows.items()):
        y, total = 6 + place * line, sum(values) or 1
        parts.append(_text(left - 8, y + 16, name, "end"))
        x = left
        for index, value in enumerate(values):
            wide = value / total * (WIDTH - left - 110)
            title = f"{name}, {stages[index]}: {number(value)} {unit}, {value / total:.0%}"
            parts.append(_rect(x, y, wide, 22, colour(index), title))
            if wide > 46:
                parts.append(_text(x + wide / 2, y + 15, number(value), more='class="inside"'))
            x += wide
        parts.append(_text(x + 6, y + 16, f"{number(total)} {unit}", "start"))
    return _frame(len(rows) * line + 8, parts) + _legend(stages)


def lines(series, x_labels, unit, log=False):
    """series: name -> [(x, y)], x being places on an even axis whose labels are (x, text)."""
    top, height = 24, 240
    scale = Scale([y for points in series.values() for _, y in points], height, log)
    parts = scale.axis(top, unit)
    low, high = min(x for x, _ in x_labels), max(x for x, _ in x_labels)

    def across(x):
        return LEFT + 20 + (x - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT - 40)

    for x, label in x_labels:
        parts.append(_text(across(x), top + height + 18, label))
    for index, (name, points) in enumerate(series.items()):
        places = [(across(x), top + height - scale(y), y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        parts.append(
            f'<polyline fill="none" stroke="{colour(index)}" stroke-width="2" points="{path}"/>'
        )
        for x, y, value in places if len(places) < 20 else []:
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour(index)}">'
                f"<title>{escape(f'{name}: {number(value)} {unit}')}</title></circle>"
            )
    return _frame(top + height + BOTTOM, parts) + _legend(series)
