"""What the chart renders to: by Helm's own code, against Kubernetes' own schemas."""
import difflib
import json
import pathlib
import re
import shutil

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from chart import (CHART, EXAMPLES, MINIMAL, NAMESPACE, RELEASE, component, example, manifests, merged, of_kind,
                   render_text, workloads)

HERE = pathlib.Path(__file__).parent
# The oldest and the newest that the chart is said to work with.
KUBERNETES = ("1.31", kubernetes_validate.latest_version())
# Everything that can be switched on, beside the examples.
EVERYTHING = merged(MINIMAL, {
    "fullnameOverride": "sala", "allowInsecure": False, "imagePullSecrets": [{"name": "pull"}],
    "model": {"hostPath": "", "claim": {"create": True, "storageClassName": "fast"}, "subPath": "9b"},
    "tls": {"enabled": True, "create": {"cert": "C", "key": "K", "ca": "A"}},
    "auth": {"clusterToken": {"value": "0123456789abcdef"},
             "apiKeys": {"keys": [{"name": "a", "sha256": "0" * 64, "requests_per_minute": 600}]}},
    "router": {"ingress": {"enabled": True, "className": "nginx", "host": "example.com", "tlsSecret": "t",
                           "annotations": {"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"}},
               "grpcRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]},
               "autoscaling": {"kind": "keda"}, "priorityClassName": "high", "runtimeClassName": "kata"},
    "prefill": {"autoscaling": {"kind": "hpa"}, "affinity": {"nodeAffinity": {}}},
    "decode": {"autoscaling": {"kind": "hpa", "reservedBytes": "40Gi"}},
    "worker": {"enabled": True, "gpu": {"count": 1}, "autoscaling": {"kind": "keda"}},
    "monitoring": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}, "rules": {"enabled": True},
                   "dashboards": {"enabled": True}, "prometheusAddress": "http://prometheus:9090"},
})
CASES = {**{name: example(name) for name in EXAMPLES}, "everything": EVERYTHING}


@pytest.fixture(scope="module", params=CASES, name="case")
def _case(request):
    return manifests(CASES[request.param])


@pytest.mark.parametrize("name", CASES)
def test_lint(name):
    report = helm_python.lint(CHART, CASES[name], strict=True, kube_version="v1.34.0")
    assert report["total_charts_linted"] == 1
    assert [entry for entry in report["messages"] if entry["severity"] >= 2] == []


