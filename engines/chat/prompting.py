"""A request becomes token ids.

The template writes the model's marks (`<|im_end|>`) as text, and the tokenizer
reads them back as special tokens. A caller could write such marks into a
message and so end his own turn and begin the system's. So every special
spelling in a message's text is swapped for a placeholder before rendering, and
what comes back in its place is tokenized as the plain characters it is.
"""

import asyncio
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from engines.chat.gap_marks import GapMarks
from engines.chat.template import ChatTemplate, NotBrief, Rendered
from engines.errors import ContextTooLong, RequestRefused, Unsupported
from engines.protocol import GenerateRequest, Image, Message, Part, Text
from engines.rendering import PromptToken, RenderedPrompt

# Private-use characters: the first says a number follows, the second ends it.
_OPEN, _CLOSE = "\ue2f0", "\ue2f1"
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
# What may be rendered on the event loop; the meter stops what takes longer all the same.
_MAX_BRIEF_MESSAGES = 64
_MAX_BRIEF_CHARS = 20_000
# Of a text for each token of a context, where a model's tokens may stand for any number.
MAX_BYTES_PER_TOKEN = 1024
_PIECES_AT_ONCE = 64  # that are tokenized before others have their turn on the event loop


class Tokenizing(Protocol):
    """What a local engine knows of a loaded model's words."""

    @property
    def template(self) -> ChatTemplate | None:
        """The model's chat template; None if it has none."""
        ...

    @property
    def bos(self) -> Sequence[int]:
        """What every prompt begins with: one token or none."""
        ...

    @property
    def num_tokens(self) -> int:
        """The size of the vocabulary."""
        ...

    @property
    def special_spellings(self) -> tuple[str, ...]:
        """How the marks are written that no text may stand for."""
        ...

    @property
    def gap_marks(self) -> GapMarks | None:
        """How a gap is shown to the model; None if it fills none."""
        ...

    async def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """Token ids of `text`, with no marks added."""
        ...

    def least_tokens(self, text: str) -> int | None:
        """How many tokens a text has at the very least; None where nothing can be said."""
        ...


@runtime_checkable
class Seeing(Protocol):
    """A model that reads pictures."""

    async def image_tokens(self, image: Image) -> list[int]:
        """What stands for a picture among the tokens. Raises `RequestRefused`."""
        ...


async def prompt_tokens(
    model: Tokenizing, request: GenerateRequest, *, context_tokens: int | None = None
) -> tuple[list[int], Rendered | None]:
    """The prompt's token ids, and what the template made of the messages if there are any.

    With `context_tokens`, a text that is much too long for them is refused and not tokenized.
    """
    if request.prompt is None:
        rendered, pieces = await _written(model, request, context_tokens)
        tokens = await _tokenize(model, pieces)
        _check_end(tokens)
        bos = list(model.bos)
        if bos and tokens[:1] != bos:
            tokens = bos + tokens
        return tokens, rendered
    texts = [text for text in (request.prompt, request.suffix) if isinstance(text, str)]
    check_fits(model, texts, context_tokens, "prompt")
    if request.suffix is not None:
        return await _around_gap(model, request), None
    if isinstance(request.prompt, str):
        tokens = await model.tokenize(request.prompt, parse_special=True)
        return [*model.bos, *tokens], None
    return checked_ids(model, request.prompt, "prompt"), None


async def rendered_prompt(
    model: Tokenizing, pieces: Sequence[bytes], request: GenerateRequest, *, context_tokens: int
) -> RenderedPrompt:
    """The prompt as `prompt_tokens` makes it, for people to read.

    `pieces` are the bytes of every token, those of marks too. The text is put together of
    them: what a template wrote is not yet what the model reads.
    """
    tokens, _ = await prompt_tokens(model, request, context_tokens=context_tokens)
    spelled = [PromptToken(token, pieces[token]) for token in tokens]
    text = b"".join(token.piece for token in spelled).decode("utf-8", "replace")
    return RenderedPrompt(text=text, tokens=spelled)


def _check_end(tokens: Sequence[int]) -> None:
    # What comes next can only be told from a token.
    if tokens and tokens[-1] < 0:
        raise RequestRefused("the prompt ends with an image; add a text after it", param="messages")


def checked_ids(model: Tokenizing, tokens: Sequence[int], param: str) -> list[int]:
    """The caller's own token ids, if the model has them all."""
    for token in tokens:
        if not 0 <= token < model.num_tokens:
            raise RequestRefused(
                f"token id {token} is not one of this model's {model.num_tokens}",
                param=param,
            )
    return list(tokens)


def check_length(tokens: Sequence[int], context_tokens: int, request: GenerateRequest) -> None:
    """Refuse a prompt that leaves no room for an answer, and one of nothing."""
    param = "messages" if request.prompt is None else "prompt"
    if not tokens:
        raise RequestRefused("the prompt has no tokens", param=param)
    if len(tokens) >= context_tokens:
        raise ContextTooLong(prompt_tokens=len(tokens), context_tokens=context_tokens, param=param)


def check_fits(
    model: Tokenizing, texts: Sequence[str], context_tokens: int | None, param: str
) -> None:
    """Refuse texts that cannot fit together, by their length: to tokenize them takes seconds."""
    if context_tokens is None:
        return
    counts = [model.least_tokens(text) for text in texts]
    if None not in counts:
        least = sum(count for count in counts if count)
        if least > context_tokens:
            raise ContextTooLong(
                prompt_tokens=least, context_tokens=context_tokens, param=param, is_at_least=True
            )
        return
    num_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if num_bytes > MAX_BYTES_PER_TOKEN * context_tokens:
        raise ContextTooLong(
            prompt_tokens=0,
            context_tokens=context_tokens,
            param=param,
            message=f"this model's context is {context_tokens} tokens; the text has {num_bytes} "
            f"bytes, more than {MAX_BYTES_PER_TOKEN} for each: shorten it",
        )


