"""The Python client against a real cluster: one that runs (--target=HOST:PORT), or one that is started here with the
programs of --bin and the demo model."""
import math
import pathlib
import signal
import subprocess
import threading

import pytest
import salamander_client as sc

MODEL = pathlib.Path(__file__).parents[3] / "tools" / "demo" / "sala-12m"
NEEDLE = "The secret key of the golden harbor is 60817."
QUESTION = "What is the secret key of the golden harbor?"


@pytest.fixture(scope="module")
def target(request):
    given = request.config.getoption("--target")
    if given:
        yield given
        return
    program = pathlib.Path(request.config.getoption("--bin")) / "salamander"
    command = [program, "serve", f"--model={MODEL}", "--listen=127.0.0.1:0", "--prefill_workers=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        address = next((line.split()[1] for line in process.stdout if line.startswith("ready ")), None)
        watchdog.cancel()
        assert address, "salamander serve ended before it was ready"
        yield address
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.fixture
def client(target):
    with sc.Client(target) as client:
        yield client


def ask(text):
    return [{"role": "user", "content": f"{text}\n{QUESTION}"}]


def test_finds_a_key_and_tells_how(client):
    text = "The weather was calm that day. " * 200
    events = []
    answer = client.complete(chat=ask(text + NEEDLE + text), max_tokens=16, temperature=0.0, logprobs=2,
                             on_event=events.append, timeout=60)
    assert answer.text.strip() == "60817"
    assert answer.finished.reason == "stop"
    assert isinstance(events[0], sc.Accepted) and isinstance(events[-1], sc.Finished)
    assert answer.finished.usage.prompt_tokens == events[0].prompt_tokens == answer.finished.spans[-1].end
    assert answer.finished.usage.completion_tokens == len(answer.tokens) == len(answer.logprobs)
    assert all(logprob.top[0].token == logprob.token and logprob.logprob <= 0 for logprob in answer.logprobs)
    timing = answer.finished.timing
    parts = (timing.router_queue + timing.prefill_queue + timing.prefill + timing.transfer_exposed
             + timing.decode_queue + timing.first_step)
    assert math.isclose(parts, timing.ttft, abs_tol=1e-3)


def test_token_ids_give_what_text_gives(client):
    tokens = client.tokenize(chat=ask(NEEDLE))
    assert tokens[0] == 1
    from_text = client.complete(chat=ask(NEEDLE), max_tokens=8, temperature=0.0, timeout=60)
    from_tokens = client.complete(tokens=tokens, max_tokens=8, temperature=0.0, timeout=60)
    assert from_tokens.tokens == from_text.tokens


def test_the_same_seed_gives_the_same_tokens(client):
    options = {"text": "Once upon a time", "max_tokens": 12, "temperature": 1.0, "ignore_eos": True, "timeout": 60}
    first = client.complete(seed=5, **options)
    assert client.complete(seed=5, **options).tokens == first.tokens
    drawn = client.complete(**options)
    assert client.complete(seed=drawn.finished.seed, **options).tokens == drawn.tokens


def test_bad_requests_name_the_field(client):
    for options, field in (({"text": ""}, "prompt"), ({"text": b"\xff"}, "UTF-8"), ({"tokens": [-1]}, "token"),
                           ({"tokens": [10**6]}, "token"), ({}, "prompt"), ({"text": "a", "tokens": [1]}, "prompt"),
                           ({"text": "a", "max_tokens": 0}, "max_tokens"),
                           ({"text": "a", "temperature": math.nan}, "temperature"),
                           ({"text": "a", "top_p": 0.0}, "top_p"), ({"text": "a", "stop": [""]}, "stop")):
        with pytest.raises(sc.InvalidArgument, match=field):
            client.complete(timeout=60, **options)


def test_a_deadline_and_a_cancelled_call_end_the_request(client):
    long = {"text": "word " * 20000, "max_tokens": 1000, "ignore_eos": True}
    with pytest.raises((sc.DeadlineExceeded, sc.ResourceExhausted)):
        client.complete(timeout=0.2, **long)
    with client.generate(timeout=60, **long) as call:
        assert isinstance(next(call), sc.Accepted)
    # The router goes on serving.
    assert client.complete(chat=ask(NEEDLE), max_tokens=8, temperature=0.0, timeout=60).text.strip() == "60817"


def test_model_and_status(client):
    model = client.get_model()
    assert model.vocab_size == 4096 and model.eos_token_ids == [2, 4] and len(model.fingerprint) == 32
    status = client.status()
    assert status.ready and status.model == model
    roles = [worker.role for worker in status.workers]
    assert "decode" in roles and "prefill" in roles
    for worker in status.workers:
        assert 0 < worker.memory_free_bytes <= worker.memory_capacity_bytes