def closed(schema):
    """The schema, with every object that lists its properties refusing others."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(part) for key, part in schema.items()}
    return {"additionalProperties": False, **result} if "properties" in schema else result


@pytest.fixture(scope="module")
def custom_kinds():
    return yaml.safe_load((HERE / "crds/schemas.yaml").read_text())


def validate(item, custom):
    if item["kind"] not in custom:
        for version in KUBERNETES:
            kubernetes_validate.validate(item, version, strict=True)
        return
    known = custom[item["kind"]]
    assert item["apiVersion"] == known["apiVersion"]
    assert set(item) == {"apiVersion", "kind", "metadata", "spec"}
    jsonschema.validate(item["spec"], closed({**known["spec"], "definitions": custom["definitions"]}))


def test_kubernetes_takes_it(case, custom_kinds):
    for item in case:
        validate(item, custom_kinds)
    names = [(item["kind"], item["metadata"]["name"]) for item in case]
    assert len(names) == len(set(names))


def test_the_schemas_refuse(custom_kinds):
    objects = manifests(EVERYTHING)
    for kind, breakage in {"Deployment": {"replcas": 1}, "StatefulSet": {"replicas": "two"}, "Service": {"typ": "x"},
                           "ScaledObject": {"trigers": []}, "PodMonitor": {"selector": 1},
                           "GRPCRoute": {"rules": []}, "NetworkPolicy": {"podSelector": 1}}.items():
        item = next(iter(of_kind(objects, kind).values()))
        with pytest.raises(jsonschema.ValidationError):
            validate({**item, "spec": {**item["spec"], **breakage}}, custom_kinds)


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden(name, request):
    """The whole render; files that dashboards and rules are made of are only named."""
    sections = []
    for path, text in render_text(example(name)).items():
        if path != "NOTES.txt":
            documents = [document for document in yaml.safe_load_all(text) if document]
            for document in documents:
                if document["kind"] == "PrometheusRule":
                    document["spec"] = "of the file"
                if document["kind"] == "ConfigMap":
                    document["data"] = dict.fromkeys(document["data"], "of the file")
            text = yaml.safe_dump_all(documents, sort_keys=True, width=118)
        sections.append(f"# {path}\n{text.strip()}\n")
    rendered = "\n".join(sections)
    golden = HERE / f"golden/{name}.yaml"
    if request.config.getoption("--update"):
        golden.write_text(rendered)
    difference = difflib.unified_diff(golden.read_text().splitlines(), rendered.splitlines(), "golden", "rendered", lineterm="")
    assert list(difference) == [], "`make chart-golden` writes the golden files anew"


REFUSED = {
    "a typo": {"replicsa": 1},
    "a typo inside": {"router": {"replica": 1}},
    "a typo in a flag": {"router": {"flags": {"span_token": 8192}}},
    "another role's flag": {"decode": {"flags": {"max_span_tokens": 8192}}},
    "a flag of the chart's": {"prefill": {"flags": {"listen": "0.0.0.0:1"}}},
    "a word for a number": {"prefill": {"replicas": "two"}},
    "a number for a word": {"log": {"level": 3}},
    "a word of no meaning": {"router": {"flags": {"codec": "gzip"}}},
    "an uneven span": {"router": {"flags": {"span_tokens": 1000}}},
    "two GPUs for one process": {"decode": {"gpu": {"count": 2}}},
    "a key as it is": {"auth": {"apiKeys": {"keys": [{"name": "a", "sha256": "secret"}]}}},
    "a privileged port": {"ports": {"router": 443}},
    "a relative path": {"model": {"hostPath": "models"}},
    "own selectors in spreads": {"router": {"topologySpread": [
        {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]}},
    # What templates check.
    "no model": {"model": {"hostPath": ""}},
    "two models": {"model": {"existingClaim": "c"}},
    "no word on security": {"allowInsecure": False},
    "tls without the token": {"allowInsecure": False, "tls": {"enabled": True, "existingSecret": "s"}},
    "tls without a certificate": {"tls": {"enabled": True}},
    "a short token": {"auth": {"clusterToken": {"value": "short"}}},
    "nobody to decode": {"decode": {"enabled": False}},
    "keda without Prometheus": {"prefill": {"autoscaling": {"kind": "keda"}}},
    "runbooks nowhere": {"monitoring": {"rules": {"runbooks": "wiki"}}},
    "an hpa without a target": {"decode": {"autoscaling": {"kind": "hpa"}}},
    "ports the wrong way round": {"ports": {"transport": {"first": 3000, "last": 2000}}},
}


@pytest.mark.parametrize("what", REFUSED)
def test_refuses(what):
    manifests(MINIMAL)
    with pytest.raises(helm_python.HelmError):
        manifests(merged(MINIMAL, REFUSED[what]))


def test_refusals_name_the_value():
    with pytest.raises(helm_python.HelmError, match="replica"):
        manifests(merged(MINIMAL, {"router": {"replica": 1}}))
    with pytest.raises(helm_python.HelmError, match="exactly one of existingClaim"):
        manifests(merged(MINIMAL, {"model": {"existingClaim": "c"}}))


def test_every_default_is_in_the_schema():
    """And nothing but: an object of values.yaml and its schema have the same names."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values, part, path):
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].removeprefix("#/$defs/")]
        if "properties" not in part or path[-1:] == ["flags"]:
            return
        assert part["additionalProperties"] is False, path
        assert set(values) == set(part["properties"]) - {"global"}, path
        for key, value in values.items():
            if isinstance(value, dict):
                compare(value, part["properties"][key], path + [key])

    with helm_python.Chart.load(CHART) as loaded:
        compare(loaded.values, schema, [])


