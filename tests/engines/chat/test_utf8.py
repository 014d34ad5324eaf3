from hypothesis import given
from hypothesis import strategies as st

from engines.chat.utf8 import TokenLedger, Utf8Decoder
from tests.engines.chat.answers import cut, cuts, entry

any_bytes = st.one_of(st.text(max_size=30).map(str.encode), st.binary(max_size=30))


@given(whole=any_bytes, places=cuts)
def test_any_cut_gives_the_text_of_the_whole(whole: bytes, places: list[int]):
    decoder = Utf8Decoder()

    text = "".join(map(decoder.feed, cut(whole, places))) + decoder.flush()

    assert text == whole.decode(errors="replace")


@given(text=st.text(min_size=1, max_size=20), places=cuts)
def test_no_chunk_of_valid_text_has_a_replacement_character(text: str, places: list[int]):
    decoder = Utf8Decoder()
    text = text.replace("\ufffd", "")

    chunks = [decoder.feed(token) for token in cut(text.encode(), places)]

    assert "\ufffd" not in "".join(chunks)
    assert decoder.flush() == ""


def test_a_character_that_never_ends_becomes_one_replacement_character():
    decoder = Utf8Decoder()

    assert decoder.feed(b"a\xf0\x9f") == "a"
    assert decoder.flush() == "\ufffd"
    assert decoder.feed(b"b") == "b"


def test_entries_come_with_the_text_that_their_tokens_begin():
    ledger = TokenLedger()
    first, second, third = entry(b"ab"), entry(b"cd"), entry(b"ef")
    ledger.add(first, start=0, end=2)
    ledger.add(second, start=2, end=4)
    ledger.add(third, start=4, end=6)

    assert ledger.take(start=0, end=3) == (first, second)
    assert ledger.take(start=3, end=4) == ()
    assert ledger.take(start=4, end=6) == (third,)


def test_tokens_that_share_a_character_come_with_it():
    ledger = TokenLedger()
    first, second = entry(b"\xc3"), entry(b"\xa9")
    ledger.add(first, start=0, end=0)
    ledger.add(second, start=0, end=1)

    assert ledger.take(start=0, end=1) == (first, second)


def test_tokens_of_skipped_text_are_forgotten_and_half_skipped_ones_are_not():
    ledger = TokenLedger()
    markup, both = entry(b"<think"), entry(b">Hi")
    ledger.add(markup, start=0, end=6)
    ledger.add(both, start=6, end=9)

    assert ledger.take(start=7, end=9) == (both,)
