"""The pictures of requests, as a loaded model reads them.

What was encoded is kept for the next turn of a conversation, least recently used first out.
It is kept for one `cache_salt` at a time: how fast an answer comes would tell one team which
pictures another has shown. Lives on the event loop; decoding and encoding run in threads.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from engines.chat.gap_marks import GapMarks
from engines.chat.prompting import Tokenizing
from engines.chat.template import ChatTemplate
from engines.errors import EngineOverloaded, RequestRefused, Unsupported
from engines.gguf.image_tokens import image_token
from engines.gguf.pictures import read_picture
from engines.gguf.projector import ImageChunk, Projector
from engines.protocol import Image

MAX_KEPT_BYTES = 256 * 2**20
_MAX_KEPT_IMAGES = 64
MAX_WAITING = 64  # images, of all requests together


class SeenImage(NamedTuple):
    """A picture's tokens, and the images that some of them stand for."""

    tokens: list[int]
    chunks: Mapping[int, ImageChunk]

    @property
    def size_bytes(self) -> int:
        """What its embeddings take."""
        found = [chunk.embeddings for chunk in self.chunks.values()]
        return sum(one.nbytes for one in found if one is not None)


class Vision:
    """What one loaded model sees with."""

    def __init__(self, projector: Projector, *, max_pixels: int, max_batch_tokens: int) -> None:
        self._projector = projector
        self._max_pixels = max_pixels
        self._max_batch_tokens = max_batch_tokens
        self._num_waiting = 0
        self._kept: OrderedDict[tuple[str, bytes], SeenImage] = OrderedDict()
        # Pictures are unpacked one at a time, so that many large ones do not fill the memory.
        self._lock = asyncio.Lock()

    async def see(self, image: Image, salt: str) -> SeenImage:
        """A picture, not yet encoded. Raises `RequestRefused`."""
        key = (salt, hashlib.sha256(image.data).digest())
        async with self._turn():
            seen = self._kept.get(key)
            if seen is None:
                seen = await asyncio.to_thread(self._seen, image.data, key[1])
                self._kept[key] = seen
        if key in self._kept:
            self._kept.move_to_end(key)
        self._forget_oldest()
        return seen

    async def encode(self, chunks: Mapping[int, ImageChunk]) -> None:
        """Have all of these encoded."""
        for chunk in chunks.values():
            if chunk.embeddings is None:
                async with self._turn():
                    await asyncio.to_thread(self._projector.encode, chunk)
        self._forget_oldest()

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None, None]:
        if self._num_waiting >= MAX_WAITING:
            raise EngineOverloaded(
                f"{self._num_waiting} images wait for this model to look at them"
            )
        self._num_waiting += 1
        try:
            async with self._lock:
                yield
        finally:
            self._num_waiting -= 1

    def _seen(self, data: bytes, digest: bytes) -> SeenImage:
        cut = self._projector.cut(read_picture(data, max_pixels=self._max_pixels))
        tokens: list[int] = []
        chunks: dict[int, ImageChunk] = {}
        for place, piece in enumerate(cut.pieces):
            if isinstance(piece, ImageChunk):
                self._check(piece)
                name = hashlib.sha256(digest + place.to_bytes(4, "big")).digest()
                token = image_token(name, piece.num_tokens, piece.num_positions)
                chunks[token] = piece
                tokens += [token] * piece.num_tokens
            else:
                tokens += piece
        return SeenImage(tokens, chunks)

    def _check(self, image: ImageChunk) -> None:
        most = self._max_batch_tokens
        if image.attends_whole and image.num_tokens > most:
            raise Unsupported(
                f"an image has {image.num_tokens} tokens, which this model computes in one step, "
                f"and a step has {most} (`max_batch_tokens`)",
                param="messages",
            )

    def _forget_oldest(self) -> None:
        size_bytes = sum(seen.size_bytes for seen in self._kept.values())
        while self._kept and (size_bytes > MAX_KEPT_BYTES or len(self._kept) > _MAX_KEPT_IMAGES):
            _, seen = self._kept.popitem(last=False)
            size_bytes -= seen.size_bytes


class Reading:
    """One request's prompt being read by a model; also `Seeing`, and notes what was seen."""

    def __init__(
        self, model: Tokenizing, vision: Vision | None, *, salt: str, max_images: int
    ) -> None:
        self.images: dict[int, ImageChunk] = {}
        self._model = model
        self._vision = vision
        self._salt = salt
        self._max_images = max_images
        self._num_images = 0

    @property
    def template(self) -> ChatTemplate | None:
        """The model's chat template; None if it has none."""
        return self._model.template

    @property
    def bos(self) -> list[int]:
        """What every prompt begins with: one token or none."""
        return list(self._model.bos)

    @property
    def num_tokens(self) -> int:
        """The size of the vocabulary."""
        return self._model.num_tokens

    @property
    def special_spellings(self) -> tuple[str, ...]:
        """How the marks are written that no text may stand for."""
        return self._model.special_spellings

    @property
    def gap_marks(self) -> GapMarks | None:
        """What stands around a gap in a text; None if the model fills none."""
        return self._model.gap_marks

    async def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """Token ids of `text`, with no marks added."""
        return await self._model.tokenize(text, parse_special=parse_special)

    def least_tokens(self, text: str) -> int | None:
        """How many tokens a text has at the very least; None where nothing can be said."""
        return self._model.least_tokens(text)

    async def image_tokens(self, image: Image) -> list[int]:
        """What stands for a picture among the tokens. Raises `RequestRefused`."""
        if self._vision is None:
            raise Unsupported("this model cannot read images", param="messages")
        self._num_images += 1
        if self._num_images > self._max_images:
            raise RequestRefused(
                f"the conversation has more than {self._max_images} images", param="messages"
            )
        seen = await self._vision.see(image, self._salt)
        self.images.update(seen.chunks)
        return seen.tokens

    async def encoded(self) -> Mapping[int, ImageChunk]:
        """The images of the prompt, ready to be computed."""
        if self._vision is not None:
            await self._vision.encode(self.images)
        return self.images
