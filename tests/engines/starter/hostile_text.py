"""Strings that tokenizers disagree on, if they disagree on any."""

import random
from collections.abc import Iterator

_ODD = (
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "👍🏽",
    "e\u0301\u0300",
    "שלום",
    "مرحبا",
    "ﷺ",
    "\u202eabc\u202c",
    "\ufeff",
    "\u200b",
    "ſ",
    "'ſ",
    "\u212a",
    "İ",
    "ß",
    "'S",
    "'LL",
    "'Re",
    "'vE",
    "'\u212a",
    "नमस्ते",
    "ก็",
    "한글",
)
_SPECIAL = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_start",
    "|>",
    "<|",
    "<|im_end|",
    "im_end|>",
    "<|im_start|><|im_end|>",
    "<|IM_START|>",
    "<tool_call>",
    "</tool_call>\n",
    "<|im_<|im_end|>",
)
_CODE = (
    "def f(x):\n    return {'a': [1, 2.5e-3]}\n",
    '{"name": "Ada", "x": null}',
    '<div class="a">&nbsp;</div>',
    "SELECT * FROM t WHERE a != 'b';",
    "http://127.0.0.1:8080/v1?x=1#y",
    "C:\\temp\\new\t|\tx->y::z // ~~~",
)
_WORDS = (
    " the",
    " What",
    " Penstock",
    "hello",
    "I'm",
    "don't",
    "you'LL",
    " 's",
    "_x",
    "!!",
    "...",
    "-->",
    "\r\n\r\n",
    " \n \n",
    "\t\t",
    "'",
    "''s",
    " '",
    "\n'test",
)
_SPACES = "\n\r\t\x0b\x0c\x85\xa0\u1680\u180e\u2003\u2028\u2029\u202f\u205f\u3000"


def hostile_texts(count: int, seed: int = 1) -> Iterator[str]:
    """`count` strings, the same for the same seed, none with a lone surrogate."""
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join(_part(rng) for _ in range(rng.randint(1, 8)))


def _part(rng: random.Random) -> str:
    kind = rng.randrange(12)
    if kind == 0:
        return " " * rng.choice((1, 2, 3, 40, 300))
    if kind == 1:
        return rng.choice(_SPACES) * rng.randint(1, 9)
    if kind == 2:
        return str(rng.randrange(10 ** rng.randint(1, 30)))
    if kind == 3:
        return "".join(rng.choice("abcXYZ'") for _ in range(rng.choice((5, 50, 2000))))
    if kind == 4:
        return "".join(rng.choice("\0\x01\x02\x1b\x1c\x1d\x1e\x1f\x7f\x80\x9f") for _ in range(4))
    if kind < 9:
        return rng.choice((_ODD, _SPECIAL, _CODE, _WORDS)[kind - 5])
    return "".join(_character(rng) for _ in range(rng.randint(1, 20)))


def _character(rng: random.Random) -> str:
    """Of ASCII, of the alphabets, or of any plane."""
    top = rng.choice((0x80, 0x3000, 0x20000, 0x110000))
    code = rng.randrange(top)
    return chr(code) if not 0xD800 <= code < 0xE000 else "'"
