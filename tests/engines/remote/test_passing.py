import pytest

from engines.errors import RequestRefused, Unavailable
from engines.protocol import Finished, Usage
from engines.remote.answers import Names
from engines.remote.passing import PassedAnswer
from engines.wire import Relayed

NAMES = Names(model="up", public_model="public", with_words=True, relay=True)


def passing(*, only_json: bool = False) -> PassedAnswer:
    return PassedAnswer(NAMES, 10_000, only_json=only_json)


def test_a_stream_of_any_events_goes_through_line_by_line() -> None:
    answer = passing()
    assert answer.form("text/event-stream") == "events"
    created = (
        b'event: response.created\ndata: {"type":"response.created",'
        b'"response":{"model":"up","usage":null}}\n\n'
    )
    completed = (
        b'event: response.completed\ndata: {"type":"response.completed","response":{"model":"up",'
        b'"usage":{"input_tokens":5,"output_tokens":3,"total_tokens":8,'
        b'"input_tokens_details":{"cached_tokens":2}}}}\n\n'
    )

    whole = created + b": comment\n\n" + completed
    events = [e for at in range(0, len(whole), 7) for e in answer.feed(whole[at : at + 7])]
    last = answer.end()

    text = b"".join(event.data for event in events if isinstance(event, Relayed))
    assert text == whole.replace(b'"up"', b'"public"')
    assert isinstance(last[-1], Finished)
    assert last[-1].usage == Usage(prompt_tokens=5, cached_tokens=2, completion_tokens=3)


def test_counts_that_come_in_two_events_are_put_together() -> None:
    answer = passing()
    answer.form("text/event-stream")

    list(answer.feed(b'data: {"message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n'))
    list(answer.feed(b'data: {"usage":{"output_tokens":4}}\n\n'))

    assert answer.end()[-1].usage == Usage(prompt_tokens=9, completion_tokens=4)  # type: ignore[union-attr]


def test_half_an_event_is_not_the_end() -> None:
    answer = passing()
    answer.form("text/event-stream")
    list(answer.feed(b"data: {}\n\ndata: {"))

    with pytest.raises(Unavailable, match="last event"):
        answer.end()


def test_sound_goes_through_piece_by_piece() -> None:
    answer = passing()
    assert answer.form("audio/mpeg") == "pieces"

    events = [*answer.feed(b"\xff\xfb\n\n"), *answer.feed(b'"model":"up"'), *answer.end()]

    assert events[:2] == [Relayed(b"\xff\xfb\n\n"), Relayed(b'"model":"up"')]
    assert isinstance(events[2], Finished)


@pytest.mark.parametrize("content_type", ["text/html", "application/javascript", "image/svg+xml"])
def test_a_page_for_browsers_is_no_answer(content_type: str) -> None:
    with pytest.raises(Unavailable):
        passing().form(content_type)


def test_an_answer_without_a_body_is_an_answer() -> None:
    answer = passing()
    answer.form("")

    assert [type(event) for event in answer.end()] == [Relayed, Finished]


def test_a_whole_answer_goes_through_and_is_counted() -> None:
    relayed, finished = passing().whole(
        b'{"model": "up", "x":{"model":"up"}, "usage":{"total_tokens":6}, "error":{"code":"y"}}'
    )

    assert isinstance(relayed, Relayed)
    assert relayed.data.count(b'"public"') == 2
    assert isinstance(finished, Finished)
    assert finished.usage == Usage(prompt_tokens=6)


def test_a_known_paths_error_in_a_200_is_an_error() -> None:
    with pytest.raises(RequestRefused):
        passing(only_json=True).whole(b'{"error":{"message":"x","code":422}}')


def test_a_known_path_answers_in_json() -> None:
    with pytest.raises(Unavailable):
        passing(only_json=True).form("audio/mpeg")
    with pytest.raises(Unavailable, match="not JSON"):
        passing(only_json=True).whole(b"{")


def test_counts_of_an_unknown_shape_are_none() -> None:
    finished = passing().whole(b'{"usage":{"prompt_tokens":"many"}}')[-1]

    assert isinstance(finished, Finished)
    assert finished.usage == Usage()
