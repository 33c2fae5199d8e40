#!/usr/bin/env python3
"""Writes the Grafana dashboards of helm/salamander/dashboards from the few lines that each of their panels is here, or
compares them (--check)."""
import argparse
import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "helm/salamander/dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What stands for SEL in an expression, and for RATE: the metric's increase per second.
SELECTOR = 'namespace=~"$namespace", release=~"$release"'
RATE = "[$__rate_interval]"
WIDTH, GRAPH_HEIGHT, NUMBER_HEIGHT = 24, 8, 4
# Of the time to first token, in the order of time.
PARTS = ("router_queue", "prefill_queue", "prefill", "transfer_exposed", "decode_queue", "first_step")


def full(expression):
    return expression.replace("SEL", SELECTOR).replace("RATE", RATE)


def panel(kind, title, targets, unit, about, **more):
    """`targets`: pairs of expression and legend."""
    return {"type": kind, "title": title, "description": about, "datasource": SOURCE,
            "targets": [{"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": full(expression), "legendFormat": legend}
                        for i, (expression, legend) in enumerate(targets)],
            "fieldConfig": {"defaults": {"unit": unit}, "overrides": []}, **more}


def lines(title, *targets, unit="short", stack=False, about=""):
    made = panel("timeseries", title, targets, unit, about, options={"tooltip": {"mode": "multi", "sort": "desc"}})
    made["fieldConfig"]["defaults"]["min"] = 0
    made["fieldConfig"]["defaults"]["custom"] = (
        {"fillOpacity": 50, "stacking": {"mode": "normal"}} if stack else {"fillOpacity": 8})
    return made


def number(title, *targets, unit="short", about="", bad=None):
    """The newest value; red from `bad` on."""
    made = panel("stat", title, targets, unit, about, options={"reduceOptions": {"calcs": ["lastNotNull"]}})
    steps = [{"color": "green", "value": None}] + ([{"color": "red", "value": bad}] if bad is not None else [])
    made["fieldConfig"]["defaults"]["thresholds"] = {"mode": "absolute", "steps": steps}
    return made


def heat(title, histogram, unit="s", about=""):
    """How many observations fell into which bucket."""
    made = panel("heatmap", title, [(f"sum by (le) (increase({histogram}_bucket{{SEL}}RATE))", "{{le}}")], "short", about,
                 options={"calculate": False, "yAxis": {"unit": unit}, "color": {"mode": "scheme", "scheme": "Oranges"},
                          "cellGap": 1, "tooltip": {"mode": "single"}})
    made["targets"][0]["format"] = "heatmap"
    return made


def quantiles(title, histogram, by="", unit="s", about="", of=(0.5, 0.9, 0.99)):
    labels, legend = (f"{by}, ", f"{{{{{by}}}}} ") if by else ("", "")
    return lines(title, *((f"histogram_quantile({q}, sum by ({labels}le) (rate({histogram}_bucket{{SEL}}RATE)))",
                           f"{legend}p{q * 100:g}") for q in of), unit=unit, about=about)


