"""What an engine is.

The gateway knows engines only through this file. A request goes in, a stream
of events comes out, and the stream always reads

    Started (TextDelta | ReasoningDelta | ToolCallDelta)* Finished

or ends early with one of the errors in engines/errors.py. Closing the stream
cancels the request; an engine must free its slot without being awaited. An
engine that relays what its client wrote (see `Relay`) has an answer that is
nothing but `Relayed` between the two ends.

Nothing here imports torch, llama_cpp, litestar or the gateway, and nothing
here may: with engines/wire.py it is the floor every other module stands on.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from engines.conversation import (
    Image,
    Message,
    NamedTool,
    Part,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
)
from engines.modelfile_text import Instruction
from engines.sampling import (
    MAX_STOP_CHARS,
    Choice,
    Constraint,
    Grammar,
    JsonObject,
    JsonSchema,
    Regex,
    Sampling,
)
from engines.wire import Relayed, UpstreamHead, WireRequest

# What others import from here though it stands in files of its own; and all that follows.
__all__ = [
    "MAX_STOP_CHARS", "Choice", "Constraint", "Grammar", "Image", "JsonObject", "JsonSchema",
    "Message", "NamedTool", "Part", "Regex", "Sampling", "Text", "Tool", "ToolCall", "ToolChoice",
]  # fmt: skip


class Capability(StrEnum):
    """What a model can do; see `ModelInfo.capabilities`."""

    CHAT = "chat"
    COMPLETE = "complete"
    EMBED = "embed"
    RERANK = "rerank"
    TOOLS = "tools"
    VISION = "vision"
    JSON_SCHEMA = "json_schema"
    LOGPROBS = "logprobs"
    REASONING = "reasoning"


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A model as its engine knows it, loaded or not."""

    name: str
    capabilities: frozenset[Capability]  # empty: not known, so that nothing is ruled out
    context_tokens: int  # 0: not known
    loaded: bool
    loading: float | None = None  # how far a load under way is, 0 to 1
    memory_bytes: int | None = None
    gpu_bytes: int = 0  # of `memory_bytes`
    expires_at: float | None = None  # when it is unloaded if nobody asks again, since the epoch
    size_bytes: int | None = None  # of its files
    parameters: int | None = None
    family: str | None = None
    quantization: str | None = None
    modified_at: float | None = None  # seconds since the epoch
    digest: str | None = None  # of its manifest, where it has one: "sha256:…"


class GenerateRequest(Struct, frozen=True, kw_only=True):
    """One completion to produce.

    One request is one sequence: the gateway turns `n=3` into three requests,
    and prefix caching makes that cheap.
    """

    id: str
    model: str  # the engine's name for it, not the public one
    messages: Sequence[Message] = ()
    prompt: str | Sequence[int] | None = None  # instead of messages: raw completion
    suffix: str | None = None  # what comes after the gap that a raw completion fills
    max_tokens: int | None = None
    stop: Sequence[str] = ()  # each of up to MAX_STOP_CHARS
    sampling: Sampling = Sampling()
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    constraint: Constraint | None = None
    logprobs: int | None = None  # None: none; 0: the chosen token only; n: and n alternatives
    reasoning_effort: str | None = None  # "none" switches thinking off where a template can
    prompt_logprobs: int | None = None  # the same for the prompt's own tokens
    keep_alive_seconds: float | None = None
    owner: str = "-"  # whose share of the engine this spends
    weight: float = 1.0  # how large that share is
    priority: int = 0  # lower goes first, across owners
    cache_salt: str = ""  # prefixes are shared only within one salt
    extra: Mapping[str, Any] = {}  # fields only a remote upstream understands
    wire: WireRequest | None = None  # for an engine that is a `Relay`; others ignore it


class EmbedRequest(Struct, frozen=True, kw_only=True):
    """Texts (or token ids) to turn into vectors, one vector each."""

    id: str
    model: str
    inputs: Sequence[str | Sequence[int]]
    dimensions: int | None = None
    keep_alive_seconds: float | None = None
    owner: str = "-"
    weight: float = 1.0
    priority: int = 0
    wire: WireRequest | None = None


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens spent; `cached_tokens` of the prompt were not computed again."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0  # of the completion
    is_estimate: bool = False  # nobody counted them; for limits and bills, not to compare


class Timing(Struct, frozen=True, kw_only=True):
    """Seconds spent in each phase, as the engine measured them."""

    queued: float = 0.0
    loading: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0


class FinishReason(StrEnum):
    """Why a stream ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


class TopLogprob(Struct, frozen=True):
    """A token that could have come, and the natural logarithm of its probability."""

    token: bytes
    logprob: float
    id: int = -1


class TokenLogprob(Struct, frozen=True):
    """The chosen token and the best alternatives at its place.

    Probabilities are the model's own, before temperature, penalties, truncation and constraint.
    """

    token: bytes
    logprob: float
    top: Sequence[TopLogprob] = ()
    id: int = -1


class Started(Struct, frozen=True, tag="started", kw_only=True):
    """The request was admitted and its prompt is counted; None: by nobody yet."""

    prompt_tokens: int | None = None
    cached_tokens: int = 0
    prompt_logprobs: Sequence[TokenLogprob] | None = None  # of all tokens but the first, if asked
    head: UpstreamHead | None = None  # only where the answer is `Relayed`


class TextDelta(Struct, frozen=True, tag="text"):
    """More answer text; with log-probabilities, one entry for each token in it."""

    text: str
    logprobs: Sequence[TokenLogprob] = ()


class ReasoningDelta(Struct, frozen=True, tag="reasoning"):
    """More of the model's thinking, which is not answer text."""

    text: str


