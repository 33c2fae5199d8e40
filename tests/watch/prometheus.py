"""A real Prometheus on loopback that watches what it is told to, with the chart's rules in quick motion."""
import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import yaml
from cluster import wait_until

# Minutes of the rules are so many seconds here; scrapes come every second.
SECONDS_A_MINUTE = 1.5
UNITS = {"s": 1 / 60, "m": 1, "h": 60}


def quick(duration):
    """A duration of the rules: 5m is 7500ms."""
    number, unit = re.fullmatch(r"(\d+)([smh])", duration).groups()
    return f"{int(int(number) * UNITS[unit] * SECONDS_A_MINUTE * 1000)}ms"


def quick_expression(expression):
    return re.sub(r"\[(\d+[smh])\]", lambda match: f"[{quick(match.group(1))}]", expression)


def quick_rules(spec):
    groups = []
    for group in spec["groups"]:
        rules = []
        for rule in group["rules"]:
            made = {**rule, "expr": quick_expression(rule["expr"])}
            if "for" in rule:
                made["for"] = quick(rule["for"])
            rules.append(made)
        groups.append({**group, "rules": rules})
    return {"groups": groups}


class Prometheus:
    """Use it in a with statement. `rule_files`: specs by name."""

    def __init__(self, folder, rule_files):
        self.folder = folder
        self._targets = {}
        for name, spec in rule_files.items():
            (folder / f"{name}.rules.yaml").write_text(yaml.safe_dump(quick_rules(spec)))
        (folder / "targets.json").write_text("[]")
        (folder / "prometheus.yaml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["*.rules.yaml"],
            "scrape_configs": [{"job_name": "salamander",
                                "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]}]}))

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._log = (self.folder / "prometheus.log").open("w")
        self._child = subprocess.Popen(
            ["prometheus", f"--config.file={self.folder}/prometheus.yaml", f"--storage.tsdb.path={self.folder}/data",
             f"--web.listen-address={self.address}", "--log.level=warn"], stdout=self._log, stderr=subprocess.STDOUT)
        wait_until(self._ready, 30, "Prometheus is ready")
        return self

    def __exit__(self, *_):
        self._child.terminate()
        self._child.wait(30)
        self._log.close()

    def _ready(self):
        assert self._child.poll() is None, (self.folder / "prometheus.log").read_text()
        try:
            return self._get("/-/ready") is not None
        except OSError:
            return False

    def _get(self, path, **parameters):
        url = f"http://{self.address}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
            return answer.read()

    def watch(self, name, address, **labels):
        """Scrapes it from now on, instead of what had that name; no address: nothing any more."""
        self._targets.pop(name, None)
        if address:
            self._targets[name] = {"targets": [address], "labels": labels}
        new = self.folder / "targets.new"
        new.write_text(json.dumps(list(self._targets.values())))
        new.replace(self.folder / "targets.json")

    def wait_for_targets(self, count, release):
        """Until so many have been scraped more than once: from then on it sees what increases. It takes up to 10 s, as
        Prometheus takes in new targets every 5 s."""
        scraped = f'count_over_time(up{{release="{release}"}}[1m]) > 1'
        wait_until(lambda: len(self.query(scraped)) == count, 30, f"targets of {release} are scraped")

    def query(self, expression):
        return self._result("/api/v1/query", query=expression)

    def had_data(self, expression, since):
        """Whether there was a number, at any time since then."""
        series = self._result("/api/v1/query_range", query=expression, start=since, end=time.time(), step="1s")
        return any(value != "NaN" for one in series for _, value in one["values"])

    def firing(self):
        """Pairs of alert and release."""
        alerts = json.loads(self._get("/api/v1/alerts"))["data"]["alerts"]
        return {(alert["labels"]["alertname"], alert["labels"].get("release")) for alert in alerts if alert["state"] == "firing"}

    def rule_errors(self):
        groups = json.loads(self._get("/api/v1/rules"))["data"]["groups"]
        return {rule["name"]: rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")}

    def metrics(self):
        """Names of all that was scraped, with their types."""
        found = json.loads(self._get("/api/v1/metadata"))["data"]
        return {name: entries[0]["type"] for name, entries in found.items()}

    def _result(self, path, **parameters):
        try:
            return json.loads(self._get(path, **parameters))["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters['query']}: {error.read().decode()}") from error
