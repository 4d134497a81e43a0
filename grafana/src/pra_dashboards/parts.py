"""What the three dashboards are made of: one look, one data source, thresholds that mean the same everywhere."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import bargauge, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "pra-agent"
GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "text"
WIDTH = 24

Panel = Builder[model.Panel]
#: A column that is shown: title, then how (unit, thresholds, mappings ...).
Column = tuple[str, Sequence[model.DynamicConfigValue]]


def new(uid: str, title: str, description: str, since: str = "now-24h") -> build.Dashboard:
    """An empty dashboard with the links to the others and the data source to choose."""
    others = build.DashboardLink("pra-agent").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time(since, "now")
        .refresh("1m")
        .timezone("utc")
        .editable()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(others.as_dropdown(True).include_vars(True).keep_time(True))
        .with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )


def variable(name: str, label: str, query: str, *, many: bool = True) -> build.QueryVariable:
    """A choice that Prometheus fills."""
    found = (
        build.QueryVariable(name).label(label).datasource(SOURCE).query(query).sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    found = found.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    if not many:
        return found
    everything = model.VariableOption(text="All", value="$__all", selected=True)
    return found.multi(True).include_all(True).all_value(".+").current(everything)


def levels(*steps: tuple[float | None, str]) -> model.ThresholdsConfig:
    """Colours from a value on; the first has none."""
    return model.ThresholdsConfig(
        mode=model.ThresholdsMode.ABSOLUTE, steps=[model.Threshold(value=value, color=color) for value, color in steps]
    )


class _Ready(Builder[model.ThresholdsConfig]):
    """A value where the SDK wants a builder of it."""

    def __init__(self, value: model.ThresholdsConfig) -> None:
        self._value = value

    def build(self) -> model.ThresholdsConfig:
        return self._value


#: Of a share of an objective that is used up.
SHARE = levels((None, GREEN), (0.5, ORANGE), (1, RED))
#: Of something that should be none.
NONE_IS_GOOD = levels((None, GREEN), (1, RED))
PLAIN = levels((None, BLUE))


def words(mapping: Mapping[str, tuple[str, str]]) -> model.ValueMap:
    """Show numbers as words, each with a colour."""
    return model.ValueMap(
        options={
            value: model.ValueMappingResult(text=text, color=color, index=place)
            for place, (value, (text, color)) in enumerate(mapping.items())
        }
    )


#: Last outcome of a backup as the dashboards number it.
OUTCOME = words({"0": ("failed", RED), "1": ("success", GREEN), "2": ("running", BLUE), "3": ("suspect", ORANGE)})
YES_NO = words({"0": ("no", GREEN), "1": ("yes", ORANGE)})


def query(expr: str, ref: str = "A", legend: str = "", *, instant: bool = False) -> prometheus.Dataquery:
    """A query; instant ones are tables."""
    found = prometheus.Dataquery().expr(expr).ref_id(ref).datasource(SOURCE)
    found = found.legend_format(legend) if legend else found
    return found.instant().format(PromQueryFormat.TABLE) if instant else found.range()


def _letters(number: int) -> Sequence[str]:
    return [chr(ord("A") + place) for place in range(number)]


def lines(
    title: str, unit: str, queries: Sequence[tuple[str, str]], *, about: str = "", width: int = 12, bars: bool = False
) -> timeseries.Panel:
    """Curves over time: (PromQL, legend) each."""
    panel = timeseries.Panel().title(title).description(about).datasource(SOURCE).unit(unit).span(width).height(8)
    panel = panel.fill_opacity(60 if bars else 8).line_width(1).min(0)
    panel = panel.draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
    panel = panel.span_nulls(False)
    for ref, (expr, legend) in zip(_letters(len(queries)), queries, strict=True):
        panel = panel.with_target(query(expr, ref, legend))
    return panel


def number(
    title: str, unit: str, expr: str, thresholds: model.ThresholdsConfig, *, about: str = "", width: int = 4
) -> stat.Panel:
    """One number, coloured."""
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .thresholds(_Ready(thresholds))
        .color_mode(common.BigValueColorMode.BACKGROUND)
        .graph_mode(common.BigValueGraphMode.NONE)
        .span(width)
        .height(4)
        .no_value("none")
        .with_target(query(expr).instant())
    )


def bars(title: str, unit: str, expr: str, legend: str, *, about: str = "", width: int = 12) -> bargauge.Panel:
    """A bar for each series, coloured by the share that is used."""
    panel = bargauge.Panel().title(title).description(about).datasource(SOURCE).unit(unit).thresholds(_Ready(SHARE))
    panel = panel.orientation(common.VizOrientation.HORIZONTAL).span(width).height(8).min(0)
    return panel.with_target(query(expr, "A", legend).instant())


def states(
    title: str, expr: str, legend: str, mapping: model.ValueMap, *, about: str = "", width: int = WIDTH
) -> statetimeline.Panel:
    """What was so, when."""
    panel = statetimeline.Panel().title(title).description(about).datasource(SOURCE).mappings([mapping])
    return panel.span(width).height(8).show_value(common.VisibilityMode.NEVER).with_target(query(expr, "A", legend))


def how(
    unit: str = "", thresholds: model.ThresholdsConfig | None = None, mapping: model.ValueMap | None = None
) -> Sequence[model.DynamicConfigValue]:
    """How a column is shown; colours fill the cell."""
    found = [model.DynamicConfigValue(id_val="unit", value=unit)] if unit else []
    if thresholds is not None:
        found.append(model.DynamicConfigValue(id_val="thresholds", value=thresholds))
    if mapping is not None:
        found.append(model.DynamicConfigValue(id_val="mappings", value=[mapping]))
    if thresholds is not None or mapping is not None:
        cell = {"type": "color-background", "mode": "basic"}
        found.append(model.DynamicConfigValue(id_val="custom.cellOptions", value=cell))
    return found


def rows(
    title: str, labels: Mapping[str, str], columns: Mapping[str, Column], *, about: str = "", height: int = 12
) -> table.Panel:
    """A table with a row for each set of `labels` (their titles), and a column for each PromQL (`columns`)."""
    panel = table.Panel().title(title).description(about).datasource(SOURCE).span(WIDTH).height(height)
    panel = panel.filterable(True)
    names = dict(labels)
    for ref, (expr, (heading, shown)) in zip(_letters(len(columns)), columns.items(), strict=True):
        panel = panel.with_target(query(expr, ref, instant=True))
        # With one query Grafana calls the column Value, with several Value #A ...
        names["Value" if len(columns) == 1 else f"Value #{ref}"] = heading
        if shown:
            panel = panel.override_by_name(heading, list(shown))
    order = {name: place for place, name in enumerate(names)}
    organize = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}
    if len(columns) > 1:
        panel = panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    return panel.with_transformation(model.DataTransformerConfig(id_val="organize", options=organize))


def finish(dashboard: build.Dashboard) -> model.Dashboard:
    """Build it, and give every panel an id, in their order."""
    built = dashboard.build()
    for place, panel in enumerate(built.panels or [], start=1):
        panel.id_val = place
    return built
