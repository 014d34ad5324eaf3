import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.chat.json_scan import MAX_DEPTH, JsonScan
from tests.engines.chat.answers import cut, cuts

finite_floats = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=3)


@given(value=json_objects, after=st.text(), places=cuts)
def test_it_ends_where_the_object_ends(value: dict[str, object], after: str, places: list[int]):
    text = json.dumps(value)
    scan = JsonScan()

    read = 0
    for chunk in cut(text + after, places):
        read += scan.feed(chunk)

    assert scan.is_done
    assert read == len(text)


@pytest.mark.parametrize("text", ["x", "{'a': 1}", '{"a": 1]', '{"a" <', "1", "}", "[}"])
def test_what_cannot_be_json_breaks_it(text: str):
    scan = JsonScan()

    at = scan.feed(text)

    assert scan.is_broken
    assert at < len(text)


def test_an_object_may_have_begun_before():
    scan = JsonScan(inside_object=True)

    assert scan.feed(', "id": "}"} x') == 12
    assert scan.is_done


def test_nesting_is_bounded():
    scan = JsonScan()

    scan.feed("[" * (MAX_DEPTH + 1))

    assert scan.is_broken
