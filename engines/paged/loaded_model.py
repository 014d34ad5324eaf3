"""One loaded model as the event loop sees it: its threads, its words, its template.

What is here never changes while the model is loaded. Requests go to the step
thread through `submit` and come back through their mailboxes.
"""

import asyncio
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import structlog

from engines.chat.constraints import ConstraintCompiler
from engines.chat.prepared import FALLBACK, completed
from engines.chat.template import ChatTemplate
from engines.chat.text_threads import TextThreads
from engines.errors import Unavailable
from engines.outbox import Outbox
from engines.paged.block_pool import BlockPool
from engines.paged.checkpoint import Checkpoint
from engines.paged.config import PagedConfig
from engines.paged.embed_line import EmbedLine
from engines.paged.gpus import work_on
from engines.paged.loading import CHAT_POOLING, Loaded, device_of, load_model
from engines.paged.memory import give_back
from engines.paged.scheduler import Scheduler
from engines.paged.sequence import Sequence
from engines.paged.step_loop import StepLoop
from engines.paged.tokenizer import Tokenizer
from engines.paged.watch import Watch
from engines.pool import Room
from engines.protocol import Sampling

log = structlog.get_logger()


class LoadedModel:
    """Opened with `open`, closed with `close`; between them, everything may be called."""

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        loaded: Loaded,
        config: PagedConfig,
        watch: Watch,
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self._texts = TextThreads(name)
        self.spoken_pieces = tokenizer.spoken_pieces
        self.context_tokens = loaded.context_tokens
        self.memory_bytes = loaded.memory_bytes
        device = device_of(config)
        self.is_on_gpu = device.type == "cuda"
        self.turning = loaded.turning
        self.pooling = checkpoint.pooling or CHAT_POOLING
        self.embedder = loaded.embedder
        self.end_ids = sorted(checkpoint.eos_token_ids)
        self.recorder = watch.recorder
        self._watch = watch
        self.cache = {
            "block_size": str(config.block_size),
            "num_gpu_blocks": str(loaded.num_blocks),
            "enable_prefix_caching": str(config.prefix_caching),
        }
        self._checkpoint = checkpoint
        self._executor: ThreadPoolExecutor | None = None
        self._steps: StepLoop | None = None
        if loaded.runner is None:
            self._executor = ThreadPoolExecutor(
                1, thread_name_prefix=f"embed-{name}", initializer=work_on, initargs=(device,)
            )
            run: Any = self._executor.submit
        else:
            pool = BlockPool(
                loaded.num_blocks,
                config.block_size,
                enable_prefix_caching=config.prefix_caching,
            )
            scheduler = Scheduler(
                pool,
                max_batch_tokens=max(config.max_batch_tokens, config.max_sequences),
                max_sequences=config.max_sequences,
                max_waiting=config.max_waiting,
                max_context_tokens=loaded.context_tokens,
            )
            outbox: Outbox[Any] = Outbox(asyncio.get_running_loop())
            self._steps = StepLoop(
                loaded.runner,
                scheduler,
                outbox,
                name=name,
                on_failure=watch.note_failure,
                on_step=watch.note_step,
            )
            self._steps.start()
            run = self._steps.call
        self.embed_line = EmbedLine(
            loaded.embedder, run, max_waiting=config.max_waiting, on_failure=watch.note_failure
        )

    @classmethod
    async def open(
        cls,
        name: str,
        checkpoint: Checkpoint,
        config: PagedConfig,
        report: Callable[[float], None],
        watch: Watch,
    ) -> "LoadedModel":
        """Load a model. Raises `EngineError` with the reason."""
        began = time.monotonic()

        def load() -> tuple[Tokenizer, Loaded]:
            tokenizer = _tokenizer(checkpoint, config)
            return tokenizer, load_model(checkpoint, tokenizer, config, report)

        tokenizer, loaded = await asyncio.to_thread(load)
        seconds = time.monotonic() - began
        log.info("model_loaded", model=name, seconds=round(seconds, 3))
        return cls(name, checkpoint, tokenizer, loaded, config, watch)

    async def close(self) -> None:
        """End every stream with `Unavailable` and return when all memory is free.

        It is, whoever may still know this model, or an error with one of its frames.
        """
        self._texts.close()
        self.embed_line.close()
        if self._steps is not None:
            self._steps.stop()
            await asyncio.to_thread(self._steps.join)
        if self._executor is not None:
            await asyncio.to_thread(self._executor.shutdown)
        self.embedder.close()
        if self.is_on_gpu:
            await asyncio.to_thread(give_back)

    @property
    def room(self) -> Room:
        """What it takes; its own `memory_fraction` is what bounds that."""
        if self.is_on_gpu:
            return Room(gpu_bytes=self.memory_bytes)
        return Room(main_bytes=self.memory_bytes)

    @property
    def has_failed(self) -> bool:
        """Whether its thread has ended; it must be opened anew then."""
        return self._steps is not None and self._steps.has_ended

    @property
    def failure(self) -> str:
        """What the last step that failed said."""
        return self._watch.failure

    @property
    def writes(self) -> bool:
        """Whether it answers, and not only embeds."""
        return self._steps is not None

    @property
    def num_running(self) -> int:
        """Sequences with a place."""
        return self._steps.num_running if self._steps is not None else 0

    @property
    def num_waiting(self) -> int:
        """Sequences without one, and inputs to embed."""
        waiting = self._steps.num_waiting if self._steps is not None else 0
        return waiting + self.embed_line.num_waiting

    @property
    def cache_used(self) -> float | None:
        """The fraction of the KV cache that is in use."""
        return self._steps.cache_used if self._steps is not None else None

    @property
    def seconds_stalled(self) -> float:
        """Seconds since the last step while there is something to do."""
        return self._steps.seconds_stalled if self._steps is not None else 0.0

    def submit(self, sequence: Sequence) -> None:
        """Hand a request to the step thread. Raises `Unavailable` for a model that only embeds."""
        if self._steps is None:
            raise Unavailable(f"model {self.name!r} only embeds")
        self._steps.submit(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Free what a request holds, within one step; a plain call."""
        if self._steps is not None:
            self._steps.abort(sequence)

    @property
    def bos(self) -> list[int]:
        """What every prompt begins with: one token or none."""
        return self.tokenizer.bos

    @property
    def num_tokens(self) -> int:
        """The size of the vocabulary that a caller may name tokens of."""
        return min(self.tokenizer.num_tokens, self._checkpoint.shape.vocab_size)

    @property
    def special_spellings(self) -> tuple[str, ...]:
        """How the marks are written that no text may stand for."""
        return self.tokenizer.special_spellings

    @property
    def gap_marks(self) -> None:
        """No model's here: which tokens they would be, a checkpoint does not say."""
        return

    async def tokenize(
        self, text: str, *, parse_special: bool, add_special: bool = False
    ) -> list[int]:
        """Token ids of `text`; a long text does not hold up the event loop."""
        encode = functools.partial(
            self.tokenizer.encode, text, parse_special=parse_special, add_special=add_special
        )
        return await self._texts.run(text, encode)

    def least_tokens(self, text: str) -> None:
        """Nothing can be said: a tokenizer.json may have any number of characters made one."""
        return

    @property
    def template(self) -> ChatTemplate | None:
        """The model's chat template; None if it has none."""
        return self._template

    @cached_property
    def _template(self) -> ChatTemplate | None:
        if not self._checkpoint.has_chat_template:
            return None
        return ChatTemplate.from_tokenizer_config(self._checkpoint.tokenizer_config)

    @property
    def end_of_thinking(self) -> int | None:
        """The one token that spells `</think>`, if there is one."""
        return self.tokenizer.id_of("</think>")

    @cached_property
    def sampling(self) -> Sampling:
        """What generation_config.json recommends, and the house's defaults where it is silent."""
        return completed(self._checkpoint.default_sampling, FALLBACK)

    @property
    def constraints(self) -> ConstraintCompiler:
        """Compiles constraints for this vocabulary; slow to make, so make it off the loop."""
        return self._constraints

    @cached_property
    def _constraints(self) -> ConstraintCompiler:
        tokenizer = self.tokenizer
        return ConstraintCompiler(
            tokenizer.pieces,
            eos_ids=self.end_ids or [0],
            special_ids=tokenizer.special_ids,
            tokenize=lambda text: tokenizer.encode(text, parse_special=False),
        )


def _tokenizer(checkpoint: Checkpoint, config: PagedConfig) -> Tokenizer:
    folder = checkpoint.folder
    if config.load_format == "dummy" and not (folder / "tokenizer.json").exists():
        return Tokenizer.dummy(checkpoint.shape.vocab_size)
    return Tokenizer(folder, checkpoint.tokenizer_config)
