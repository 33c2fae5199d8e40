"""Rules and dashboards by themselves: what promtool says of them, when each alert fires, and that what they name exists."""
import json
import re
import subprocess
import sys

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from rendered import (REPO, alerts, autoscaler_queries, dashboard_expressions, dashboards, metric_names, rule_files, rules)

# Of each alert: what is scraped each minute (promtool's notation), and minutes when it does not fire yet, when it does, and
# when it is over. Faults begin at minute 10 and end at minute 40. promtool takes groups in any order: what depends on recorded
# series may be a minute later.
R = 'namespace="n", release="r"'
QUIET, BEGIN, END = 10, 30, 60


def phases(before, during, after):
    """Values that stay, then others, then others."""
    return f"{before}x{QUIET - 1} {during}x{BEGIN - 1} {after}x{END - 1}"


def counting(steps):
    """A counter that grows by so many a minute before, during and after."""
    values, total = [], 0
    for step, minutes in zip(steps, (QUIET, BEGIN, END)):
        for _ in range(minutes):
            values.append(str(total))
            total += step
    return " ".join(values)


def requests(outcome, steps):
    return {f'salamander_router_requests_total{{{R}, outcome="{outcome}"}}': counting(steps)}


def ttft(part, steps):
    """The part takes these seconds of a minute, and all other parts 10."""
    series = {}
    for name in ("router_queue", "prefill_queue", "prefill", "transfer_exposed", "decode_queue", "first_step"):
        series[f"salamander_router_ttft_{name}_seconds_sum{{{R}}}"] = counting(steps if name == part else (2, 2, 2))
    series[f"salamander_router_ttft_seconds_sum{{{R}}}"] = counting([10 + step for step in steps])
    return series


CASES = {
    "SalamanderTargetDown": ({f'up{{{R}, component="decode", pod="p"}}': phases(1, 0, 1)}, 11, 12, 40),
    "SalamanderNoWorkers": ({f'salamander_router_workers{{{R}, role="decode", ready="true", pod="a"}}': phases(1, 0, 1),
                             f'salamander_router_workers{{{R}, role="decode", ready="true", pod="b"}}': phases(1, 1, 1)},
                            10, 11, 40),
    "SalamanderWorkerNotReady": ({f'salamander_router_workers{{{R}, role="decode", ready="false"}}': phases(0, 1, 0)},
                                 19, 20, 40),
    "SalamanderWorkerLost": ({f'salamander_router_lost_workers_total{{{R}, role="decode"}}': phases(0, 1, 1)}, 9, 10, 20),
    "SalamanderLinkDown": ({f'salamander_prefill_link_connected{{{R}, pod="p", peer="d"}}': phases(1, 0, 1)}, 11, 12, 40),
    "SalamanderErrors": ({**requests("OK", (100, 90, 100)), **requests("UNAVAILABLE", (0, 5, 0)),
                          **requests("INTERNAL", (0, 5, 0)), **requests("CANCELLED", (10, 10, 10))}, 14, 18, 47),
    "SalamanderDataLoss": ({**requests("OK", (1, 1, 1)), **requests("DATA_LOSS", (0, 1, 0))}, 9, 12, 51),
    "SalamanderRefusing": ({**requests("OK", (100, 90, 100)), **requests("RESOURCE_EXHAUSTED", (1, 10, 1))}, 14, 19, 47),
    "SalamanderQueueFull": ({f'salamander_router_queued_requests{{{R}, pod="p"}}': phases(100, 250, 100),
                             f'salamander_router_queue_limit_requests{{{R}, pod="p"}}': phases(256, 256, 256)}, 11, 12, 40),
    "SalamanderQueueing": (ttft("router_queue", (2, 40, 2)), 19, 24, 47),
    "SalamanderTransferExposed": (ttft("transfer_exposed", (2, 20, 2)), 19, 24, 47),
    "SalamanderDecodeMemoryFull": ({f'salamander_decode_reserved_bytes{{{R}, pod="d"}}': phases(10, 97, 10),
                                    f'salamander_decode_reservable_bytes{{{R}, pod="d"}}': phases(100, 100, 100)}, 19, 21, 41),
    "SalamanderForgedItems": ({f'salamander_prefill_stream_refused_total{{{R}, reason="secret"}}': phases(0, 2, 2),
                               f'salamander_decode_stream_refused_total{{{R}, reason="unknown"}}': phases(0, 3, 3)},
                              9, 10, 20),
    "SalamanderForeignCalls": ({f'salamander_process_unauthenticated_calls_total{{{R}, pod="p"}}': phases(0, 1, 1)}, 9, 10, 20),
    # promtool's clock begins at 0: the certificate ends after 7 days and 10 minutes, later after 30 days.
    "SalamanderCertificateExpires": ({f'salamander_process_certificate_expiry_timestamp_seconds{{{R}, pod="p"}}':
                                      phases(605400, 605400, 2592000)}, 19, 21, 41),
    "SalamanderKeysNotReloaded": ({f'salamander_router_key_reloads_total{{{R}, pod="p", outcome="failed"}}':
                                   phases(0, 1, 1)}, 9, 10, 40),
}


