"""What a user asks for, and the protocol's messages for it. Limits are checked by the router alone."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from salamander.v1 import inference_pb2
from salamander_client.errors import InvalidArgument


@dataclass(frozen=True)
class ChatMessage:
    role: str  # "system", "user", "assistant" or "tool"
    content: str


class PromptOptions(TypedDict, total=False):
    """Exactly one must be given."""

    text: str | bytes  # UTF-8; gets the begin-of-text token in front
    tokens: Sequence[int]  # used as they are
    chat: Sequence[ChatMessage | Mapping[str, str]]  # put through the model's chat template


class GenerateOptions(PromptOptions, total=False):
    """Prompt and sampling of one request. What is not given takes the router's default."""

    max_tokens: int  # > 0
    temperature: float  # ≥ 0; 0 is greedy
    top_p: float  # in (0, 1]
    top_k: int  # ≥ 0; 0 keeps all
    min_p: float  # in [0, 1]
    repetition_penalty: float  # > 0
    presence_penalty: float  # in [-2, 2]
    frequency_penalty: float  # in [-2, 2]
    logit_bias: Mapping[int, float]  # token id -> in [-100, 100]
    seed: int  # default: drawn by the router, told in Finished
    stop: Sequence[str | int]  # texts (not part of the returned text) and token ids
    ignore_eos: bool
    logprobs: int  # likeliest tokens told per output token; 0: only the chosen one
    priority: int  # in [-100, 100]; higher goes first


_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
             "seed")
_DIRECT = ("max_tokens", "ignore_eos", "logprobs", "priority")


def make_request(options: GenerateOptions) -> inference_pb2.GenerateRequest:
    """InvalidArgument for values that the protocol cannot carry; an unknown option is a TypeError."""
    unknown = options.keys() - GenerateOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
    try:
        request = inference_pb2.GenerateRequest(prompt=make_prompt(options))
        for name in _SAMPLING:
            if options.get(name) is not None:
                setattr(request.sampling, name, options[name])  # type: ignore[literal-required]
        for name in _DIRECT:
            if options.get(name) is not None:
                setattr(request, name, options[name])  # type: ignore[literal-required]
        request.sampling.logit_bias.update(options.get("logit_bias") or {})
        for condition in options.get("stop") or ():
            if isinstance(condition, int):
                request.stop.add(token_id=condition)
            else:
                request.stop.add(text=_encode(condition))
        return request
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


def make_prompt(options: Mapping[str, object]) -> inference_pb2.Prompt:
    prompt = inference_pb2.Prompt()
    if options.get("text") is not None:
        prompt.text = _encode(options["text"])
    if options.get("tokens") is not None:
        prompt.tokens.SetInParent()
        prompt.tokens.ids.extend(options["tokens"])
    if options.get("chat") is not None:
        prompt.chat.SetInParent()
        for message in options["chat"]:
            if isinstance(message, Mapping):
                message = ChatMessage(**message)
            prompt.chat.messages.add(role=message.role, content=_encode(message.content))
    return prompt


def _encode(text: str | bytes) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else text
