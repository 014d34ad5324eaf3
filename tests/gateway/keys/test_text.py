import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys import id_in
from gateway.keys.text import Claimed, new_claim, parsed, written

ALPHANUMERIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

claims = st.builds(
    Claimed,
    id=st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=12, max_size=12),
    secret=st.text(ALPHANUMERIC, min_size=43, max_size=43),
)


@given(claims)
def test_a_key_that_is_written_can_be_read(claim: Claimed) -> None:
    assert parsed(written(claim)) == claim


@given(claims, st.data())
def test_one_wrong_character_anywhere_is_noticed(claim: Claimed, data: st.DataObject) -> None:
    key = written(claim)
    place = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.sampled_from(ALPHANUMERIC + "-").filter(lambda c: c != key[place]))

    assert parsed(key[:place] + other + key[place + 1 :]) is None


@given(claims, st.data())
def test_swapped_neighbours_are_noticed(claim: Claimed, data: st.DataObject) -> None:
    key = written(claim)
    place = data.draw(st.sampled_from([i for i in range(len(key) - 1) if key[i] != key[i + 1]]))

    assert parsed(key[:place] + key[place + 1] + key[place] + key[place + 2 :]) is None


@given(claims, st.data())
def test_a_part_of_a_key_is_no_key(claim: Claimed, data: st.DataObject) -> None:
    key = written(claim)
    start, end = sorted((data.draw(st.integers(0, len(key))), data.draw(st.integers(0, len(key)))))

    assert (parsed(key[start:end]) is None) == ((start, end) != (0, len(key)))


@given(claims)
def test_a_key_in_other_letters_is_no_key(claim: Claimed) -> None:
    key = written(claim)
    for changed in (key.upper(), key.lower(), key.swapcase()):
        assert changed == key or parsed(changed) is None


@given(st.text())
def test_any_text_may_be_presented(text: str) -> None:
    assert parsed(text) is None
    assert parsed(f"sk-penstock-{text}") is None


@pytest.mark.parametrize("around", ["{}\n", " {}", "{} ", "{}\0", "{}-", "Bearer {}", "{}é"])
def test_nothing_may_stand_around_a_key(around: str) -> None:
    assert parsed(around.format(written(new_claim()))) is None


def test_the_id_is_found_in_what_people_paste() -> None:
    claim = new_claim()

    assert id_in(claim.id) == claim.id
    assert id_in(written(claim)) == claim.id
    assert id_in(f"sk-penstock-{claim.id[:5]}") == claim.id[:5]
