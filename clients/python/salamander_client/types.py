"""What a router answers, as plain dataclasses. proto/salamander/v1 describes every field."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Union

from salamander.v1 import cluster_pb2, inference_pb2

FinishReason = Literal["stop", "length", "unknown"]
_FINISH_REASONS: dict[int, FinishReason] = {
    inference_pb2.FINISH_REASON_STOP: "stop",
    inference_pb2.FINISH_REASON_LENGTH: "length",
}
WorkerRole = Literal["prefill", "decode", "unknown"]
_WORKER_ROLES: dict[int, WorkerRole] = {
    cluster_pb2.WORKER_ROLE_PREFILL: "prefill",
    cluster_pb2.WORKER_ROLE_DECODE: "decode",
}

# ---- events of generate, in this order: Accepted, Progress…, TokenChunk…, Finished


@dataclass(frozen=True)
class Accepted:
    """The request is valid and queued."""

    request_id: str
    prompt_tokens: int


@dataclass(frozen=True)
class Progress:
    """How far the prefill is. A rate of 0 is not known yet."""

    prompt_tokens: int
    prefilled_tokens: int
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class TopLogprob:
    token: int
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    token: int
    logprob: float
    top: list[TopLogprob]  # likeliest first


@dataclass(frozen=True)
class TokenChunk:
    """Output tokens, and the text that became certain with them: whole characters, possibly none."""

    ids: list[int]
    text: str
    logprobs: list[TokenLogprob]  # one per id when asked for


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timing:
    """Seconds on the router's clock. The six parts after ttft add up to it."""

    ttft: float
    router_queue: float
    prefill_queue: float
    prefill: float
    transfer_exposed: float
    decode_queue: float
    first_step: float
    tokens_per_second: float  # of the tokens after the first


@dataclass(frozen=True)
class PlannedSpan:
    """Tokens [begin, end) of the prompt were computed by `worker`."""

    begin: int
    end: int
    worker: str


@dataclass(frozen=True)
class Finished:
    reason: FinishReason
    usage: Usage
    timing: Timing
    spans: list[PlannedSpan]
    decode_worker: str
    seed: int


Event = Union[Accepted, Progress, TokenChunk, Finished]


@dataclass
class Completion:
    """A whole answer. `finished` is there once the answer is complete."""

    request_id: str = ""
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finished: Finished | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, Accepted):
            self.request_id = event.request_id
        elif isinstance(event, TokenChunk):
            self.tokens += event.ids
            self.text += event.text
            self.logprobs += event.logprobs
        elif isinstance(event, Finished):
            self.finished = event


# ---- the model and the cluster


@dataclass(frozen=True)
class ModelInfo:
    name: str
    fingerprint: str
    vocab_size: int
    max_total_tokens: int  # of prompt and max_tokens together
    eos_token_ids: list[int]
    max_logprobs: int
    default_max_tokens: int


@dataclass(frozen=True)
class LinkStatus:
    peer: str
    connected: bool
    bytes_per_second: float  # measured when the link was warmed
    transport: str
    error: str  # why it is not connected


@dataclass(frozen=True)
class WorkerStatus:
    role: WorkerRole
    name: str
    instance_id: int  # random per process start
    address: str
    version: str
    transport: str
    ready: bool
    running_requests: int  # of this router
    active_requests: int  # of all routers
    queued_tokens: int  # prefill: of spans not finished
    tokens_per_second: float  # recent; 0: unknown
    memory_capacity_bytes: int
    memory_free_bytes: int
    memory_by_owner: dict[str, int]
    links: list[LinkStatus]
    seconds_since_heartbeat: float


@dataclass(frozen=True)
class ClusterStatus:
    router_version: str
    model: ModelInfo
    ready: bool  # a request sent now would find a prefill and a decode worker
    queued_requests: int
    running_requests: int
    queue_limit: int
    router_cpu_seconds: float  # of processor time, since it started
    workers: list[WorkerStatus]


# ---- from the protocol's messages


def event_from_proto(message: inference_pb2.GenerateResponse) -> Event | None:
    """None for an event that this version does not know."""
    kind = message.WhichOneof("event")
    if kind == "accepted":
        return Accepted(message.accepted.request_id, message.accepted.prompt_tokens)
    if kind == "progress":
        progress = message.progress
        return Progress(progress.prompt_tokens, progress.prefilled_tokens, progress.tokens_per_second,
                        progress.seconds_left)
    if kind == "tokens":
        return TokenChunk(list(message.tokens.ids), message.tokens.text,
                          [_logprob_from_proto(logprob) for logprob in message.tokens.logprobs])
    if kind == "finished":
        return _finished_from_proto(message.finished)
    return None


def _logprob_from_proto(message: inference_pb2.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(message.token, message.logprob, [TopLogprob(top.token, top.logprob) for top in message.top])


def _finished_from_proto(message: inference_pb2.Finished) -> Finished:
    timing = message.timing
    return Finished(
        reason=_FINISH_REASONS.get(message.reason, "unknown"),
        usage=Usage(message.usage.prompt_tokens, message.usage.completion_tokens),
        timing=Timing(timing.ttft, timing.router_queue, timing.prefill_queue, timing.prefill, timing.transfer_exposed,
                      timing.decode_queue, timing.first_step, timing.tokens_per_second),
        spans=[PlannedSpan(span.begin, span.end, span.worker) for span in message.spans],
        decode_worker=message.decode_worker,
        seed=message.seed)


def model_from_proto(message: inference_pb2.GetModelResponse) -> ModelInfo:
    return ModelInfo(message.name, message.fingerprint, message.vocab_size, message.max_total_tokens,
                     list(message.eos_token_ids), message.max_logprobs, message.default_max_tokens)


def status_from_proto(message: cluster_pb2.GetStatusResponse) -> ClusterStatus:
    return ClusterStatus(
        router_version=message.router_version, model=model_from_proto(message.model), ready=message.ready,
        queued_requests=message.queued_requests, running_requests=message.running_requests,
        queue_limit=message.queue_limit, router_cpu_seconds=message.router_cpu_seconds,
        workers=[_worker_from_proto(worker) for worker in message.workers])


def _worker_from_proto(message: cluster_pb2.WorkerStatus) -> WorkerStatus:
    last = message.last
    return WorkerStatus(
        role=_WORKER_ROLES.get(message.role, "unknown"), name=message.name, instance_id=message.instance_id,
        address=message.grpc_address, version=message.build_version, transport=message.transport_name,
        ready=last.ready, running_requests=message.running_requests, active_requests=last.active_requests,
        queued_tokens=last.queued_tokens, tokens_per_second=last.tokens_per_second,
        memory_capacity_bytes=last.memory_capacity_bytes, memory_free_bytes=last.free_memory_bytes,
        memory_by_owner={owner.owner: owner.bytes for owner in last.memory},
        links=[LinkStatus(link.peer_name, link.connected, link.bytes_per_second, link.transport, link.error)
               for link in last.links],
        seconds_since_heartbeat=message.seconds_since_heartbeat)
