"""A router that answers as scripted, in this process."""
import contextlib
import threading
from concurrent import futures

import grpc

from salamander.v1 import cluster_pb2, cluster_pb2_grpc, inference_pb2, inference_pb2_grpc

MAX_MESSAGE_BYTES = 256 << 20


def script():
    """The events of a usual answer."""
    pb = inference_pb2
    logprob = pb.TokenLogprob(token=5, logprob=-0.5, top=[pb.TopLogprob(token=5, logprob=-0.5)])
    timing = pb.Timing(ttft=1.5, router_queue=0.25, prefill=1.25, tokens_per_second=40)
    return [
        pb.GenerateResponse(accepted=pb.Accepted(request_id="r1", prompt_tokens=9)),
        pb.GenerateResponse(progress=pb.Progress(prompt_tokens=9, prefilled_tokens=4, tokens_per_second=2)),
        pb.GenerateResponse(),  # an event of a later protocol
        pb.GenerateResponse(tokens=pb.TokenChunk(ids=[5], text="Hi", logprobs=[logprob])),
        pb.GenerateResponse(tokens=pb.TokenChunk(ids=[6, 7], text=" caf\u00e9")),
        pb.GenerateResponse(finished=pb.Finished(
            reason=pb.FINISH_REASON_STOP, usage=pb.Usage(prompt_tokens=9, completion_tokens=3), timing=timing,
            spans=[pb.PlannedSpan(begin=0, end=9, worker="p0")], decode_worker="d0", seed=2**64 - 1)),
    ]


class FakeRouter(inference_pb2_grpc.InferenceServicer, cluster_pb2_grpc.ClusterServicer):
    def __init__(self):
        self.events = script()
        self.error = None  # (code, message) to end calls with
        self.trailing_metadata = ()
        self.hang = False  # after the events: wait until the client goes
        self.requests = []
        self.metadata = []  # of all calls
        self.client_gone = threading.Event()

    def _end(self, context):
        context.set_trailing_metadata(self.trailing_metadata)
        if self.error is not None:
            context.abort(*self.error)

    def Generate(self, request, context):
        self.requests.append(request)
        if self.hang:
            context.add_callback(self.client_gone.set)
        yield from self.events
        if self.hang:
            self.client_gone.wait(20)
        self._end(context)

    def Tokenize(self, request, context):
        self.requests.append(request)
        self._end(context)
        return inference_pb2.TokenizeResponse(ids=request.prompt.tokens.ids or [1, 2, 3])

    def GetModel(self, request, context):
        self._end(context)
        return inference_pb2.GetModelResponse(name="m", fingerprint="f", vocab_size=8, max_total_tokens=100,
                                              eos_token_ids=[2], max_logprobs=20, default_max_tokens=16)

    def GetStatus(self, request, context):
        self._end(context)
        last = cluster_pb2.Heartbeat(
            ready=True, free_memory_bytes=6, memory_capacity_bytes=10,
            memory=[cluster_pb2.MemoryOwner(owner="pages", bytes=4)],
            links=[cluster_pb2.LinkStatus(peer_name="d0", connected=True, bytes_per_second=1e9, transport="tcp")])
        return cluster_pb2.GetStatusResponse(
            router_version="1", ready=True, queued_requests=2, model=inference_pb2.GetModelResponse(name="m"),
            workers=[cluster_pb2.WorkerStatus(role=cluster_pb2.WORKER_ROLE_PREFILL, name="p0", last=last)])


class _Recorder(grpc.ServerInterceptor):
    def __init__(self, router):
        self.router = router

    def intercept_service(self, continuation, handler_call_details):
        self.router.metadata.append(dict(handler_call_details.invocation_metadata))
        return continuation(handler_call_details)


@contextlib.contextmanager
def serve(credentials=None):
    """A FakeRouter and its address."""
    router = FakeRouter()
    server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[_Recorder(router)], options=[
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)])
    inference_pb2_grpc.add_InferenceServicer_to_server(router, server)
    cluster_pb2_grpc.add_ClusterServicer_to_server(router, server)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield router, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
