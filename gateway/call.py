"""One API call, first byte in to last byte out, and what is known about it so far.

`Call` is the one mutable object of a request's life. The middleware makes and
closes it; the pipeline fills it in; plugins read it. Everything that a call
opens is pushed on `call.resources`, which the middleware closes in the call's
own task, whether or not the client is still there.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from engines.protocol import EmbedRequest, FinishReason, GenerateRequest, Timing, Usage
from engines.reranking import RerankRequest
from gateway.errors import Problem
from gateway.narrowing import NOT_NARROWED, Narrowing
from gateway.policy import ModelPolicy, Policy

if TYPE_CHECKING:
    from gateway.serving import Serving

Role = Literal["member", "admin"]


class Principal(Struct, frozen=True, kw_only=True):
    """Who is calling. `team` is the unit of permission and limits."""

    name: str
    team: str
    key_id: str | None = None  # the public part of an API key; safe to log
    role: Role = "member"
    narrowing: Narrowing = NOT_NARROWED  # what a key may do less than its team

    @property
    def is_admin(self) -> bool:
        """Has the caller the role that admin endpoints want? Nothing else says so anywhere."""
        return self.role == "admin"


NOBODY = Principal(name="-", team="-")


class Target(Struct, frozen=True):
    """One engine and that engine's own name for the model."""

    engine: str
    model: str
    weight: float = 1.0
    on: frozenset[str] = frozenset()  # error codes after which this target may be tried; empty: any
    is_unlisted: bool = False  # its engine lists no such model: asked if no other target has it


class Route(Struct, frozen=True):
    """The targets to try for one call, best first."""

    targets: tuple[Target, ...]


class Tried(Struct, frozen=True):
    """A target whose turn it was, and one word for why it was left; none for the one that answers.

    The word is the error's code, or what kept the target from being asked: docs/routing.md.
    """

    engine: str
    model: str
    left: str = ""


class ClientAddress(Struct, frozen=True):
    """Where the call comes from; a Unix socket has no address.

    What the socket says, or what a trusted proxy says (gateway/networks.py).
    """

    host: str | None
    port: int = 0


NO_ADDRESS = ClientAddress(None)
_PLAIN = "/:@+"  # what names of models often hold


class Tally(Struct):
    """Tokens of one sequence: as counted from its events, and in the end as its engine says."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    def set(self, usage: Usage) -> None:
        """The engine's own numbers."""
        self.prompt_tokens = usage.prompt_tokens
        self.cached_tokens = usage.cached_tokens
        self.completion_tokens = usage.completion_tokens
        self.reasoning_tokens = usage.reasoning_tokens

    def usage(self) -> Usage:
        """The same as an answer tells it."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            reasoning_tokens=self.reasoning_tokens,
        )


class Call(Struct, eq=False):
    """What is known about one API call. Owned by the call's task; nobody else writes."""

    id: str
    endpoint: str
    policy: Policy
    client: ClientAddress = NO_ADDRESS
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    started_at: float = field(default_factory=time.monotonic)
    began_at: float = field(default_factory=time.time)  # the same moment, as a clock on the wall
    serving: "Serving | None" = None  # the plugins and engines that go with the policy
    task: "asyncio.Task[Any] | None" = None  # while it may be stopped
    stopped: Problem | None = None  # why, if somebody stopped it
    principal: Principal = NOBODY
    model: ModelPolicy | None = None
    requests: Sequence[GenerateRequest] = ()  # one for each sequence to generate
    choices_per_prompt: int = 1  # so many requests in a row have the same prompt
    answers_per_request: int = 1  # over 1 where one body that is passed on asks for several
    asked_max_tokens: int | None = None  # what the client itself said, before any default
    embed_request: EmbedRequest | None = None
    rerank_request: RerankRequest | None = None
    route: Route | None = None
    target: Target | None = None
    tried: list[Tried] = field(default_factory=list[Tried])  # in the order of their turns
    session: str = ""  # what the body says that calls belong together by, if it says so
    resources: AsyncExitStack = field(default_factory=AsyncExitStack)
    response_headers: dict[str, str] = field(default_factory=dict[str, str])
    streams: bool = False
    status: int | None = None
    error: Problem | None = None
    tallies: list[Tally] = field(default_factory=list[Tally])  # one for each sequence
    timing: Timing = field(default_factory=Timing)
    finish_reason: FinishReason | None = None
    admission_seconds: float | None = None  # what authorize to admit took
    first_output_at: float | None = None
    finished_at: float | None = None

    @property
    def dialect(self) -> str:
        """The family of the endpoint: `openai` of `openai.chat`."""
        return self.endpoint.partition(".")[0]

    @property
    def outcome(self) -> str:
        """`ok`, or the code of what went wrong."""
        return "ok" if self.error is None else self.error.code

    @property
    def seconds(self) -> float:
        """From first byte in to last byte out, or to now."""
        return (self.finished_at or time.monotonic()) - self.started_at

    @property
    def targets(self) -> str:
        """Which targets were tried, in turn: `gpu0/a;left=overloaded, gpu1/a`. ASCII, one line."""
        # Behind a glob the caller has chosen the model's name.
        return ", ".join(
            f"{quote(tried.engine)}/{quote(tried.model[:200], safe=_PLAIN)}"
            + (f";left={tried.left}" if tried.left else "")
            for tried in self.tried
        )

    def stop(self, problem: Problem) -> bool:
        """End it from outside, with this as its error; False if it is ending anyway."""
        if self.task is None or self.stopped is not None:
            return False
        self.stopped = problem
        return self.task.cancel("stopped by an administrator")

    def replace_requests(self, **changes: object) -> None:
        """Change the same fields of every request of this call."""
        self.requests = [
            msgspec.structs.replace(request, **changes)  # pyright: ignore[reportArgumentType]
            for request in self.requests
        ]

    @property
    def usage(self) -> Usage:
        """Tokens of the whole call, also while it runs or when it was broken off.

        Choices share their prompt, so it counts once, as at OpenAI.
        """
        if len(self.tallies) == 1:
            return self.tallies[0].usage()
        per_prompt = self.choices_per_prompt
        prompts = [
            max(self.tallies[first : first + per_prompt], key=lambda tally: tally.prompt_tokens)
            for first in range(0, len(self.tallies), per_prompt)
        ]
        return Usage(
            prompt_tokens=sum(tally.prompt_tokens for tally in prompts),
            cached_tokens=sum(tally.cached_tokens for tally in prompts),
            completion_tokens=sum(tally.completion_tokens for tally in self.tallies),
            reasoning_tokens=sum(tally.reasoning_tokens for tally in self.tallies),
        )

    def tally(self, sequence: int) -> Tally:
        """The tokens of one sequence, to be counted on."""
        while len(self.tallies) <= sequence:
            self.tallies.append(Tally())
        return self.tallies[sequence]


def new_call_id() -> str:
    """An id for the logs, the client and the upstream: sorts by time, cannot be guessed."""
    return f"req_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