def promtool(*command):
    done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """The rules as files."""
    folder = tmp_path_factory.mktemp("rules")
    for name, spec in rule_files().items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    return folder


def test_promtool_takes_the_rules(folder):
    promtool("check", "rules", *map(str, folder.glob("*.yaml")))


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_when_it_should(alert, folder):
    series, quiet, fires, over = CASES[alert]
    firing = f'count(ALERTS{{alertname="{alert}", alertstate="firing", {R}}}) or vector(0)'
    test = {"interval": "1m", "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [{"expr": firing, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": count}]}
                                 for minute, count in ((quiet, 0), (fires, 1), (QUIET + BEGIN - 1, int(alert not in SHORT)),
                                                       (over, 0))]}
    path = folder / f"{alert}_test.yml"
    path.write_text(yaml.safe_dump({"rule_files": sorted(f"{name}.yaml" for name in rule_files()), "evaluation_interval": "1m",
                                    "tests": [test]}))
    promtool("test", "rules", str(path))


# Of one event, over before the staged fault is.
SHORT = {"SalamanderWorkerLost", "SalamanderForgedItems", "SalamanderForeignCalls"}


def test_every_alert_has_a_case_and_a_runbook():
    assert set(alerts()) == set(CASES)
    sections = re.findall(r"^### (Salamander\w+)$", (REPO / "docs/operations.md").read_text(), re.M)
    assert sorted(sections) == sorted(alerts())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
        assert rule["annotations"]["summary"], name


def test_every_metric_that_is_named_exists():
    documented = set(re.findall(r"^\| `(\w+)` \|", (REPO / "docs/metrics.md").read_text(), re.M))
    parts = {name + part for name in documented for part in ("_bucket", "_sum", "_count")}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for expression in [expr for _, _, expr in dashboard_expressions()] + [rule["expr"] for rule in rules()] + autoscaler_queries():
        names = metric_names(expression)
        assert names, expression
        assert not names - documented - parts - recorded - {"up", "ALERTS"}, expression


def test_every_recorded_series_is_used():
    used = set().union(*(metric_names(rule["expr"]) for rule in rules() if "alert" in rule),
                       *(metric_names(expr) for _, _, expr in dashboard_expressions()),
                       *(metric_names(rule["expr"]) for rule in rules() if "record" in rule))
    assert {rule["record"] for rule in rules() if "record" in rule} <= used


def test_dashboards_are_what_their_source_writes():
    subprocess.run([sys.executable, REPO / "tools/metrics/dashboards.py", "--check"], check=True)
    boards = dashboards()
    assert len(boards) == 6
    assert len({board["uid"] for board in boards.values()}) == len(boards)
    for board in boards.values():
        for made in board["panels"]:
            assert made["targets"] and made["datasource"]["uid"] == "${datasource}", made["title"]
            for target in made["targets"]:
                # Every series is of the chosen releases.
                assert target["expr"].count('namespace=~"$namespace", release=~"$release"') == target["expr"].count("{"), target


def lost(given, taken, where=""):
    """Fields of the one that the other lacks or has otherwise."""
    if isinstance(given, dict) and isinstance(taken, dict):
        return [path for key, value in given.items() for path in lost(value, taken.get(key), f"{where}.{key}")]
    if isinstance(given, list) and isinstance(taken, list) and len(given) == len(taken):
        return [path for i, (one, other) in enumerate(zip(given, taken)) for path in lost(one, other, f"{where}[{i}]")]
    return [] if given == taken else [where]


def test_grafana_understands_every_field_of_the_dashboards():
    plugins.register_default_plugins()
    for title, board in dashboards().items():
        assert lost(board, json.loads(JSONEncoder().encode(Dashboard.from_json(board)))) == [], title
