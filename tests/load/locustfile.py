"""locust's users on a cluster, through the Python client: `make locust-test`, or by hand

    locust -f tests/load/locustfile.py --headless --users=8 --spawn-rate=4 --run-time=20s --host=127.0.0.1:7000

Each user waits a random time, asks, reads the answer to its end, and so on (a closed loop; for arrivals that do not
wait, use `salamander bench serve`). The run fails, with exit code 1, if a request does. Only this machine is loaded.
"""
import math
import os
import random
import time

import grpc.experimental.gevent
from locust import User, between, events, task

import salamander_client as sc

grpc.experimental.gevent.init_gevent()  # locust's users are greenlets

MIN_TOKENS = int(os.environ.get("SALAMANDER_LOAD_MIN_TOKENS", "100"))
MAX_TOKENS = int(os.environ.get("SALAMANDER_LOAD_MAX_TOKENS", "4000"))
OUTPUT_TOKENS = int(os.environ.get("SALAMANDER_LOAD_OUTPUT_TOKENS", "16"))
TIMEOUT_SECONDS = 120


@events.init.add_listener
def only_this_machine(environment, **_):
    host = (environment.host or "").rpartition(":")[0]
    if host not in ("127.0.0.1", "localhost", "[::1]"):
        raise SystemExit(f"--host must be on this machine, got {environment.host!r}")


class Asker(User):
    wait_time = between(0.1, 0.5)

    def on_start(self):
        self.client = sc.Client(self.host)
        self.vocabulary = self.client.get_model(timeout=TIMEOUT_SECONDS).vocab_size

    def on_stop(self):
        self.client.close()

    @task
    def ask(self):
        length = round(math.exp(random.uniform(math.log(MIN_TOKENS), math.log(MAX_TOKENS))))
        prompt = [random.randrange(self.vocabulary) for _ in range(length)]
        begin, first_token, answer, error = time.perf_counter(), None, sc.Completion(), None
        try:
            with self.client.generate(tokens=prompt, max_tokens=OUTPUT_TOKENS, ignore_eos=True,
                                      timeout=TIMEOUT_SECONDS) as call:
                for event in call:
                    answer.add(event)
                    if first_token is None and answer.tokens:
                        first_token = time.perf_counter()
            if len(answer.tokens) != OUTPUT_TOKENS:
                error = ValueError(f"{len(answer.tokens)} tokens came for {OUTPUT_TOKENS}")
        except sc.SalamanderError as failure:
            error = failure
        self._report("whole request", begin, time.perf_counter(), len(answer.tokens), error)
        if first_token is not None:
            self._report("first token", begin, first_token, 1, None)

    def _report(self, name, begin, end, tokens, error):
        self.environment.events.request.fire(request_type="Generate", name=name, response_time=(end - begin) * 1e3,
                                             response_length=tokens, exception=error, context={})
