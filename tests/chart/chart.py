"""The chart, rendered by Helm's own code."""
import pathlib

import helm_python
import yaml

REPO = pathlib.Path(__file__).resolve().parents[2]
CHART = REPO / "helm/salamander"
EXAMPLES = sorted(path.stem for path in (CHART / "examples").glob("*.yaml"))
RELEASE, NAMESPACE = "demo", "inference"
ROLES = ("router", "prefill", "decode", "worker")

# The least that renders.
MINIMAL = {"allowInsecure": True, "model": {"hostPath": "/srv/model"}}


def example(name):
    return helm_python.values_from_yaml((CHART / f"examples/{name}.yaml").read_text())


def merged(values, changes):
    """`values` with nested `changes`."""
    result = dict(values)
    for key, change in changes.items():
        both = isinstance(change, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], change) if both else change
    return result


def render_text(values, chart=CHART):
    """Of each template that renders to anything, its text. Raises helm_python.HelmError."""
    with helm_python.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        rendered = loaded.render(values, name=RELEASE, namespace=NAMESPACE)
    return {path.removeprefix("salamander/templates/"): text for path, text in sorted(rendered.items()) if text.strip()}


def manifests(values, chart=CHART):
    texts = [text for path, text in render_text(values, chart).items() if path != "NOTES.txt"]
    return [manifest for text in texts for manifest in yaml.safe_load_all(text) if manifest]


def of_kind(objects, *kinds):
    return {item["metadata"]["name"]: item for item in objects if item["kind"] in kinds}


def workloads(objects):
    """Deployments and StatefulSets by name."""
    return of_kind(objects, "Deployment", "StatefulSet")


def component(item):
    return item["metadata"]["labels"]["app.kubernetes.io/component"]