def overview():
    ok = 'salamander_router_requests_total{outcome="OK", SEL}'
    return [
        [number("Ready workers", ('max by (role) (salamander_router_workers{ready="true", SEL})', "{{role}}"),
                about="As the routers see them."),
         number("Requests answered", (f"sum(rate({ok}RATE))", ""), unit="reqps"),
         number("Failed by a fault of the cluster", ("max(salamander:router_requests_failed:ratio_rate5m{SEL})", ""),
                unit="percentunit", bad=0.02),
         number("Refused", ("max(salamander:router_requests_refused:ratio_rate5m{SEL})", ""), unit="percentunit", bad=0.05),
         number("TTFT, p50 and p99", ("max(salamander:router_ttft_seconds:p50_rate5m{SEL})", "p50"),
                ("max(salamander:router_ttft_seconds:p99_rate5m{SEL})", "p99"), unit="s"),
         number("Time between tokens, p99", ("max(salamander:router_inter_token_seconds:p99_rate5m{SEL})", ""), unit="s")],
        [lines("Requests by outcome", ("sum by (outcome) (rate(salamander_router_requests_total{SEL}RATE))", "{{outcome}}"),
               unit="reqps", stack=True),
         lines("Requests in the routers", ("sum(salamander_router_queued_requests{SEL})", "queued"),
               ("sum(salamander_router_running_requests{SEL})", "running"),
               about="Queued: no worker has memory for them yet, or a router runs as many as it may.")],
        [lines("Tokens", ("sum(rate(salamander_prefill_tokens_total{SEL}RATE))", "prompt"),
               ("sum(rate(salamander_decode_tokens_total{SEL}RATE))", "generated"), unit="short",
               about="Per second, as the workers compute them."),
         lines("Length of completed requests", ("sum(rate(salamander_router_prompt_tokens_total{SEL}RATE)) "
                                                "/ sum(rate(salamander_router_request_prompt_tokens_count{SEL}RATE))", "prompt"),
               ("sum(rate(salamander_router_completion_tokens_total{SEL}RATE)) "
                "/ sum(rate(salamander_router_request_completion_tokens_count{SEL}RATE))", "generated"),
               about="Mean, in tokens.")],
        [lines("Workers by role and readiness", ("max by (role, ready) (salamander_router_workers{SEL})",
                                                 "{{role}}, ready {{ready}}")),
         lines("Why completed requests ended",
               ("sum by (reason) (rate(salamander_router_finished_requests_total{SEL}RATE))", "{{reason}}"), unit="reqps",
               stack=True)],
        [lines("Processors used", ("max by (pod) (rate(salamander_process_cpu_seconds_total{SEL}RATE))", "{{pod}}")),
         lines("Resident memory", ("max by (pod) (salamander_process_resident_bytes{SEL})", "{{pod}}"), unit="bytes"),
         lines("Threads and open files", ("max by (pod) (salamander_process_threads{SEL})", "{{pod}} threads"),
               ("max by (pod) (salamander_process_open_fds{SEL})", "{{pod}} files")),
         lines("Processes by version", ("count by (role, version) (salamander_build_info{SEL})", "{{role}} {{version}}"))],
    ]


def latency():
    def mean(part):
        return (f"sum(rate(salamander_router_ttft_{part}_seconds_sum{{SEL}}RATE)) "
                f"/ sum(rate(salamander_router_ttft_seconds_count{{SEL}}RATE))")

    return [
        [quantiles("Time to first token", "salamander_router_ttft_seconds"),
         heat("Time to first token", "salamander_router_ttft_seconds")],
        [lines("Parts of the time to first token", *((mean(part), part.replace("_", " ")) for part in PARTS), unit="s",
               stack=True, about="Means; together the mean time to first token."),
         lines("Parts as shares", ("avg by (part) (salamander:router_ttft:share_rate5m{SEL})", "{{part}}"),
               unit="percentunit", stack=True)],
        [lines("Parts, p99", *((f"histogram_quantile(0.99, sum by (le) (rate(salamander_router_ttft_{part}_seconds_bucket"
                                "{SEL}RATE)))", part.replace("_", " ")) for part in PARTS), unit="s"),
         heat("Prefill, of the time to first token", "salamander_router_ttft_prefill_seconds")],
        [quantiles("Time between tokens", "salamander_router_inter_token_seconds",
                   about="At the router, between two messages of tokens of a request."),
         heat("Time between tokens", "salamander_router_inter_token_seconds")],
        [quantiles("Time between tokens, at the decode workers", "salamander_decode_inter_token_seconds", by="pod", of=(0.99,)),
         quantiles("Choosing workers and plan", "salamander_router_decision_seconds", of=(0.5, 0.99))],
        [quantiles("Whole requests", "salamander_router_request_seconds", about="Completed ones, arrival to end."),
         heat("Whole requests", "salamander_router_request_seconds")],
    ]


