"""A worker with both roles, as its chart says, but on processors."""
from asking import ask, scrape
from chart import example, merged, workloads


def test_both_roles_in_one_pod(boot):
    values = merged(example("one-gpu"), {
        "drain": {"endpointSeconds": 1},
        "model": {"existingClaim": "", "hostPath": "/srv/model"},
        "worker": {"gpu": {"count": 0}, "resources": {"requests": {"memory": "1Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}}},
    })
    with boot(values) as node:
        for item in workloads(node.objects).values():
            node.start(item, 0)
        for pod in node.pods.values():
            pod.wait_for("startupProbe")
        (router,), (worker,) = node.of("router"), node.of("worker")
        router.wait_for("readinessProbe")
        ask(router, seed=6)
        assert "salamander_prefill_tokens_total" in scrape(worker)
        assert "salamander_decode_tokens_total" in scrape(worker, "metrics-decode")
        worker.terminate()
        assert worker.wait_for_end() == 0, worker.log.read_text()
