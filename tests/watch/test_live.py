"""A real Prometheus watches a cluster under load: every expression of every dashboard, rule and autoscaler returns numbers, and
every alert fires when its fault is made and is over once it is mended. The tests are one play, in this order."""
import re
import time

import grpc
import pytest
from cluster import ready_workers, wait_until, write_keys
from rendered import REPO, alerts, autoscaler_queries, dashboard_expressions, rules
from scene import KEYS, RELEASE, Scene

from prometheus import quick_expression
from salamander_client import InvalidArgument, ResourceExhausted, Unauthenticated

WINDOW = "10s"
# Panels that are empty as long as all goes well, and what fills them.
NEEDS_AN_EVENT = {("Salamander / Errors", "Alerts"): "an alert fires"}
STAGED = set()


@pytest.fixture(scope="module", name="scene")
def _scene(bin_folder, tmp_path_factory):
    with Scene(bin_folder, tmp_path_factory.mktemp("watch")) as scene:
        yield scene


def stage(scene, *names, release=RELEASE):
    """The fault is there: its alerts fire."""
    scene.wait_for_alerts(*names, release=release)
    STAGED.update(names)


def as_grafana_asks(expression):
    expression = quick_expression(expression)
    for variable, value in {"$__rate_interval": WINDOW, "$namespace": ".*", "$release": ".*"}.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def without_data(scene, since):
    """Panels, recorded series and queries of autoscalers that had no number since then."""
    asked = {(board, title): [] for board, title, _ in dashboard_expressions()}
    for board, title, expression in dashboard_expressions():
        asked[board, title].append(as_grafana_asks(expression))
    for rule in rules():
        if "record" in rule:
            asked["rule", rule["record"]] = [rule["record"], quick_expression(rule["expr"])]
    for query in autoscaler_queries():
        asked["autoscaler", query] = [query]
    return {where for where, expressions in asked.items()
            if not all(scene.prometheus.had_data(expression, since) for expression in expressions)}


def increase(scene, counter):
    """Of a counter, by all targets together, so far."""
    return sum(float(series["value"][1]) for series in scene.prometheus.query(counter))


def test_under_load_everything_has_data_and_nothing_fires(scene):
    scene.prometheus.wait_for_targets(4, RELEASE)
    since = time.time()
    with scene.load(clients=1), scene.load(clients=1, key="team-b", pause=1):
        wait_until(lambda: not without_data(scene, since) - set(NEEDS_AN_EVENT), 60,
                   lambda: f"data of {without_data(scene, since)}")
        assert without_data(scene, since) == set(NEEDS_AN_EVENT)
        assert scene.prometheus.firing() == set()
    assert scene.prometheus.rule_errors() == {}


def test_overload(scene):
    with scene.load(clients=12, pause=0.01, tokens=(2000, 4000)):
        stage(scene, "SalamanderQueueFull", "SalamanderRefusing", "SalamanderQueueing")


def test_refused_clients_are_counted(scene):
    with scene.client("team-b") as to, pytest.raises(ResourceExhausted):
        for _ in range(8):
            to.complete(tokens=[1], max_tokens=1, timeout=20)
    with scene.client("nobody's") as to, pytest.raises(Unauthenticated):
        to.complete(tokens=[1], max_tokens=1, timeout=20)
    with scene.client() as to, pytest.raises(InvalidArgument):
        to.complete(tokens=[-1], max_tokens=1, timeout=20)
    for counter in ('salamander_router_key_limited_total{key="team-b", limit="requests"}',
                    'salamander_router_unauthenticated_total{reason="unknown"}',
                    'salamander_router_requests_total{outcome="INVALID_ARGUMENT"}'):
        wait_until(lambda counter=counter: increase(scene, counter) > 0, 10, counter)


