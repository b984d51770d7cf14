"""Panels of the dashboards. Each is made of PromQL and begins its description with what the table of metrics says of
the first of its metrics; a name that is in no table is an error.

PromQL here has two short forms: `{@` selects what the dashboard's variables choose, `[@]` is the interval that suits
the width of the screen.
"""

import dataclasses
import pathlib
import re
import sys

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    prometheus,
    stat,
    statushistory,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import metric_table  # noqa: E402  pylint: disable=wrong-import-position

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
SELECTED = 'job=~"$job", instance=~"$instance"'
METRICS = {metric.name: metric for metric in metric_table.read()}
NAME = re.compile(r"\b(?:expertmesh|grpc_server)_\w+")
# Series that Prometheus makes of a histogram.
SERIES = re.compile(r"_(?:bucket|sum|count)$")
# Beyond so many points Grafana draws none of a status history.
STATUS_POINTS = 60
WIDE, HALF, THIRD, SIXTH = 24, 12, 8, 4


class UnknownMetric(Exception):
    """A panel asks for what no process tells."""


@dataclasses.dataclass(frozen=True)
class Query:
    """legend: of a series, from its labels. exemplars: traces are shown as points."""

    promql: str
    legend: str = ""
    exemplars: bool = False

    @property
    def expression(self):
        text = " ".join(self.promql.split())
        return text.replace("{@", "{" + SELECTED).replace("[@]", "[$__rate_interval]")


def metrics_of(promql):
    """Entries of the table that an expression names, in its order."""
    found = []
    for name in NAME.findall(promql):
        metric = METRICS.get(name) or METRICS.get(SERIES.sub("", name))
        if metric is None:
            raise UnknownMetric(f"no table of metrics has {name}: {promql}")
        found.append(metric)
    return found


def description(queries, note):
    known = [metric for query in queries for metric in metrics_of(query.promql)]
    said = [known[0].help.rstrip(".") + "."] if known else []
    return " ".join([*said, *([note] if note else [])])


def quantile(share, metric, by="", selected="", exemplars=False, legend=None):
    """A quantile of a histogram, with all its series together but for those that `by` tells apart."""
    kept = ", ".join(["le", *([by] if by else [])])
    promql = f"histogram_quantile({share}, sum by ({kept}) (rate({metric}_bucket{{@{selected}}}[@])))"
    return Query(promql, f"p{share * 100:g}" if legend is None else legend, exemplars)


def mean(metric, by="", selected="", legend=""):
    kept = f" by ({by})" if by else ""
    parts = [f"sum{kept} (rate({metric}_{part}{{@{selected}}}[@]))" for part in ("sum", "count")]
    return Query(" / ".join(parts), legend)


def events(metric, by, legend):
    """How often something happened in each interval, where a series comes with its first event: increase() would not
    see that one."""
    counter = f"{metric}{{@}}"
    promql = f"sum by ({by}) (({counter} unless {counter} offset $__rate_interval) or increase({counter}[@]))"
    return Query(promql, legend)


def thresholds(steps):
    """steps: (from, colour) pairs; the first is from the lowest value on."""
    return ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(
        [model.Threshold(value=value, color=colour) for value, colour in steps]
    )


def _finish(panel, title, unit, queries, note, width, height, instant=False, kind=None):
    panel.title(title).unit(unit).description(description(queries, note)).datasource(SOURCE)
    panel.span(width).height(height)
    for number, query in enumerate(queries):
        target = prometheus.Dataquery().datasource(SOURCE).ref_id(chr(ord("A") + number))
        target.expr(query.expression).legend_format(query.legend).exemplar(query.exemplars)
        if instant:
            target.instant()
        else:
            target.range()
        if kind is not None:
            target.format(kind)
        panel.with_target(target)
    return panel


def graph(title, unit, *queries, note="", width=HALF, stacked=False, lowest=0, highest=None):
    """Lines over time."""
    panel = timeseries.Panel().min(lowest).show_points(kinds.VisibilityMode.NEVER).line_width(1)
    if highest is not None:
        panel.max(highest)
    panel.fill_opacity(30 if stacked else 5)
    if stacked:
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    panel.tooltip(
        common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)
    )
    panel.legend(
        common.VizLegendOptions()
        .display_mode(kinds.LegendDisplayMode.LIST)
        .placement(kinds.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    return _finish(panel, title, unit, queries, note, width, 8)


def number(title, unit, query, note="", steps=((None, "text"),), idle=None, width=SIXTH):
    """The newest value, with its course behind it. idle: what stands there when there is none."""
    panel = stat.Panel().graph_mode(kinds.BigValueGraphMode.AREA).color_mode(kinds.BigValueColorMode.VALUE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    panel.thresholds(thresholds(steps)).color_scheme(FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    if idle is not None:
        panel.no_value(idle)
    return _finish(panel, title, unit, [query], note, width, 4)


def bars(title, unit, query, note="", width=HALF, highest=None):
    """A bar for each series, as it is now."""
    panel = bargauge.Panel().orientation(kinds.VizOrientation.HORIZONTAL).min(0)
    panel.display_mode(kinds.BarGaugeDisplayMode.BASIC)
    if highest is not None:
        panel.max(highest)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    panel.color_scheme(FieldColor().mode(model.FieldColorModeId.CONTINUOUS_BL_YL_RD))
    return _finish(panel, title, unit, [query], note, width, 10, instant=True)


def cells(title, unit, query, note="", width=HALF, lowest=0, highest=None, low_is_bad=False):
    """A row of coloured cells over time for each series: a heatmap of series that are no buckets."""
    panel = statushistory.Panel().show_value(kinds.VisibilityMode.NEVER).min(lowest).row_height(0.95)
    if highest is not None:
        panel.max(highest)
    modes = model.FieldColorModeId
    panel.color_scheme(
        FieldColor().mode(modes.CONTINUOUS_RD_YL_GR if low_is_bad else modes.CONTINUOUS_BL_YL_RD)
    )
    panel.max_data_points(STATUS_POINTS).legend(common.VizLegendOptions().show_legend(False))
    return _finish(panel, title, unit, [query], note, width, 10)


def buckets(title, unit, metric, note="", width=HALF):
    """A histogram's buckets over time, as a heatmap."""
    panel = heatmap.Panel().calculate(False).y_axis(heatmap.YAxisConfig().unit(unit))
    panel.color(
        heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").exponent(0.5).steps(64)
    )
    panel.cell_gap(1).show_legend()
    query = Query(f"sum by (le) (rate({metric}_bucket{{@}}[@]))", "{{le}}", exemplars=True)
    return _finish(panel, title, unit, [query], note, width, 8, kind=PromQueryFormat.HEATMAP)


def rows(title, query, columns, note="", width=WIDE):
    """A table of the labels of series as they are now, but for those that Prometheus adds."""
    panel = table.Panel().show_header(True).cell_height(kinds.TableCellHeight.SM)
    order = {name: place for place, name in enumerate(columns)}
    hidden = {name: True for name in ("Time", "Value", "__name__") if name not in columns}
    panel.with_transformation(
        model.DataTransformerConfig(
            id_val="organize", options={"excludeByName": hidden, "indexByName": order, "renameByName": {}}
        )
    )
    return _finish(panel, title, "short", [query], note, width, 7, instant=True, kind=PromQueryFormat.TABLE)
