"""The Python client against a scripted router."""
import pathlib
import subprocess
import threading

import fake_router
import grpc
import pytest
import salamander_client as sc


@pytest.fixture
def router():
    with fake_router.serve() as (router, target):
        router.target = target
        yield router


@pytest.fixture
def client(router):
    with sc.Client(router.target) as client:
        yield client


def test_events_come_typed_and_in_order(client):
    events = list(client.generate(text="hello"))
    assert [type(event) for event in events] == [sc.Accepted, sc.Progress, sc.TokenChunk, sc.TokenChunk, sc.Finished]
    assert events[0] == sc.Accepted("r1", 9)
    assert events[1] == sc.Progress(9, 4, 2.0, 0.0)
    assert events[2] == sc.TokenChunk([5], "Hi", [sc.TokenLogprob(5, -0.5, [sc.TopLogprob(5, -0.5)])])
    finished = events[-1]
    assert finished.reason == "stop"
    assert finished.usage == sc.Usage(9, 3)
    assert (finished.timing.ttft, finished.timing.router_queue, finished.timing.prefill) == (1.5, 0.25, 1.25)
    assert finished.spans == [sc.PlannedSpan(0, 9, "p0")]
    assert (finished.decode_worker, finished.seed) == ("d0", 2**64 - 1)


def test_complete_puts_the_answer_together(client):
    seen = []
    answer = client.complete(text="hello", on_event=seen.append)
    assert (answer.request_id, answer.tokens, answer.text) == ("r1", [5, 6, 7], "Hi caf\u00e9")
    assert len(answer.logprobs) == 1
    assert answer.finished.reason == "stop"
    assert len(seen) == 5


def test_every_option_reaches_the_router(client, router):
    client.complete(chat=[{"role": "system", "content": "s"}, sc.ChatMessage("user", "\u00e9")], max_tokens=5,
                    temperature=0.0, top_p=0.5, top_k=4, min_p=0.25, repetition_penalty=1.5, presence_penalty=0.5,
                    frequency_penalty=-0.5, logit_bias={3: -1.5}, seed=2**64 - 1, stop=["END", 7], ignore_eos=True,
                    logprobs=0, priority=-3)
    request = router.requests[0]
    assert [(message.role, message.content) for message in request.prompt.chat.messages] == [
        ("system", b"s"), ("user", b"\xc3\xa9")]
    assert not request.prompt.HasField("text") and not request.prompt.HasField("tokens")
    assert request.max_tokens == 5 and request.ignore_eos and request.priority == -3
    assert request.HasField("logprobs") and request.logprobs == 0
    sampling = request.sampling
    assert sampling.HasField("temperature") and sampling.temperature == 0
    assert (sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 4, 0.25)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1.5, 0.5, -0.5)
    assert dict(sampling.logit_bias) == {3: -1.5} and sampling.seed == 2**64 - 1
    assert [(stop.text, stop.token_id) for stop in request.stop] == [(b"END", 0), (b"", 7)]


def test_what_is_not_given_is_not_sent(client, router):
    client.complete(text="")
    request = router.requests[0]
    assert request.prompt.HasField("text")  # empty, which the router refuses by name
    assert not request.HasField("max_tokens") and not request.HasField("logprobs")
    assert request.sampling.ByteSize() == 0


def test_large_prompts_pass(client, router):
    tokens = list(range(1_500_000))
    assert client.tokenize(tokens=tokens) == tokens
    text = "x" * (8 << 20)  # above gRPC's default limit
    client.complete(text=text)
    assert len(router.requests[-1].prompt.text) == len(text)


@pytest.mark.parametrize("code, kind", [
    (grpc.StatusCode.INVALID_ARGUMENT, sc.InvalidArgument),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, sc.ResourceExhausted),
    (grpc.StatusCode.UNAVAILABLE, sc.Unavailable),
    (grpc.StatusCode.DEADLINE_EXCEEDED, sc.DeadlineExceeded),
    (grpc.StatusCode.DATA_LOSS, sc.DataLoss),
    (grpc.StatusCode.CANCELLED, sc.Cancelled),
    (grpc.StatusCode.FAILED_PRECONDITION, sc.FailedPrecondition),
    (grpc.StatusCode.UNAUTHENTICATED, sc.Unauthenticated),
    (grpc.StatusCode.INTERNAL, sc.SalamanderError),
])
def test_each_code_has_its_exception(client, router, code, kind):
    router.error = (code, "top_p must be in (0, 1], got 2")
    for call in (lambda: client.complete(text="a"), lambda: client.tokenize(text="a"), client.get_model,
                 client.status):
        with pytest.raises(sc.SalamanderError) as raised:
            call()
        assert type(raised.value) is kind
        assert raised.value.code == code
        assert raised.value.message == "top_p must be in (0, 1], got 2"


def test_a_failure_comes_after_the_events_before_it(client, router):
    router.events = router.events[:4]
    router.error = (grpc.StatusCode.UNAVAILABLE, "prefill-1 is gone")
    call = client.generate(text="a")
    assert [type(next(call)) for _ in range(3)] == [sc.Accepted, sc.Progress, sc.TokenChunk]
    with pytest.raises(sc.Unavailable, match="prefill-1 is gone"):
        next(call)