def prefill():
    return [
        [lines("Tokens waiting", ("sum by (pod) (salamander_prefill_queued_tokens{SEL})", "{{pod}}"),
               ("sum(salamander_router_queued_tokens{SEL})", "in routers"), stack=True,
               about="Of spans not computed, and of requests that no worker has been found for yet. Autoscaling looks at the "
                     "former."),
         lines("Tokens computed", ("sum by (pod) (rate(salamander_prefill_tokens_total{SEL}RATE))", "{{pod}}"), stack=True,
               about="Per second.")],
        [lines("Rate inside of spans", ("sum by (pod) (salamander_prefill_tokens_per_second{SEL})", "{{pod}}"),
               about="Tokens per second, a moving average; what the router plans with."),
         lines("Active spans", ("sum by (pod) (salamander_prefill_active_spans{SEL})", "{{pod}}"))],
        [quantiles("Time of a span", "salamander_prefill_span_seconds", by="pod", of=(0.5, 0.99)),
         heat("Time of a span", "salamander_prefill_span_seconds")],
        [lines("Share of a span's time spent computing",
               ("sum by (pod) (rate(salamander_prefill_span_compute_seconds_sum{SEL}RATE)) "
                "/ sum by (pod) (rate(salamander_prefill_span_seconds_sum{SEL}RATE))", "{{pod}}"), unit="percentunit",
               about="The rest waits for earlier spans, which other workers compute, or for others on this worker."),
         quantiles("Computing a span", "salamander_prefill_span_compute_seconds", by="pod", of=(0.99,))],
        [heat("Prompts", "salamander_router_request_prompt_tokens", unit="short", about="Tokens of completed requests."),
         lines("Requests that hold memory", ("sum by (pod) (salamander_prefill_requests{SEL})", "{{pod}}")),
         lines("Memory of prefill workers",
               ("sum by (owner) (salamander_memory_bytes{owner!=\"capacity\", SEL} and on (instance) "
                "salamander_prefill_requests)", "{{owner}}"), unit="bytes", stack=True)],
    ]


def transfer():
    sent = 'salamander_prefill_stream_{}_total{{direction="sent", SEL}}'
    return [
        [lines("Sent", (f"sum by (pod) (rate({sent.format('encoded_bytes')}RATE))", "{{pod}}"), unit="Bps", stack=True,
               about="By prefill workers, to each other and to decode workers, as encoded."),
         lines("Received by decode workers",
               ('sum by (pod) (rate(salamander_decode_stream_encoded_bytes_total{direction="received", SEL}RATE))', "{{pod}}"),
               unit="Bps", stack=True),
         lines("Received by prefill workers",
               ('sum by (pod) (rate(salamander_prefill_stream_encoded_bytes_total{direction="received", SEL}RATE))', "{{pod}}"),
               unit="Bps", stack=True)],
        [lines("Encoded bytes for a raw one",
               ('sum by (codec) (rate(salamander_prefill_stream_encoded_bytes_total{direction="sent", codec="lossless", SEL}RATE)) '
                '/ sum by (codec) (rate(salamander_prefill_stream_raw_bytes_total{direction="sent", codec="lossless", SEL}RATE))',
                "{{codec}}"), unit="percentunit"),
         lines("Items", (f"sum by (codec) (rate({sent.format('items')}RATE))", "sent, {{codec}}"),
               ('sum by (codec) (rate(salamander_decode_stream_items_total{direction="received", SEL}RATE))',
                "decode, {{codec}}"), about="Per second."),
         lines("Memory in transfer", ('sum by (pod) (salamander_memory_bytes{owner="in_transfer", SEL})', "{{pod}}"),
               unit="bytes")],
        [quantiles("Transfer that nothing hides", "salamander_router_ttft_transfer_exposed_seconds",
                   about="Last span computed to all items verified: a part of the time to first token."),
         heat("Transfer that nothing hides", "salamander_router_ttft_transfer_exposed_seconds")],
        [lines("Links connected", ("sum by (pod) (salamander_prefill_link_connected{SEL})", "{{pod}}"),
               ("count by (pod) (salamander_prefill_link_connected{SEL})", "{{pod}} peers")),
         lines("Rate of links", ("max by (pod, peer) (salamander_prefill_link_bytes_per_second{SEL})", "{{pod}} to {{peer}}"),
               unit="Bps", about="Measured when they were made.")],
        [lines("Items corrupt or lost",
               ("sum by (pod) (rate(salamander_decode_stream_checksum_failures_total{SEL}RATE))", "{{pod}} corrupt"),
               ("sum by (pod) (rate(salamander_prefill_stream_checksum_failures_total{SEL}RATE))", "{{pod}} corrupt"),
               ("sum by (pod) (rate(salamander_decode_stream_lost_items_total{SEL}RATE))", "{{pod}} lost"),
               ("sum by (pod) (rate(salamander_prefill_stream_lost_items_total{SEL}RATE))", "{{pod}} lost")),
         lines("Items refused",
               ("sum by (reason) (rate(salamander_decode_stream_refused_total{SEL}RATE))", "decode, {{reason}}"),
               ("sum by (reason) (rate(salamander_prefill_stream_refused_total{SEL}RATE))", "prefill, {{reason}}"),
               about="Unknown ones are mostly late: their request has ended."),
         lines("Sends that failed",
               ("sum by (pod) (rate(salamander_prefill_stream_send_failures_total{SEL}RATE))", "{{pod}}"))],
    ]


