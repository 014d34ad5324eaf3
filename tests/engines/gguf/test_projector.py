"""An image is put into the cache where mtmd's own helper, which reads a whole prompt, puts it."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from engines.gguf.image_tokens import image_token
from engines.gguf.native import has_mtmd
from engines.gguf.pictures import Pixels, read_picture
from engines.gguf.projector import CutImage, ImageChunk
from engines.gguf.runner import Row, Runner, Shape
from engines.gguf.sequence import Sequence, Work
from engines.outbox import Mailbox
from tests.engines.gguf.projector_files import picture
from tests.engines.gguf.test_vision import write_llava, write_qwen2vl

pytestmark = pytest.mark.skipif(not has_mtmd(), reason="llama.cpp was built without vision")

SHAPE = Shape(num_slots=2, context_tokens=256, pool_tokens=512, exact=True, max_batch_tokens=64)
BEFORE, AFTER = "what is this: ", ", and who made it?"


def reference(runner: Runner, pixels: Pixels) -> np.ndarray:
    """The last logits as mtmd computes the whole prompt, in slot 1."""
    from llama_cpp import mtmd_cpp

    assert runner.projector is not None
    context = runner.projector._context
    pointer = pixels.data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    bitmap = mtmd_cpp.mtmd_bitmap_init(pixels.width, pixels.height, pointer)
    text = (BEFORE + mtmd_cpp.mtmd_default_marker().decode() + AFTER).encode()
    given = mtmd_cpp.mtmd_input_text(text, len(text), False, True)
    chunks = mtmd_cpp.mtmd_input_chunks_init()
    bitmaps = (ctypes.c_void_p * 1)(bitmap)
    assert not mtmd_cpp.mtmd_tokenize(context, chunks, ctypes.byref(given), bitmaps, 1)
    past = ctypes.c_int32()
    assert not mtmd_cpp.mtmd_helper_eval_chunks(
        context, runner.context, chunks, 0, 1, 64, True, ctypes.byref(past)
    )
    found = runner.logits(-1).copy()
    mtmd_cpp.mtmd_input_chunks_free(chunks)
    mtmd_cpp.mtmd_bitmap_free(bitmap)
    return found


def ours(runner: Runner, cut: CutImage) -> np.ndarray:
    """The same, a piece at a time, in slot 0."""
    assert runner.projector is not None
    tokens = runner.vocabulary.tokenize(BEFORE, parse_special=True)
    images: dict[int, ImageChunk] = {}
    for piece in cut.pieces:
        if isinstance(piece, ImageChunk):
            token = image_token(b"x" * 32, piece.num_tokens, piece.num_positions)
            images[token] = piece
            tokens += [token] * piece.num_tokens
        else:
            tokens += piece
    tokens += runner.vocabulary.tokenize(AFTER, parse_special=True)
    sequence = Sequence(tokens=tokens, max_tokens=1, mailbox=Mailbox(), images=images)
    at, last = 0, 0
    while at < len(tokens):
        work = Work(sequence, at, sequence.run_from(at, 64))
        position = sequence.position_of(at)
        if work.image is not None:
            runner.projector.encode(work.image)
            runner.decode_image(work.image, position=position, slot=0)
        else:
            last = work.count - 1
            runner.decode(
                [
                    Row(token, position + place, 0, place == last)
                    for place, token in enumerate(work.tokens)
                ]
            )
        at += work.count
    return runner.logits(last).copy()


@pytest.mark.parametrize("write", [write_llava, write_qwen2vl])
async def test_the_logits_are_those_of_mtmds_own_helper(tmp_path: Path, write) -> None:
    write(tmp_path)
    runner = Runner(tmp_path / "random.gguf", projector=tmp_path / "projector")
    runner.open_cache(SHAPE)
    assert runner.projector is not None
    pixels = read_picture(picture(200, size=(120, 50)), max_pixels=10_000)

    found = ours(runner, runner.projector.cut(pixels))

    np.testing.assert_allclose(found, reference(runner, pixels), rtol=1e-4, atol=1e-4)
    runner.close()