class ToolCallDelta(Struct, frozen=True, tag="tool_call", kw_only=True):
    """More of tool call `index`: `id` and `name` once and first, then argument fragments."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Finished(Struct, frozen=True, tag="finished", kw_only=True):
    """The last event of a stream that ended well."""

    reason: FinishReason
    usage: Usage
    timing: Timing = Timing()
    stop: str | None = None  # the stop string that ended it, if one did


Output = TextDelta | ReasoningDelta | ToolCallDelta | Relayed
Event = Started | TextDelta | ReasoningDelta | ToolCallDelta | Relayed | Finished


class Embeddings(Struct, frozen=True, kw_only=True):
    """One vector per input, in order; or, `relayed`, the answer that holds them as it came."""

    vectors: Sequence[Sequence[float]]
    usage: Usage
    relayed: bytes | None = None


class Health(Struct, frozen=True, kw_only=True):
    """How an engine is; `cache_used` is a fraction of its KV cache.

    One that `needs_new_process` will succeed at nothing in this one: its GPU has failed for good.
    """

    ready: bool
    detail: str = ""
    running: int = 0
    waiting: int = 0
    cache_used: float | None = None
    needs_new_process: bool = False


class Progress(Struct, frozen=True, kw_only=True, tag="progress"):
    """One step of a long job on a model, in Ollama's words: "pulling manifest" … "success"."""

    status: str
    digest: str | None = None  # of the file that this step is about: "sha256:…"
    done_bytes: int = 0
    total_bytes: int | None = None


class ModelDetails(Struct, frozen=True, kw_only=True):
    """Everything that a model's files say of it."""

    info: ModelInfo
    modelfile: str  # from which `create` would make the same
    parameters: str = ""  # one on each line, as in a Modelfile
    template: str = ""
    system: str = ""
    licenses: Sequence[str] = ()
    messages: Sequence[Message] = ()
    requires: str = ""
    metadata: Mapping[
        str, str | int | float | bool
    ] = {}  # of the weights' file, long texts left out


class Engine(Protocol):
    """Something that can run models."""

    name: str

    async def start(self) -> None:
        """Be ready to answer. Raises `Unavailable` when that cannot be."""
        ...

    async def close(self) -> None:
        """End every running stream with `Unavailable`, then free everything; idempotent."""
        ...

    async def health(self) -> Health:
        """Say how things are; cheap, and never loads anything."""
        ...

    async def models(self) -> Sequence[ModelInfo]:
        """Every model that can be asked for, loaded or not."""
        ...

    async def load(self, model: str, *, keep_alive_seconds: float | None = None) -> ModelInfo:
        """Return when the model is ready; a second call waits for the first.

        It then stays for `keep_alive_seconds` without requests: None for as long as the
        engine says, less than 0 for good."""
        ...

    async def unload(self, model: str) -> None:
        """Free the model after its running requests have finished."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        """Run one request, loading its model if needed.

        Raises nothing until iterated; then any `EngineError`, and never after `Finished`.
        """
        ...

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Turn each input into a vector. Raises any `EngineError`."""
        ...

    async def count_tokens(self, request: GenerateRequest) -> int:
        """Prompt tokens that `generate` would count for this request."""
        ...


@runtime_checkable
class ModelLibrary(Protocol):
    """An engine that also keeps model files. Only gguf does.

    Nothing here asks who is calling: whoever offers these to others does. The
    iterators do their work while they are iterated, and stop when they are closed.
    """

    def pull(self, name: str) -> AsyncGenerator[Progress, None]:
        """Fetch a model by name, and go on with what an earlier pull has left."""
        ...

    def push(self, name: str) -> AsyncGenerator[Progress, None]:
        """Send a model to the registry that its name begins with."""
        ...

    def create(
        self, name: str, modelfile: str | Sequence[Instruction], *, quantize: str | None = None
    ) -> AsyncGenerator[Progress, None]:
        """Make a model from a Modelfile, and of whole weights smaller ones: `quantize="q4_K_M"`.

        The Modelfile is a text, or the instructions that one would have. A model that FROM names
        is pulled if it is not there.
        FROM names a model or a blob (`@sha256:…`), or, once for each of its files, what a
        folder of safetensors had (`@sha256:… model.safetensors`); never a path."""
        ...

    async def copy(self, source: str, target: str) -> None:
        """Give a model another name."""
        ...

    async def delete(self, name: str) -> None:
        """Remove a name, and its files when nothing else uses them; requests that run go on."""
        ...

    async def show(self, name: str) -> ModelDetails:
        """Say everything that a model's files say."""
        ...

    async def listed_name(self, name: str) -> str | None:
        """How the model that `name` means is listed, whose case it may have wrong; None if none is.

        Nothing else here takes another spelling than the listed one."""
        ...

    async def has_blob(self, digest: str) -> bool:
        """Whether a file of this digest is there, for `create`."""
        ...

    async def add_file(self, path: str, digest: str | None = None) -> str:
        """Copy a file of this machine into the library as a blob; returns its digest.

        Raises `RequestRefused` if it is not of the digest that it should be. The path must
        be the caller's own, never one that came from a client."""
        ...
