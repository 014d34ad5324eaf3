import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.protocol import Image, Message, Text
from gateway.api.ollama.conversation import from_context, to_context
from gateway.errors import BadRequest

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=50)
TURNS = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXTS), max_size=6)


@given(turns=TURNS, answer=TEXTS)
def test_a_conversation_comes_back_as_it_was(turns: list[tuple[str, str]], answer: str) -> None:
    messages = [Message(role=role, parts=[Text(text)]) for role, text in turns]

    found = from_context(to_context(messages, answer))

    assert [(one.role, one.text) for one in found] == [*turns, ("assistant", answer)]


def test_every_number_fits_where_a_token_id_does() -> None:
    numbers = to_context([Message(role="user", parts=[Text("héllo ☃ 🎉" * 20)])], "ja")

    assert all(0 <= number < 2**24 for number in numbers)


def test_pictures_are_left_out() -> None:
    picture = Message(
        role="user", parts=[Text("see"), Image(data=b"x" * 99, media_type="image/png")]
    )

    assert [one.text for one in from_context(to_context([picture], "yes"))] == ["see", "yes"]


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 2, 3],
        [0x50454E],
        [0x50454E, 0, 0],
        [0x50454E, 0, 2**40],
        [-1, 0, 0],
        [*to_context([], "hello"), 7],
        to_context([], "hello")[:-1],
        [*to_context([], "hello")[:-1], 0x2A2A2A],
    ],
)
def test_anything_else_is_refused(numbers: list[int]) -> None:
    with pytest.raises(BadRequest, match="context"):
        from_context(numbers)


def test_a_huge_one_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadRequest, match="over 2000000 numbers"):
        from_context([0x50454E] * 2_000_001)