def test_a_stream_without_an_end_is_an_error(client, router):
    router.events = router.events[:3]
    with pytest.raises(sc.Unavailable, match="before the answer did"):
        client.complete(text="a")


def test_retry_hint(client, router):
    router.error = (grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full")
    with pytest.raises(sc.ResourceExhausted) as raised:
        client.complete(text="a")
    assert raised.value.retry_after is None
    router.trailing_metadata = (("grpc-retry-pushback-ms", "1500"),)
    with pytest.raises(sc.ResourceExhausted) as raised:
        client.complete(text="a")
    assert raised.value.retry_after == 1.5


def test_leaving_the_with_statement_cancels(client, router):
    router.events, router.hang = router.events[:2], True
    with client.generate(text="a") as call:
        next(call)
    assert router.client_gone.wait(10)


def test_cancel_from_another_thread_wakes_the_reader(client, router):
    router.events, router.hang = router.events[:1], True
    call = client.generate(text="a")
    next(call)
    threading.Thread(target=call.cancel).start()
    with pytest.raises(sc.Cancelled):
        next(call)
    assert router.client_gone.wait(10)


def test_timeout_is_the_deadline(client, router):
    router.hang = True
    router.events = router.events[:1]
    with pytest.raises(sc.DeadlineExceeded):
        client.complete(text="a", timeout=0.5)
    assert router.client_gone.wait(10)


def test_no_router_is_unavailable():
    with sc.Client("127.0.0.1:1") as client, pytest.raises(sc.Unavailable):
        client.get_model()


def test_values_that_the_protocol_cannot_carry(client):
    for options in ({"tokens": [2**31]}, {"text": "\ud800"}, {"text": "a", "max_tokens": 2**63},
                    {"text": "a", "seed": -1}, {"text": "a", "logit_bias": {2**40: 1.0}}):
        with pytest.raises(sc.InvalidArgument):
            client.generate(**options)
    with pytest.raises(sc.InvalidArgument):
        client.tokenize(tokens=[-2**31 - 1])
    with pytest.raises(TypeError, match="temprature"):
        client.generate(text="a", temprature=1.0)


def test_model_and_status(client):
    assert client.get_model() == sc.ModelInfo("m", "f", 8, 100, [2], 20, 16)
    status = client.status()
    assert (status.ready, status.queued_requests, status.model.name) == (True, 2, "m")
    worker = status.workers[0]
    assert (worker.role, worker.name, worker.ready) == ("prefill", "p0", True)
    assert (worker.memory_capacity_bytes, worker.memory_free_bytes, worker.memory_by_owner) == (10, 6, {"pages": 4})
    assert worker.links == [sc.LinkStatus("d0", True, 1e9, "tcp", "")]


def test_api_key_goes_with_every_call(router):
    with sc.Client(router.target, api_key="sk-1") as client:
        client.complete(text="a")
        client.tokenize(text="a")
        client.get_model()
        client.status()
    with sc.Client(router.target) as client:
        client.get_model()
    assert [call.get("authorization") for call in router.metadata] == ["Bearer sk-1"] * 4 + [None]


def test_a_trace_context_goes_with_the_request(router):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with sc.Client(router.target, api_key="sk-1") as client:
        client.complete(text="x", traceparent=parent, tracestate="a=1")
        client.complete(text="x")
    sent, plain = router.metadata
    assert (sent["traceparent"], sent["tracestate"], sent["authorization"]) == (parent, "a=1", "Bearer sk-1")
    assert "traceparent" not in plain and "tracestate" not in plain


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Files of an authority, `ca`, and of one certificate, `own`, for both sides."""
    folder = tmp_path_factory.mktemp("certificates")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    (folder / "ext").write_text("subjectAltName=DNS:router.example\n")
    for command in (f"req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
                    f"req -x509 {key} -keyout other.key -out other.pem -days 2 -subj /CN=other",
                    f"req {key} -keyout own.key -out own.csr -subj /CN=own",
                    "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out own.pem"):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def secure_router(certificates):
    def read(name):
        return pathlib.Path(certificates / name).read_bytes()
    credentials = grpc.ssl_server_credentials([(read("own.key"), read("own.pem"))], read("ca.pem"),
                                              require_client_auth=True)
    with fake_router.serve(credentials) as (router, target):
        router.target = target
        yield router


def test_mutual_tls(secure_router, certificates):
    mutual = {"tls_cert": str(certificates / "own.pem"), "tls_key": str(certificates / "own.key")}
    right = {"tls_ca": str(certificates / "ca.pem"), "tls_server_name": "router.example", **mutual}
    with sc.Client(secure_router.target, **right) as client:
        assert client.complete(text="hello").text == "Hi caf\u00e9"
    for wrong in (right | {"tls_ca": str(certificates / "other.pem")}, right | {"tls_server_name": "elsewhere"},
                  {"tls_ca": right["tls_ca"], "tls_server_name": "router.example"}, {}):
        with sc.Client(secure_router.target, **wrong) as client, pytest.raises(sc.Unavailable):
            client.get_model(timeout=10)
    for wrong in (mutual, {"tls_ca": right["tls_ca"], "tls_cert": mutual["tls_cert"]}):
        with pytest.raises(sc.InvalidArgument, match="tls_"):
            sc.Client(secure_router.target, **wrong)
