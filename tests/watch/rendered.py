"""What the chart gives to Prometheus and Grafana, taken from a render: rules, dashboards' expressions, autoscalers' queries."""
import json
import re

from chart import MINIMAL, NAMESPACE, RELEASE, REPO, manifests, merged, of_kind

# Autoscaling of both kinds for every role; a release has one.
KEDA = merged(MINIMAL, {"prefill": {"autoscaling": {"kind": "keda"}}, "decode": {"autoscaling": {"kind": "keda"}},
                        "monitoring": {"podMonitor": {"enabled": True}, "rules": {"enabled": True},
                                       "dashboards": {"enabled": True}, "prometheusAddress": "http://prometheus:9090"}})
HPA = merged(MINIMAL, {"prefill": {"autoscaling": {"kind": "hpa"}},
                       "decode": {"autoscaling": {"kind": "hpa", "reservedBytes": "1Gi"}}})
OBJECTS = manifests(KEDA)


def rule_files():
    """By name, what is in a PrometheusRule."""
    return {name.rsplit("-", 1)[1]: item["spec"] for name, item in of_kind(OBJECTS, "PrometheusRule").items()}


def rules():
    return [rule for spec in rule_files().values() for group in spec["groups"] for rule in group["rules"]]


def alerts():
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboards():
    return {board["title"]: board for item in of_kind(OBJECTS, "ConfigMap").values()
            for board in map(json.loads, item["data"].values())}


def dashboard_expressions():
    """Triples of dashboard, panel and expression."""
    return [(title, made["title"], target["expr"]) for title, board in dashboards().items() for made in board["panels"]
            for target in made["targets"]]


def autoscaler_queries():
    """What KEDA asks Prometheus, and what an adapter is asked for a HorizontalPodAutoscaler's pods."""
    queries = [trigger["metadata"]["query"] for item in of_kind(OBJECTS, "ScaledObject").values()
               for trigger in item["spec"]["triggers"] if trigger["type"] == "prometheus"]
    for item in of_kind(manifests(HPA), "HorizontalPodAutoscaler").values():
        for metric in item["spec"]["metrics"]:
            if metric["type"] == "Pods":
                labels = metric["pods"]["metric"].get("selector", {}).get("matchLabels", {})
                labels = {**labels, "namespace": NAMESPACE, "component": item["metadata"]["labels"]["app.kubernetes.io/component"]}
                selector = ", ".join(f'{name}="{value}"' for name, value in labels.items())
                queries.append(f"{metric['pods']['metric']['name']}{{{selector}}}")
    return queries


def metric_names(expression):
    """Names of ours, of recorded series, and of Prometheus's own, without the endings of a histogram's parts."""
    names = set(re.findall(r"\b(?:salamander[:_][a-z0-9_:]+|up|ALERTS)\b", re.sub(r'"[^"]*"', '""', expression)))
    for pattern in re.findall(r'__name__=~"([^"]*)"', expression):
        (prefix, choices, rest), = re.findall(r"^(\w+)\(([^)]*)\)(\w+)$", pattern)
        names |= {prefix + choice + rest for choice in choices.split("|")}
    return names


__all__ = ["NAMESPACE", "RELEASE", "REPO", "alerts", "autoscaler_queries", "dashboard_expressions", "dashboards",
           "metric_names", "rule_files", "rules"]