def decode():
    return [
        [number("Reserved", ("max(salamander:decode_reserved:ratio{SEL})", ""), unit="percentunit", bad=0.95),
         number("Waiting in routers", ("sum(salamander_router_queued_requests{SEL})", "requests"),
                ("sum(salamander_router_queued_tokens{SEL})", "prompt tokens")),
         number("Sent back to the queue", ("sum by (reason) (increase(salamander_router_requeues_total{SEL}[1h]))", "{{reason}}"),
                about="In the last hour: a worker had no memory, or was lost, when a request was placed.")],
        [lines("Reserved memory of each worker",
               ("sum by (pod) (salamander_decode_reserved_bytes{SEL}) / sum by (pod) (salamander_decode_reservable_bytes{SEL})",
                "{{pod}}"), unit="percentunit", about="Of what requests may reserve. Autoscaling looks at it."),
         lines("Memory by owner", ('sum by (owner) (salamander_memory_bytes{owner!="capacity", SEL} and on (instance) '
                                   "salamander_decode_requests)", "{{owner}}"), unit="bytes", stack=True,
               about="What is free beyond what requests may reserve is for transfers.")],
        [lines("Requests", ("sum by (pod) (salamander_decode_requests{SEL})", "{{pod}} hold memory"),
               ("sum by (pod) (salamander_decode_decoding_requests{SEL})", "{{pod}} decode"),
               ("sum by (pod) (salamander_decode_waiting_requests{SEL})", "{{pod}} wait for a place"),
               about="Those that neither decode nor wait are receiving."),
         lines("Sent back to the queue", ("sum by (reason) (rate(salamander_router_requeues_total{SEL}RATE))", "{{reason}}"))],
        [lines("Tokens generated", ("sum by (pod) (rate(salamander_decode_tokens_total{SEL}RATE))", "{{pod}}"), stack=True,
               about="Per second."),
         lines("Rate of steps", ("sum by (pod) (salamander_decode_tokens_per_second{SEL})", "{{pod}}"),
               about="Tokens per second while the batch runs, a moving average."),
         heat("Batch", "salamander_decode_batch_size", unit="short", about="Sequences in a step.")],
        [quantiles("A step", "salamander_decode_step_seconds", by="pod", of=(0.5, 0.99)),
         heat("A step", "salamander_decode_step_seconds")],
        [quantiles("Wait for a place in the batch", "salamander_decode_queue_seconds", of=(0.5, 0.99)),
         quantiles("First step", "salamander_decode_first_step_seconds", of=(0.5, 0.99)),
         heat("Generated tokens", "salamander_router_request_completion_tokens", unit="short",
              about="Of completed requests.")],
    ]


