"""What `deploy/` asks of Prometheus: only figures, labels and values that the service has."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.wire.problems import KINDS
from tests.conftest import ROOT, encode
from tests.digits import load_digits

DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus/alerts.yml"
CONFIG = DEPLOY / "prometheus/prometheus.yml"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/perceiver.json").read_text())
JOB = yaml.safe_load(CONFIG.read_text())["scrape_configs"][0]["job_name"]
# What Prometheus adds to every sample, and the sample that it makes of each scrape.
TARGET = {"job", "instance"}
UP = "up"


def rules() -> list[dict]:
    return [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]


def queries() -> dict[str, str]:
    found = {rule["alert"]: rule["expr"] for rule in rules()}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            found[f"{panel['title']} {target['refId']}"] = expression
    return found


QUERIES = queries()


@pytest.fixture(scope="module")
def samples(client: httpx.Client) -> dict[str, list[dict[str, str]]]:
    """Name -> the label sets that the service has for it."""
    client.post("/predict", files={"file": encode(load_digits()[0][0])})
    client.post("/predict", files={"file": b""})
    found: dict[str, list[dict[str, str]]] = {UP: [{}]}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def parts(expression: object) -> Iterator[object]:
    """All nodes of a query."""
    yield expression
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from parts(inner)
    for argument in getattr(expression, "args", None) or ():
        yield from parts(argument)


def selectors(expression: object) -> list[promql.VectorSelector]:
    return [part for part in parts(expression) if isinstance(part, promql.VectorSelector)]


@pytest.mark.parametrize("title", QUERIES)
def test_a_query_asks_for_what_there_is(title: str, samples: dict[str, list[dict[str, str]]]):
    expression = promql.parse(QUERIES[title])
    found = selectors(expression)
    assert found
    labels: set[str] = set(TARGET)
    for selector in found:
        assert selector.name in samples, selector.name
        labels |= {label for sample in samples[selector.name] for label in sample}
        for matcher in selector.matchers.matchers:
            if matcher.name in TARGET:
                assert matcher.name != "job" or matcher.value == JOB
                continue
            values = {sample[matcher.name] for sample in samples[selector.name]}
            if matcher.name == "reason":
                values |= KINDS.keys()
            if matcher.op == promql.MatchOp.Equal:
                assert matcher.value in values
            elif matcher.name == "status":
                assert all(re.fullmatch(r"\d{3}", status) for status in matcher.value.split("|"))
            elif matcher.op == promql.MatchOp.Re:
                assert all(value in values for value in matcher.value.split("|"))
    for part in parts(expression):
        modifier = getattr(part, "modifier", None)
        if isinstance(part, promql.AggregateExpr) and modifier is not None:
            assert set(modifier.labels) <= labels


def test_legends_and_sentences_name_labels_that_their_queries_have():
    named = [
        (target["expr"], target["legendFormat"])
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ]
    named += [(rule["expr"], " ".join(rule["annotations"].values())) for rule in rules()]
    for expression, text in named:
        for label in re.findall(r"{{\s*(?:\$labels\.)?(\w+)\s*}}", text):
            aggregated = re.findall(r"by \(([^)]*)\)", expression)
            known = (
                {"instance", "worker"} if not aggregated else set(", ".join(aggregated).split(", "))
            )
            assert label in known, (expression, text)


def test_each_alert_says_how_bad_it_is():
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


def test_every_figure_of_the_service_is_on_the_dashboard(samples: dict[str, list[dict[str, str]]]):
    shown = {
        selector.name
        for title, query in QUERIES.items()
        for selector in selectors(promql.parse(query))
    }
    figures = {name for name in samples if name.startswith("perceiver_")}
    stems = {re.sub(r"_(bucket|count|sum)$", "", name) for name in figures}
    assert stems == {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown if name in figures}


def test_the_composition_mounts_what_there_is():
    compose = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
    services = compose["services"]
    assert services.keys() == {"perceiver", "prometheus", "grafana"}
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).is_dir()
    assert (DEPLOY / services["perceiver"]["build"] / "Dockerfile").is_file()
    (target,) = yaml.safe_load(CONFIG.read_text())["scrape_configs"][0]["static_configs"]
    assert target["targets"] == ["perceiver:8000"]
    source = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    (prometheus,) = source["datasources"]
    assert prometheus["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {prometheus["uid"]}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Prometheus")
def test_prometheus_accepts_all_of_it(client: httpx.Client, tmp_path: Path):
    for command, text in (
        (["check", "config", str(CONFIG)], None),
        (["check", "rules", str(ALERTS)], None),
        (["check", "metrics"], client.get("/metrics").text),
    ):
        checked = subprocess.run(
            ["promtool", *command], input=text, capture_output=True, text=True, timeout=60
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