def test_pods_are_restricted(case):
    """The restricted Pod Security Standard, and more: nothing is written to the image, and there is no token."""
    pods = {name: item["spec"]["template"]["spec"] for name, item in workloads(case).items()}
    assert pods
    for pod in pods.values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["serviceAccountName"] in of_kind(case, "ServiceAccount")
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 10000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for sysctl in pod["securityContext"].get("sysctls", []):
            assert sysctl["name"] == "net.ipv4.ip_local_port_range"  # of Kubernetes' safe ones
        for container in pod["containers"]:
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                    "capabilities": {"drop": ["ALL"]}}
            assert "command" not in container  # the image's entry point
            writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            assert writable <= {"tmp", "shm"}
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert all("emptyDir" in volumes[name] for name in writable)
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    for account in of_kind(case, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False
    assert not of_kind(case, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


def test_grace_covers_what_runs():
    objects = manifests(merged(MINIMAL, {"worker": {"enabled": True}, "drain": {
        "longestPrefillSeconds": 100, "longestDecodeSeconds": 50, "endpointSeconds": 7}}))
    seconds = {}
    for item in workloads(objects).values():
        pod = item["spec"]["template"]["spec"]
        grace = next(arg for arg in pod["containers"][0]["args"] if arg.startswith("--grace_seconds="))
        seconds[component(item)] = (int(grace.split("=")[1]), pod["terminationGracePeriodSeconds"])
        sleep = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert seconds[component(item)][1] >= sum((seconds[component(item)][0], sleep, 10))
    assert seconds == {"router": (150, 172), "prefill": (100, 115), "decode": (150, 165), "worker": (150, 165)}


def test_tls_and_keys_reach_who_needs_them():
    objects = manifests(EVERYTHING)
    secrets = of_kind(objects, "Secret")
    assert json.loads(secrets["sala-api-keys"]["stringData"]["api-keys.json"])["keys"][0]["sha256"] == "0" * 64
    for item in workloads(objects).values():
        pod = item["spec"]["template"]["spec"]
        container = pod["containers"][0]
        flags = dict(arg.removeprefix("--").split("=", 1) for arg in container["args"] if "=" in arg)
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        used = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        files = [flags["tls_cert"], flags["tls_key"], flags["tls_ca"], flags["cluster_token_file"]]
        assert ("api_keys_file" in flags) == (component(item) == "router")
        files += [flags["api_keys_file"]] if "api_keys_file" in flags else []
        for file in files:
            folder, name = file.rsplit("/", 1)
            secret = secrets[used[mounts[folder]]]
            assert name in secret["stringData"] or name == "token" and secret["stringData"]["token"]
        assert "--allow_insecure" not in container["args"]
        # Kubernetes probes speak no TLS.
        health = int(flags["health_listen"].rsplit(":", 1)[1])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["grpc"]["port"] == health


def test_the_rules_lead_to_where_the_runbooks_are(custom_kinds):
    where = "https://git.example.com/salamander/blob/main/docs/operations.md"
    objects = manifests(merged(EVERYTHING, {"monitoring": {"rules": {"runbooks": where}}}))
    rules = of_kind(objects, "PrometheusRule")
    for item in rules.values():
        validate(item, custom_kinds)
    alerts = [rule for group in rules["sala-alerts"]["spec"]["groups"] for rule in group["rules"]]
    assert {rule["annotations"]["runbook_url"] for rule in alerts} == {f"{where}#{rule['alert'].lower()}" for rule in alerts}


def test_targets_say_their_release_and_role():
    """By the labels of their pods, which rules and dashboards rely on."""
    objects = manifests(EVERYTHING)
    for kind, field in {"PodMonitor": "podMetricsEndpoints", "ServiceMonitor": "endpoints"}.items():
        (monitor,) = of_kind(objects, kind).values()
        assert [endpoint["port"] for endpoint in monitor["spec"][field]] == ["metrics", "metrics-decode"]
        for endpoint in monitor["spec"][field]:
            labels = {rule["targetLabel"]: rule["sourceLabels"] for rule in endpoint["relabelings"]}
            assert labels == {"release": ["__meta_kubernetes_pod_label_app_kubernetes_io_instance"],
                              "component": ["__meta_kubernetes_pod_label_app_kubernetes_io_component"]}
    for item in workloads(objects).values():
        labels = item["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == RELEASE
        assert labels["app.kubernetes.io/component"] in ("router", "prefill", "decode", "worker")


def test_a_file_of_rules_and_a_dashboard_are_taken_as_they_are(tmp_path, custom_kinds):
    copy = shutil.copytree(CHART, tmp_path / "salamander")
    for folder in ("rules", "dashboards"):
        shutil.rmtree(copy / folder, ignore_errors=True)
        (copy / folder).mkdir()
    rules = {"groups": [{"name": "g", "rules": [{"alert": "Lost", "expr": 'up{a="{{ $labels.x }}"} == 0', "for": "5m",
                                                 "labels": {"severity": "page"},
                                                 "annotations": {"summary": "{{ $labels.pod }} is lost"}}]}]}
    dashboard = {"title": "Salamander", "panels": [{"legendFormat": "{{pod}}", "id": 1, "thresholds": [0.5, 1000000]}]}
    (copy / "rules/workers.yaml").write_text(yaml.safe_dump(rules))
    (copy / "dashboards/overview.json").write_text(json.dumps(dashboard))
    objects = manifests(EVERYTHING, copy)
    (rule,) = of_kind(objects, "PrometheusRule").values()
    validate(rule, custom_kinds)
    assert (rule["metadata"]["name"], rule["spec"]) == ("sala-workers", rules)
    (shown,) = of_kind(objects, "ConfigMap").values()
    validate(shown, custom_kinds)
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(shown["data"]["overview.json"]) == dashboard


def test_notes_say_how_to_send_a_request():
    notes = render_text(MINIMAL)["NOTES.txt"]
    assert f"kubectl -n {NAMESPACE} port-forward service/{RELEASE}-salamander-router 7000:7000" in notes
    assert re.search(r"salamander generate --target=127\.0\.0\.1:7000 ", notes)
    assert "WARNING: allowInsecure" in notes
    assert "--tls_ca" in render_text(EVERYTHING)["NOTES.txt"]
