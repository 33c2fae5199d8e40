"""The client. Thread-safe; one per router is enough."""
from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar, Unpack

import grpc

from salamander.v1 import cluster_pb2, cluster_pb2_grpc, inference_pb2, inference_pb2_grpc
from salamander_client.errors import InvalidArgument, Unavailable, from_rpc_error
from salamander_client.request import GenerateOptions, PromptOptions, make_prompt, make_request
from salamander_client.types import (ClusterStatus, Completion, Event, Finished, ModelInfo, event_from_proto,
                                     model_from_proto, status_from_proto)

# The protocol's limit of a message: a prompt of millions of tokens.
MAX_MESSAGE_BYTES = 256 << 20

_Answer = TypeVar("_Answer")


class GenerateCall(Iterator[Event]):
    """A running request: an iterator of events that ends after Finished, or with a SalamanderError.

    Leaving its with statement, or cancel() from any thread, stops every worker within one span or decode step.
    """

    def __init__(self, call: grpc.Call):
        self._call = call
        self._finished = False

    def __enter__(self) -> GenerateCall:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __iter__(self) -> GenerateCall:
        return self

    def __next__(self) -> Event:
        while True:
            try:
                message = next(self._call)
            except StopIteration:
                if self._finished:
                    raise
                raise Unavailable("the stream ended before the answer did") from None
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None
            event = event_from_proto(message)
            if event is None:
                continue
            self._finished = isinstance(event, Finished)
            return event

    def cancel(self) -> None:
        """A next() that waits raises Cancelled. Nothing happens once the request has ended."""
        self._call.cancel()


def _credentials(ca: str, cert: str | None, key: str | None) -> grpc.ChannelCredentials:
    if bool(cert) != bool(key):
        raise InvalidArgument("tls_cert and tls_key must be given together")
    def read(path: str | None) -> bytes | None:
        return pathlib.Path(path).read_bytes() if path else None
    return grpc.ssl_channel_credentials(read(ca), read(key), read(cert))


class Client:
    """A connection to the router at `target`, HOST:PORT. Timeouts are seconds, sent to the router as the deadline.

    With `tls_ca`, a PEM file of the roots that the router's certificate is verified against, the connection is TLS;
    a router that asks for a client's certificate is shown `tls_cert` with its key `tls_key`. The certificate must have
    the target's host among its names, or `tls_server_name`. The files are read once. `api_key` goes with every call.
    """

    def __init__(self, target: str, *, tls_ca: str | None = None, tls_cert: str | None = None,
                 tls_key: str | None = None, tls_server_name: str | None = None, api_key: str | None = None):
        self.target = target
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        options: list[tuple[str, object]] = [
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_http_proxy", 0),  # routers are inside the network that a proxy leads out of
        ]
        if tls_server_name:
            options.append(("grpc.ssl_target_name_override", tls_server_name))
        if tls_ca:
            self._channel = grpc.secure_channel(target, _credentials(tls_ca, tls_cert, tls_key), options=options)
        elif tls_cert or tls_key or tls_server_name:
            raise InvalidArgument("tls_ca must be given with tls_cert, tls_key and tls_server_name")
        else:
            self._channel = grpc.insecure_channel(target, options=options)
        self._inference = inference_pb2_grpc.InferenceStub(self._channel)
        self._cluster = cluster_pb2_grpc.ClusterStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and cancels its running calls."""
        self._channel.close()

    def generate(self, *, timeout: float | None = None, traceparent: str | None = None, tracestate: str | None = None,
                 **options: Unpack[GenerateOptions]) -> GenerateCall:
        """Starts a request; its events, and its errors, come out of the returned call.

        `traceparent` and `tracestate` are the caller's W3C trace context: the cluster's log lines name the trace.
        """
        trace = (("traceparent", traceparent), ("tracestate", tracestate))
        metadata = self._metadata + tuple((key, value) for key, value in trace if value)
        return GenerateCall(self._inference.Generate(make_request(options), timeout=timeout, metadata=metadata))

    def complete(self, *, timeout: float | None = None, traceparent: str | None = None, tracestate: str | None = None,
                 on_event: Callable[[Event], None] | None = None, **options: Unpack[GenerateOptions]) -> Completion:
        """Runs a request to its end. `on_event` sees every event on the way."""
        completion = Completion()
        with self.generate(timeout=timeout, traceparent=traceparent, tracestate=tracestate, **options) as call:
            for event in call:
                completion.add(event)
                if on_event is not None:
                    on_event(event)
        return completion

    def tokenize(self, *, timeout: float | None = None, **prompt: Unpack[PromptOptions]) -> list[int]:
        """The token ids that generate would run for this prompt."""
        try:
            request = inference_pb2.TokenizeRequest(prompt=make_prompt(prompt))
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        return list(self._call(self._inference.Tokenize, request, timeout).ids)

    def get_model(self, *, timeout: float | None = None) -> ModelInfo:
        return model_from_proto(self._call(self._inference.GetModel, inference_pb2.GetModelRequest(), timeout))

    def status(self, *, timeout: float | None = None) -> ClusterStatus:
        return status_from_proto(self._call(self._cluster.GetStatus, cluster_pb2.GetStatusRequest(), timeout))

    def _call(self, method: Callable[..., _Answer], request: object, timeout: float | None) -> _Answer:
        try:
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
