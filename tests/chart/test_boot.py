"""The rendered chart boots: its pods run as its manifests say, on this machine (pods.py), and serve, scale and drain."""
import concurrent.futures
import pathlib
import re
import time

import pytest
from asking import ask, ask_long, client, scrape
from chart import example, manifests, merged, of_kind, workloads

@pytest.fixture(scope="module", name="node")
def _node(boot):
    """The example for processors, with all its pods ready."""
    with boot(merged(example("cpu"), {"drain": {"endpointSeconds": 1}})) as node:
        for item in workloads(node.objects).values():
            if item["kind"] == "Deployment":
                for number in range(item["spec"]["replicas"]):
                    node.start(item, number)
        for router in node.of("router"):
            router.wait_for("startupProbe")
            assert router.probe("livenessProbe")
            assert not router.probe("readinessProbe"), "a router without workers is not ready"
        for item in workloads(node.objects).values():
            if item["kind"] == "StatefulSet":
                for number in range(item["spec"]["replicas"]):
                    node.start(item, number)
        for pod in node.pods.values():
            pod.wait_for("startupProbe")
        for pod in node.pods.values():
            pod.wait_for("readinessProbe")
            assert pod.probe("livenessProbe")
        yield node


def listening_ports(pod):
    """Of the pod's network: TCP ports in LISTEN that can be reached from outside of it."""
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pod.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and not fields[1].startswith("0100007F"):
                ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    return ports


def test_every_router_answers(node):
    routers = node.of("router")
    assert len(routers) == 2
    for router in routers:
        ask(router)
        with client(router) as to:
            status = to.status(timeout=10)
        assert status.ready
        names = {worker.name for worker in status.workers}
        assert names == {pod.name for role in ("prefill", "decode") for pod in node.of(role)}


def test_long_prompts_use_both_prefill_workers(node):
    before = {pod.name: scrape(pod) for pod in node.of("prefill")}
    ask(node.of("router")[0], size=40_000)
    tokens = re.compile(r"^salamander_prefill_tokens_total (\S+)", re.M)
    for pod in node.of("prefill"):
        assert float(tokens.search(scrape(pod)).group(1)) > float(tokens.search(before[pod.name]).group(1))


def test_processes_are_confined(node):
    for pod in node.pods.values():
        status = dict(re.findall(r"^(\w+):\s*(.*)$", pathlib.Path(f"/proc/{pod.pid}/status").read_text(), re.M))
        uid = str(pod.spec["securityContext"]["runAsUser"])
        assert status["Uid"].split() == [uid] * 4
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["NSpid"].split()[-1] == "1"
        mounts = [line.split() for line in pathlib.Path(f"/proc/{pod.pid}/mounts").read_text().splitlines()]
        writable = {path for _, path, _, options, *_ in mounts if "rw" in options.split(",")}
        writable = {path for path in writable if not path.startswith(("/proc", "/etc/hosts", "/dev/")) or path == "/dev/shm"}
        expected = {mount["mountPath"] for mount in pod.container["volumeMounts"] if not mount.get("readOnly")}
        assert writable == expected


def test_the_network_policy_lets_in_just_what_listens(node):
    """Each listening port has a rule and each rule's port somebody listening; the transport's is one of a range."""
    policies = of_kind(node.objects, "NetworkPolicy")
    for role, policy in {"router": "router", "prefill": "workers", "decode": "workers"}.items():
        rules = [port for rule in policies[f"demo-salamander-{policy}"]["spec"]["ingress"] for port in rule["ports"]]
        single = {port["port"] for port in rules if "endPort" not in port}
        ranges = [range(port["port"], port["endPort"] + 1) for port in rules if "endPort" in port]
        assert len(ranges) == (0 if role == "router" else 1)
        for pod in node.of(role):
            listening = listening_ports(pod)
            assert single <= listening, pod.name
            others = listening - single
            assert all(any(port in ports for ports in ranges) for port in others), pod.name
            assert bool(others) == bool(ranges), pod.name
            declared = {port["containerPort"] for port in pod.container["ports"]}
            assert declared == single, pod.name