def errors():
    return [
        [lines("Requests that did not end well",
               ('sum by (outcome) (rate(salamander_router_requests_total{outcome!="OK", SEL}RATE))', "{{outcome}}"),
               unit="reqps", stack=True),
         lines("Shares", ("salamander:router_requests_failed:ratio_rate5m{SEL}", "{{namespace}}/{{release}} failed"),
               ("salamander:router_requests_refused:ratio_rate5m{SEL}", "{{namespace}}/{{release}} refused"),
               unit="percentunit", about="Failed: UNAVAILABLE, DATA_LOSS or INTERNAL. Refused: RESOURCE_EXHAUSTED."),
         lines("Alerts", ('sum by (alertname) (ALERTS{alertstate="firing", alertname=~"Salamander.*", SEL})', "{{alertname}}"),
               about="Firing now.")],
        [lines("At prefill workers", ("sum by (outcome) (rate(salamander_prefill_requests_total{SEL}RATE))", "{{outcome}}"),
               unit="reqps", about="Cancelled: ended by the router, which every failed request is."),
         lines("At decode workers", ("sum by (outcome) (rate(salamander_decode_requests_total{SEL}RATE))", "{{outcome}}"),
               unit="reqps"),
         lines("Workers lost", ("max by (role) (increase(salamander_router_lost_workers_total{SEL}RATE))", "{{role}}")),
         lines("Process starts", ("max by (pod) (changes(salamander_process_start_time_seconds{SEL}[1h]))", "{{pod}}"),
               about="In the last hour, after the first.")],
        [lines("Queue", ("salamander_router_queued_requests{SEL} / salamander_router_queue_limit_requests{SEL}", "{{pod}}"),
               unit="percentunit", about="Of a router's queue_limit; beyond it requests are refused."),
         lines("Refused by API keys' limits",
               ("sum by (key, limit) (rate(salamander_router_key_limited_total{SEL}RATE))", "{{key}}: {{limit}}"), unit="reqps"),
         lines("Requests by API key", ("sum by (key) (rate(salamander_router_key_requests_total{SEL}RATE))", "{{key}}"),
               unit="reqps"),
         lines("Tokens by API key", ("sum by (key, kind) (rate(salamander_router_key_tokens_total{SEL}RATE))",
                                     "{{key}}: {{kind}}"))],
        [lines("Clients without a known key",
               ("sum by (reason) (rate(salamander_router_unauthenticated_total{SEL}RATE))", "{{reason}}"), unit="reqps"),
         lines("Calls without the cluster's token",
               ("sum by (pod) (rate(salamander_process_unauthenticated_calls_total{SEL}RATE))", "{{pod}}"), unit="reqps"),
         lines("New API keys' files", ("sum by (pod, outcome) (increase(salamander_router_key_reloads_total{SEL}RATE))",
                                       "{{pod}}: {{outcome}}")),
         lines("Certificates end in", ("min by (pod) (salamander_process_certificate_expiry_timestamp_seconds{SEL}) - time()",
                                       "{{pod}}"), unit="s")],
    ]


DASHBOARDS = {"overview": overview, "latency": latency, "prefill": prefill, "transfer": transfer, "decode-memory": decode,
              "errors": errors}


def variable(name, query):
    return {"name": name, "type": "query", "datasource": SOURCE, "query": query, "refresh": 2, "multi": True, "includeAll": True,
            "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


def dashboard(name):
    panels, top = [], 0
    for row in DASHBOARDS[name]():
        height = NUMBER_HEIGHT if all(made["type"] == "stat" for made in row) else GRAPH_HEIGHT
        for i, made in enumerate(row):
            width = WIDTH // len(row)
            panels.append({"id": len(panels) + 1, **made, "gridPos": {"x": i * width, "y": top, "w": width, "h": height}})
        top += height
    return {
        "uid": f"salamander-{name}", "title": f"Salamander / {name.replace('-', ' ').capitalize()}", "tags": ["salamander"],
        "schemaVersion": 39, "editable": True, "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "graphTooltip": 1,
        "links": [{"type": "dashboards", "title": "Salamander", "tags": ["salamander"], "keepTime": True, "includeVars": True,
                   "asDropdown": True}],
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            variable("namespace", "label_values(salamander_build_info, namespace)"),
            variable("release", 'label_values(salamander_build_info{namespace=~"$namespace"}, release)')]},
        "panels": panels,
    }


def text(name):
    """JSON with a line for each field and each panel, so that a change shows where it is."""
    board = dashboard(name)
    panels = ",\n  ".join(json.dumps(made) for made in board.pop("panels"))
    fields = ",\n ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in board.items())
    return f'{{\n {fields},\n "panels": [\n  {panels}\n ]\n}}\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    files = {FOLDER / f"{name}.json": text(name) for name in DASHBOARDS}
    if options.check:
        differ = [path.name for path, content in files.items() if not path.exists() or path.read_text() != content]
        differ += [path.name for path in FOLDER.iterdir() if path not in files]
        if differ:
            print(f"not as tools/metrics/dashboards.py writes them: {', '.join(differ)}; run `make dashboards`")
        return int(bool(differ))
    for path, content in files.items():
        path.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
