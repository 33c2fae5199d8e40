"""Client of a Salamander router.

    from salamander_client import Client

    with Client("127.0.0.1:7000") as client:
        print(client.complete(text="Once upon a time", max_tokens=64).text)

Everything a user needs is in this module; README.md of the package shows more.
"""
from salamander_client.client import Client, GenerateCall
from salamander_client.errors import (Cancelled, DataLoss, DeadlineExceeded, FailedPrecondition, InvalidArgument,
                                      ResourceExhausted, SalamanderError, Unauthenticated, Unavailable)
from salamander_client.request import ChatMessage, GenerateOptions, PromptOptions
from salamander_client.types import (Accepted, ClusterStatus, Completion, Event, Finished, LinkStatus, ModelInfo,
                                     PlannedSpan, Progress, Timing, TokenChunk, TokenLogprob, TopLogprob, Usage,
                                     WorkerStatus)

__all__ = [
    "Accepted", "Cancelled", "ChatMessage", "Client", "ClusterStatus", "Completion", "DataLoss", "DeadlineExceeded",
    "Event", "FailedPrecondition", "Finished", "GenerateCall", "GenerateOptions", "InvalidArgument", "LinkStatus",
    "ModelInfo", "PlannedSpan", "Progress", "PromptOptions", "ResourceExhausted", "SalamanderError", "Timing",
    "TokenChunk", "TokenLogprob", "TopLogprob", "Unauthenticated", "Unavailable", "Usage", "WorkerStatus",
]