def test_autoscalers_ask_for_metrics_that_exist(node):
    """Names and labels of the queries, in a live scrape of the role that is scaled by them."""
    scaled = {"prefill": {"kind": "keda"}, "decode": {"kind": "keda"}}
    by_kind = manifests(merged(example("cpu"), {
        "monitoring": {"prometheusAddress": "http://prometheus:9090"},
        **{role: {"autoscaling": auto} for role, auto in scaled.items()}}))
    by_kind += manifests(merged(example("cpu"), {
        "prefill": {"autoscaling": {"kind": "hpa"}}, "decode": {"autoscaling": {"kind": "hpa", "reservedBytes": "1Gi"}}}))
    asked = set()
    for item in [*of_kind(by_kind, "ScaledObject").values(), *of_kind(by_kind, "HorizontalPodAutoscaler").values()]:
        role = item["metadata"]["labels"]["app.kubernetes.io/component"]
        text = scrape(node.of(role)[0])
        for trigger in item["spec"].get("triggers", []):
            for name, labels in re.findall(r"(salamander_\w+)\{([^}]*)\}", trigger["metadata"]["query"]):
                asked.add((item["kind"], role, name))
                owners = re.search(r'owner=~"([^"]*)"', labels)
                for owner in owners.group(1).split("|") if owners else [None]:
                    wanted = f'{name}{{owner="{owner}"}} ' if owner else f"{name} "
                    assert f"\n{wanted}" in text, wanted
        for metric in item["spec"].get("metrics", []):
            name = metric["pods"]["metric"]["name"]
            asked.add((item["kind"], role, name))
            labels = metric["pods"]["metric"].get("selector", {}).get("matchLabels", {})
            wanted = name + ("{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else "")
            assert f"\n{wanted} " in text, wanted
    assert {(kind, role) for kind, role, _ in asked} == {
        (kind, role) for kind in ("ScaledObject", "HorizontalPodAutoscaler") for role in ("prefill", "decode")}


def test_a_new_router_is_found_by_the_workers(node):
    """As in a rolling upgrade: ready only once all workers have registered there, which they do by themselves."""
    deployment = next(iter(of_kind(node.objects, "Deployment").values()))
    router = node.start(deployment, 9)
    router.wait_for("startupProbe")
    router.wait_for("readinessProbe")
    ask(router, seed=2)


@pytest.mark.parametrize("role", ["router", "prefill", "decode"])
def test_a_pod_drains(node, role):
    """What runs when a pod is told to end is answered to its end, and the pod ends with 0 within its grace."""
    router = node.of("router")[-1]
    leaving = router if role == "router" else node.of(role)[-1]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        # Long enough to be running still, in the role that leaves; seconds.
        running = threads.submit(ask_long, router)
        deadline = time.monotonic() + 30
        busy = {"router": r"^salamander_router_running_requests 1", "prefill": r"^salamander_prefill_requests 1",
                "decode": r"^salamander_decode_requests 1"}[role]
        while not re.search(busy, scrape(leaving), re.M):
            assert time.monotonic() < deadline and not running.done()
            time.sleep(0.05)
        leaving.terminate()
        leaving.wait_for("readinessProbe", wanted=False)
        assert not running.done(), "the request was over before the pod drained: this shows nothing"
        leaving.endpoint = False
        node.update_names()
        running.result(timeout=120)
    assert leaving.wait_for_end() == 0, leaving.log.read_text()
    del node.pods[leaving.name]
    if role == "router":
        ask(node.of("router")[0], seed=3)  # the others know nothing of it
    else:
        node.start(leaving.owner, int(leaving.name.rsplit("-", 1)[1])).wait_for("startupProbe")
        others = node.of("router")
        end = time.monotonic() + 30
        while True:
            with client(others[0]) as to:
                if to.status(timeout=10).ready:
                    break
            assert time.monotonic() < end
            time.sleep(0.2)
        ask(others[0], seed=4)
