"""One loaded model as the event loop sees it: its thread, its words, its template.

What is here never changes while the model is loaded. Requests go to the step
thread through `submit` and come back through their mailboxes.
"""

import asyncio
import functools
import math
import time
from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from engines.chat.gap_marks import GapMarks
from engines.chat.prepared import FALLBACK
from engines.chat.text_threads import TextThreads
from engines.chat.tool_format import MARKUP_TOKENS
from engines.errors import Unsupported
from engines.gguf.adapter_file import Adapter
from engines.gguf.config import GgufConfig
from engines.gguf.embedding import EmbedJob
from engines.gguf.go_template.matching import TemplateChoice
from engines.gguf.layout import Layout
from engines.gguf.recipe import NOTHING, Recipe
from engines.gguf.runner import Runner, Shape
from engines.gguf.saved_caches import ModelCaches, SavedCaches
from engines.gguf.sequence import Sequence
from engines.gguf.shapes import cache_bytes, embedding_shape, generation_shape
from engines.gguf.step_loop import StepLoop
from engines.gguf.threads import threads_for
from engines.gguf.tuning import tuning_of
from engines.gguf.vision import Reading, Vision
from engines.gguf.vocabulary import Vocabulary
from engines.gguf.waiting_line import WaitingLine
from engines.metrics import ModelRecorder
from engines.outbox import Mailbox, Outbox
from engines.pool import Room
from engines.protocol import Sampling

if TYPE_CHECKING:
    from engines.chat.constraints import ConstraintCompiler
    from engines.chat.template import ChatTemplate

log = structlog.get_logger()


class HowToLoad(NamedTuple):
    """What the probe and the file's header said."""

    use_extra_buffers: bool = True
    is_embedding_model: bool = False
    pooling: str = "mean"
    on_progress: Callable[[float], None] | None = None
    recipe: Recipe = NOTHING
    adapters: tuple[Adapter, ...] = ()
    projector: Path | None = None
    template: TemplateChoice | None = None  # None: the one in the file
    gpu_layers: int = -1  # -1: all that fit
    version: Hashable = None  # of the file: what it computed is reused by the same alone
    saved: SavedCaches | None = None


