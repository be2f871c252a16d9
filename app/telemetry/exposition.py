"""The pages that Prometheus reads, written by prometheus-client; imported for the first scrape."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import add

from prometheus_client import core
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from app.telemetry.metrics import FIGURES, MODEL, Figure, Metrics


class Exposition(Collector):
    """The figures of all workers."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def page(self, accept: str) -> tuple[bytes, str]:
        """The figures of all workers, as Prometheus reads them.

        Args:
            accept: header of the request; it may ask for OpenMetrics.

        Returns: the page and its content type.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self), content_type

    def collect(self) -> Iterator[Metric]:
        """The figures of all workers; gauges and process figures only of those that live."""
        snapshots = self._metrics.snapshots()
        series: defaultdict[str, dict[tuple[str, ...], Sequence[float]]] = defaultdict(dict)
        for snapshot in snapshots:
            for (name, labels), values in snapshot.series.items():
                if FIGURES[name].kind == "gauge":
                    if snapshot.pid is not None:
                        series[name][(*labels, snapshot.worker)] = values
                    continue
                before = series[name].get(labels)
                series[name][labels] = values if before is None else list(map(add, before, values))
        for figure in FIGURES.values():
            yield _family(figure, series[figure.name])
        yield from _processes({s.worker: s.pid for s in snapshots if s.pid is not None})


def _family(figure: Figure, series: Mapping[tuple[str, ...], Sequence[float]]) -> Metric:
    if figure.kind == "counter":
        counter = core.CounterMetricFamily(figure.name, figure.help, labels=figure.labels)
        for labels, values in series.items():
            counter.add_metric(labels, values[0])
        return counter
    if figure.kind == "gauge":
        gauge = core.GaugeMetricFamily(figure.name, figure.help, labels=(*figure.labels, "worker"))
        for labels, values in series.items():
            if values[0] or figure is not MODEL:
                gauge.add_metric(labels, values[0])
        return gauge
    histogram = core.HistogramMetricFamily(figure.name, figure.help, labels=figure.labels)
    bounds = [*(repr(bound) for bound in figure.buckets), "+Inf"]
    for labels, values in series.items():
        counts = itertools.accumulate(values[1:])
        histogram.add_metric(labels, list(zip(bounds, counts, strict=True)), values[0])
    return histogram


def _processes(pids: Mapping[str, int]) -> Iterator[Metric]:
    """CPU, memory and files of each worker, where the system tells them."""
    families: dict[str, Metric] = {}
    for worker, pid in pids.items():
        for family in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            merged = families.setdefault(family.name, family)
            samples = [sample._replace(labels={"worker": worker}) for sample in family.samples]
            merged.samples = samples if merged is family else [*merged.samples, *samples]
    yield from families.values()