def test_a_stranger_calls_a_worker(scene):
    with scene.channel(scene.cluster.processes["decode-0"].grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/salamander.v1.DecodeWorker/Reserve")(b"", timeout=10)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    stage(scene, "SalamanderForeignCalls")


def test_a_certificate_ends_soon(scene):
    scene.authority.issue(days=1)
    stage(scene, "SalamanderCertificateExpires")
    scene.authority.issue(days=30)
    scene.wait_for_quiet("SalamanderCertificateExpires")


def test_keys_that_cannot_be_read(scene):
    (scene.folder / "keys.json").write_text("{")
    stage(scene, "SalamanderKeysNotReloaded")
    write_keys(scene.folder, **KEYS)


def most_tokens(client):
    """That a request may ask for: more have no room in a worker that is idle."""
    fits, fails = 1, 1 << 22
    while fails - fits > 1024:
        middle = (fits + fails) // 2
        try:
            with client.generate(tokens=[1], max_tokens=middle, ignore_eos=True, timeout=60) as call:
                next(call)
            fits = middle
        except InvalidArgument:
            fails = middle
    return fits


def test_decode_memory_is_used_up(scene):
    with scene.client() as to:
        with to.generate(tokens=[1], max_tokens=most_tokens(to), ignore_eos=True, timeout=120):
            stage(scene, "SalamanderDecodeMemoryFull")


def test_a_decode_worker_is_killed(scene):
    with scene.load(clients=2):
        wait_until(lambda: increase(scene, "salamander_decode_requests") > 0, 30, "a request that can be lost")
        scene.cluster.processes["decode-0"].kill()
        stage(scene, "SalamanderTargetDown", "SalamanderNoWorkers", "SalamanderWorkerLost", "SalamanderErrors")
        scene.start("decode", 0)
        wait_until(lambda: ready_workers(scene.router) == 3, 30, "the cluster is whole")
        scene.wait_for_quiet("SalamanderTargetDown", "SalamanderNoWorkers", "SalamanderErrors")


def test_a_drained_worker_is_not_lost(scene):
    lost = increase(scene, "salamander_router_lost_workers_total")
    scene.cluster.processes["prefill-1"].stop()
    wait_until(lambda: ready_workers(scene.router) == 2, 30, "the worker is gone")
    scene.start("prefill", 1)
    wait_until(lambda: ready_workers(scene.router) == 3, 30, "the cluster is whole")
    time.sleep(3)
    assert increase(scene, "salamander_router_lost_workers_total") == lost


def test_items_are_corrupted_and_forged(scene):
    faulty = scene.faulty("corrupt")
    assert not {alert for alert, release in scene.prometheus.firing() if release == "corrupt"}
    faulty.do("forge")
    stage(scene, "SalamanderForgedItems", release="corrupt")
    faulty.do("faults on")
    stage(scene, "SalamanderDataLoss", "SalamanderErrors", release="corrupt")
    assert increase(scene, 'salamander_decode_stream_checksum_failures_total{release="corrupt"}') > 0
    faulty.do("faults off")
    scene.wait_for_quiet("SalamanderForgedItems", "SalamanderDataLoss", "SalamanderErrors", release="corrupt")
    faulty.do("break")
    stage(scene, "SalamanderLinkDown", "SalamanderWorkerNotReady", release="corrupt")
    faulty.__exit__()
    scene.wait_for_quiet("SalamanderLinkDown", "SalamanderWorkerNotReady", release="corrupt")


def test_items_come_late(scene):
    faulty = scene.faulty("late")
    faulty.do("faults on")
    stage(scene, "SalamanderTransferExposed", release="late")
    faulty.do("faults off")
    scene.wait_for_quiet("SalamanderTransferExposed", release="late")
    faulty.__exit__()


def test_all_is_quiet_again(scene):
    assert STAGED == set(alerts())
    with scene.load(clients=1):
        wait_until(lambda: not scene.prometheus.firing(), 90, lambda: f"{scene.prometheus.firing()} are over")
    assert without_data(scene, scene.began) == set()
    assert scene.prometheus.rule_errors() == {}


def test_all_that_was_scraped_is_documented(scene):
    documented = dict(re.findall(r"^\| `(\w+)` \| (\w+)", (REPO / "docs/metrics.md").read_text(), re.M))
    assert scene.prometheus.metrics() == documented