class LoadedModel:
    """Opened with `open`, closed with `close`; between them, everything may be called."""

    def __init__(
        self, name: str, runner: Runner, steps: StepLoop, layout: Layout, config: GgufConfig
    ) -> None:
        self.name = name
        self.generation = layout.generation
        self.embedding = layout.embedding
        self.vocabulary = vocabulary = runner.vocabulary
        self.spoken_pieces = _spoken_pieces(vocabulary)
        self.bos = [vocabulary.bos] if vocabulary.adds_bos else []
        self.width = runner.width
        self.scores_texts = layout.pooling == "rank"
        self.num_labels = runner.num_labels
        self._max_images = config.max_images
        self._vision: Vision | None = None
        if runner.projector is not None:
            self._vision = Vision(
                runner.projector,
                max_pixels=config.max_image_pixels,
                max_batch_tokens=config.max_batch_tokens,
            )
        num_slots = (layout.generation or layout.embedding).num_slots
        self.line = WaitingLine(num_slots, config.max_waiting)
        self.recipe = NOTHING  # what its name adds; `open` knows
        self._chosen: TemplateChoice | None = None
        self.recorder = layout.recorder
        self._texts = TextThreads(name)
        self._steps = steps
        self._runner = runner  # to look at; only its thread may call it
        self._cache_bytes = cache_bytes(runner, layout.generation)

    @classmethod
    async def open(
        cls,
        name: str,
        path: Path,
        config: GgufConfig,
        how: "HowToLoad",
        recorder: ModelRecorder,
    ) -> "LoadedModel":
        """Load a model on a thread of its own. Raises `Unavailable` with the reason."""
        began = time.monotonic()
        opened: Mailbox[Runner] = Mailbox()
        layouts: list[Layout] = []

        def go_on(done: float) -> bool:
            if how.on_progress is not None:
                how.on_progress(done)
            return not steps.is_stopping

        def load() -> Runner:
            return Runner(
                path,
                use_extra_buffers=how.use_extra_buffers,
                adapters=how.adapters,
                projector=how.projector,
                on_progress=go_on,
                tuning=tuning_of(config, how.gpu_layers),
            )

        def layout(runner: Runner) -> Layout:
            generation = None if how.is_embedding_model else generation_shape(runner, config)
            layouts.append(
                Layout(
                    generation,
                    embedding_shape(runner, config),
                    how.pooling,
                    threads_for(config),
                    recorder,
                    _saved_of(how, config, generation),
                )
            )
            return layouts[0]

        outbox: Outbox[Any] = Outbox(asyncio.get_running_loop())
        steps = StepLoop(name, load=load, layout=layout, outbox=outbox, opened=opened)
        steps.start()
        try:
            runner = await opened.get()
        except BaseException:
            steps.stop()
            raise
        seconds = time.monotonic() - began
        log.info(
            "model_loaded",
            model=name,
            seconds=round(seconds, 3),
            generation=layouts[0].generation,
            embedding=layouts[0].embedding,
            pooling=layouts[0].pooling,
        )
        model = cls(name, runner, steps, layouts[0], config)
        model.recipe = how.recipe
        model._chosen = how.template
        return model

    async def close(self) -> None:
        """End every stream with `Unavailable` and wait until the memory is free."""
        self._texts.close()
        self._steps.stop()
        await asyncio.to_thread(self._steps.join)

    @property
    def room(self) -> Room:
        """What llama.cpp says that it took; more once the model has embedded something."""
        main_bytes, gpu_bytes = self._runner.allocated
        if not main_bytes and not gpu_bytes:  # it said nothing that we could read
            main_bytes = self._runner.memory_bytes + self._cache_bytes
        elif self._runner.projector is not None:  # of which it does not say how much it took
            main_bytes += self._runner.projector.size_bytes
        return Room(main_bytes, gpu_bytes)

    @property
    def memory_bytes(self) -> int:
        """All of that."""
        return self.room.memory_bytes

    @property
    def has_failed(self) -> bool:
        """Whether its thread has ended; it must be opened anew then."""
        return self._steps.has_ended

    @property
    def num_running(self) -> int:
        """Sequences with a slot."""
        return self._steps.num_running

    @property
    def cache_used(self) -> float:
        """The fraction of the KV cache that is spoken for."""
        return self._steps.cache_used

    @property
    def cache_busy(self) -> float:
        """The fraction that requests hold; the rest can be had."""
        return self._steps.cache_busy

    @property
    def num_waiting(self) -> int:
        """Requests without a slot, those that had one and lost it among them."""
        return max(self.line.num_waiting, self._steps.num_waiting)

    @property
    def num_tokens(self) -> int:
        """The size of the vocabulary."""
        return self.vocabulary.num_tokens

    @property
    def special_spellings(self) -> tuple[str, ...]:
        """How the marks are written that no text may stand for."""
        return self.vocabulary.special_spellings

    @property
    def gap_marks(self) -> GapMarks | None:
        """How a gap is shown to the model; None if it fills none."""
        return self.vocabulary.gap_marks

    @property
    def end_ids(self) -> list[int]:
        """The tokens that end an answer."""
        return self.vocabulary.end_ids

    @property
    def end_of_thinking(self) -> int | None:
        """The one token that spells `</think>`, if there is one."""
        return self._end_of_thinking

    @cached_property
    def _end_of_thinking(self) -> int | None:
        tokens = self.vocabulary.tokenize("</think>", parse_special=True)
        return tokens[0] if len(tokens) == 1 else None

    def submit(self, work: Sequence | EmbedJob) -> None:
        """Hand a request to the step thread."""
        self._steps.submit(work)

    def cancel(self, work: Sequence | EmbedJob) -> None:
        """Free what a request holds, within one step; a plain call, see `StepLoop.cancel`."""
        self._steps.cancel(work)

    def reading(self, cache_salt: str) -> Reading:
        """What reads one request's prompt."""
        return Reading(self, self._vision, salt=cache_salt, max_images=self._max_images)

    async def tokenize(
        self, text: str, *, parse_special: bool, add_special: bool = False
    ) -> list[int]:
        """Token ids of `text`; a long text does not hold up the event loop."""
        tokenize = functools.partial(
            self.vocabulary.tokenize, text, parse_special=parse_special, add_special=add_special
        )
        return await self._texts.run(text, tokenize)

    def least_tokens(self, text: str) -> int | None:
        """How many tokens a text has at the very least; None where nothing can be said."""
        return self.vocabulary.least_tokens(text)

    @cached_property
    def sampling(self) -> Sampling:
        """What the model's file recommends, and llama.cpp's defaults where it is silent."""
        return Sampling(
            temperature=self._number("temp", FALLBACK.temperature),
            top_p=self._number("top_p", FALLBACK.top_p),
            top_k=int(self._number("top_k", FALLBACK.top_k)),
            min_p=self._number("min_p", FALLBACK.min_p),
            repeat_penalty=self._number("penalty_repeat", FALLBACK.repeat_penalty),
        )

    def _number(self, name: str, default: float | None) -> float:
        default = default or 0.0
        try:
            number = float(self.vocabulary.metadata.get(f"general.sampling.{name}") or default)
        except ValueError:
            return default
        return number if math.isfinite(number) else default

    @property
    def template(self) -> "ChatTemplate | None":
        """The model's chat template; None if it has none."""
        return self._template

    @cached_property
    def _template(self) -> "ChatTemplate | None":
        from engines.chat.template import ChatTemplate

        chosen = self._chosen or TemplateChoice(source=self.vocabulary.chat_template)
        if chosen.problem:
            raise Unsupported(f"model {self.name!r} cannot chat: {chosen.problem}", param="model")
        source = chosen.source
        if source is None:
            return None
        return ChatTemplate(
            source,
            bos_token=self.vocabulary.bos_spelling,
            eos_token=self.vocabulary.eos_spelling,
        )

    @property
    def constraints(self) -> "ConstraintCompiler":
        """Compiles constraints for this vocabulary; slow to make, so make it off the loop."""
        return self._constraints

    @cached_property
    def _constraints(self) -> "ConstraintCompiler":
        from engines.chat.constraints import ConstraintCompiler

        return ConstraintCompiler(
            self.vocabulary.pieces,
            eos_ids=self.vocabulary.end_ids,
            special_ids=self.vocabulary.special_ids,
            tokenize=functools.partial(self.vocabulary.tokenize, parse_special=False),
        )


def _saved_of(how: HowToLoad, config: GgufConfig, generation: Shape | None) -> ModelCaches | None:
    """The saved caches that were computed just as this model will compute."""
    if how.saved is None or generation is None:
        return None
    added: list[Hashable] = [(one, _state_of(one.path)) for one in how.adapters]
    if how.projector is not None:
        added.append((how.projector, _state_of(how.projector)))
    tuning = tuning_of(config, how.gpu_layers)
    key = (how.version, tuple(added), how.use_extra_buffers, tuning, generation.exact)
    return how.saved.of(key)


def _state_of(path: Path) -> Hashable:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _spoken_pieces(vocabulary: Vocabulary) -> list[bytes]:
    """Each token's bytes as they are shown: nothing for marks like `<|im_start|>`."""
    spoken = list(vocabulary.pieces)
    for token in vocabulary.special_ids:
        if spoken[token].decode("utf-8", "replace") not in MARKUP_TOKENS:
            spoken[token] = b""
    return spoken