async def _around_gap(model: Tokenizing, request: GenerateRequest) -> list[int]:
    """What is before the gap and what is after it, in which no spelling of a mark is one."""
    marks, prompt = model.gap_marks, request.prompt
    if marks is None:
        raise Unsupported(
            f"model {request.model!r} fills no gaps: leave suffix out, or ask a model that knows "
            "marks for it, as those for code do",
            param="suffix",
        )
    if isinstance(prompt, str):
        before = await model.tokenize(prompt, parse_special=False)
    else:
        before = checked_ids(model, prompt or (), "prompt")
    after = await model.tokenize(request.suffix or "", parse_special=False)
    return [*model.bos, marks.before, *before, marks.after, *after, marks.gap]


def _may_be_brief(messages: Sequence[Message]) -> bool:
    if len(messages) > _MAX_BRIEF_MESSAGES:
        return False
    said = sum(len(part.text) for m in messages for part in m.parts if isinstance(part, Text))
    return said + sum(len(c.arguments) for m in messages for c in m.tool_calls) <= _MAX_BRIEF_CHARS


async def _written(
    model: Tokenizing, request: GenerateRequest, context_tokens: int | None
) -> tuple[Rendered, list[str | Image]]:
    """The messages as the template writes them, and the same in pieces.

    Written at once where it takes microseconds, as for most requests, and else in a thread.
    """
    template = model.template
    if template is None:
        raise Unsupported(
            f"model {request.model!r} has no chat template: use it for completions",
            param="messages",
        )

    def write(*, brief: bool = False) -> tuple[Rendered, list[str | Image]]:
        rendered, plain = _render(model, template, request, brief=brief)
        pieces = _pieces(rendered.text, plain)
        texts = [piece for piece in pieces if isinstance(piece, str)]
        check_fits(model, texts, context_tokens, "messages")
        return rendered, pieces

    # How much tools say is not known before they are written.
    if not request.tools and _may_be_brief(request.messages):
        try:
            return write(brief=True)
        except NotBrief:
            pass
    return await asyncio.to_thread(write)


def _render(
    model: Tokenizing, template: ChatTemplate, request: GenerateRequest, *, brief: bool
) -> tuple[Rendered, list[str | Image]]:
    plain: list[str | Image] = []
    special = _special_pattern(model.special_spellings)
    sees = isinstance(model, Seeing)
    messages = [
        _with_placeholders(message, special, plain, sees=sees) for message in request.messages
    ]
    rendered = template.render(
        messages,
        tools=request.tools,
        tool_choice=request.tool_choice,
        reasoning_effort=request.reasoning_effort,
        brief=brief,
    )
    return rendered, plain


@functools.lru_cache(maxsize=64)
def _special_pattern(spellings: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(spellings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, [*longest_first, _OPEN, _CLOSE])))


def _with_placeholders(
    message: Message, special: re.Pattern[str], plain: list[str | Image], *, sees: bool
) -> Message:
    def fenced(part: Part) -> Part:
        if isinstance(part, Text):
            return Text(_fenced(part.text, special, plain))
        return Text(_placeholder(part, plain)) if sees else part

    return msgspec.structs.replace(message, parts=[fenced(part) for part in message.parts])


def _placeholder(what: str | Image, plain: list[str | Image]) -> str:
    plain.append(what)
    return f"{_OPEN}{len(plain) - 1}{_CLOSE}"


def _fenced(text: str, special: re.Pattern[str], plain: list[str | Image]) -> str:
    """The text with placeholders for the marks in it, which are added to `plain`."""
    return special.sub(lambda found: _placeholder(found.group(), plain), text)


async def filled_tokens(model: Tokenizing, pattern: str, texts: Mapping[str, str]) -> list[int]:
    """Token ids of a pattern as "Query: {query}", whose marks count and those in `texts` do not."""
    plain: list[str | Image] = []
    special = _special_pattern(model.special_spellings)
    fenced = {name: _fenced(text, special, plain) for name, text in texts.items()}
    names = re.compile("|".join(f"{{{re.escape(name)}}}" for name in texts))
    # All at once: what one text says is not a place for another.
    filled = names.sub(lambda found: fenced[found.group()[1:-1]], pattern)
    return await _tokenize(model, _pieces(filled, plain))


def _pieces(text: str, plain: Sequence[str | Image]) -> list[str | Image]:
    """What the model reads, in order: at even places text whose marks count, else what is plain."""
    pieces = _PLACEHOLDER.split(text)
    return [plain[int(piece)] if at % 2 else piece for at, piece in enumerate(pieces)]


async def _tokenize(model: Tokenizing, pieces: Sequence[str | Image]) -> list[int]:
    tokens: list[int] = []
    for at, what in enumerate(pieces):
        if at % _PIECES_AT_ONCE == 0:
            await asyncio.sleep(0)
        if isinstance(what, str):
            if what:
                tokens += await model.tokenize(what, parse_special=at % 2 == 0)
        elif isinstance(model, Seeing):
            tokens += await model.image_tokens(what)
    return tokens
