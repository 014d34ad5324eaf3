"""Prometheus families of plain numbers.

prometheus_client writes them; its own counters and histograms are not used. They
take a lock for each value, write a second series with a time of creation beside
each, and change their nature with an environment variable.
"""

from collections.abc import Iterable, Mapping

from prometheus_client.core import Metric

from engines.metrics import Buckets

Labels = Mapping[str, str]


def gauge(name: str, help_text: str, values: Iterable[tuple[Labels, float]]) -> Metric:
    """A value that goes up and down."""
    family = Metric(name, help_text, "gauge")
    for labels, value in values:
        family.add_sample(name, dict(labels), value)
    return family


def counter(name: str, help_text: str, values: Iterable[tuple[Labels, float]]) -> Metric:
    """A value that only grows; `name` is without the `_total` that its samples get."""
    family = Metric(name, help_text, "counter")
    for labels, value in values:
        family.add_sample(f"{name}_total", dict(labels), value)
    return family


def histogram(name: str, help_text: str, values: Iterable[tuple[Labels, Buckets]]) -> Metric:
    """Values by size; each bucket counts those below it, too."""
    family = Metric(name, help_text, "histogram")
    for labels, buckets in values:
        num_below = 0
        for bound, count in zip((*buckets.bounds, float("inf")), buckets.counts, strict=True):
            num_below += count
            le = "+Inf" if bound == float("inf") else repr(float(bound))
            family.add_sample(f"{name}_bucket", {**labels, "le": le}, num_below)
        family.add_sample(f"{name}_count", dict(labels), num_below)
        family.add_sample(f"{name}_sum", dict(labels), buckets.sum)
    return family
