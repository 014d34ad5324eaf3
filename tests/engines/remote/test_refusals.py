import pytest

from engines.errors import (
    ContextTooLong,
    DoubtfullyUnavailable,
    EngineError,
    ModelNotFound,
    Overloaded,
    RequestRefused,
    Unavailable,
    UpstreamAnswer,
)
from engines.remote.refusals import Refused, error_of, retry_after_of, said_in


def refused(status: int, body: bytes = b"{}", *, relay: bool = True, **headers: str) -> EngineError:
    return error_of(
        Refused(
            status=status,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            body=body,
            model="up/model",
            public_model="public",
            with_words=True,
            relay=relay,
        )
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, Unavailable), (307, Unavailable), (400, RequestRefused), (401, Unavailable),
        (402, Unavailable), (403, Unavailable), (404, RequestRefused), (405, RequestRefused),
        (407, Unavailable), (408, Unavailable), (409, Unavailable), (413, RequestRefused),
        (415, RequestRefused), (418, RequestRefused), (422, RequestRefused), (429, Overloaded),
        (500, DoubtfullyUnavailable), (502, Unavailable), (503, Unavailable), (504, Unavailable),
        (529, Overloaded), (599, Unavailable),
    ],
)  # fmt: skip
def test_a_status_means_one_thing(status: int, kind: type[EngineError]) -> None:
    assert type(refused(status)) is kind


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"error":{"code":"context_length_exceeded","message":"x"}}', ContextTooLong),
        (400, b'{"object":"error","message":"maximum context length is 5","code":400}',
         ContextTooLong),
        (400, b'{"error":{"type":"exceed_context_size_error","message":"x"}}', ContextTooLong),
        (422, b'{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= '
              b'4096. Given: 5000 `inputs` tokens","error_type":"validation"}',
         ContextTooLong),
        (422, b'{"error":"Input validation error: `inputs` must have less than 1024 tokens."}',
         ContextTooLong),
        (400, b'{"error":{"code":400,"message":"The input token count (1200000) exceeds the '
              b'maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}',
         ContextTooLong),
        (400, b'[{"error":{"code":400,"message":"The input token count exceeds the maximum number '
              b'of tokens allowed 1048576."}}]', ContextTooLong),
        (400, b'{"error":"This model\'s maximum prompt length is 131072 but the request has 2"}',
         ContextTooLong),
        (400, b'{"error":{"message":"input length and `max_tokens` exceed context limit: 1 + 2"}}',
         ContextTooLong),
        (400, b'{"message":"Input is too long for requested model."}', ContextTooLong),
        (422, b'{"error":"Input validation error: `max_new_tokens` must be <= 512"}',
         RequestRefused),
        (500, b'{"error":{"code":500,"message":"the request exceeds the available context size. '
              b'try increasing the context size","type":"server_error"}}', ContextTooLong),
        (200, b'{"error":{"code":500,"message":"the request exceeds the available context size"}}',
         ContextTooLong),
        (500, b'{"error":{"message":"no memory for the context window"}}', DoubtfullyUnavailable),
        (503, b'{"error":{"message":"the request exceeds the available context size"}}',
         Unavailable),
        (404, b'{"error":{"message":"model \\"x\\" not found, try pulling it first"}}',
         ModelNotFound),
        (404, b'{"error":{"message":"x","code":"model_not_found"}}', ModelNotFound),
        (404, b'{"detail":"Not Found"}', RequestRefused),
        (429, b'{"error":{"code":"insufficient_quota","message":"pay"}}', Unavailable),
        (503, b'{"error":{"code":"server_is_overloaded","message":"x"}}', Overloaded),
        (200, b'{"error":{"code":429,"message":"slow"}}', Overloaded),
        (200, b'{"error":{"message":"bad","type":"invalid_request_error"}}', RequestRefused),
        (200, b'{"error":"it broke"}', DoubtfullyUnavailable),
        (500, b"\xff\xfe", DoubtfullyUnavailable),
        (400, b"[1", RequestRefused),
        (400, b"[" * 100_000, RequestRefused),
    ],
)  # fmt: skip
def test_words_say_more_than_a_status(status: int, body: bytes, kind: type[EngineError]) -> None:
    assert type(refused(status, body)) is kind


def test_what_the_client_can_act_on_is_kept_as_it_was_but_for_the_models_name() -> None:
    error = refused(422, b'{"error":{"message":"up/model and up/model-2 differ"},"x":[1.50]}')

    assert error.answer is not None
    assert error.answer.status == 422
    assert error.answer.body == (b'{"error":{"message":"public and up/model-2 differ"},"x":[1.50]}')


def test_an_error_that_came_in_a_200_has_the_status_it_should_have_had() -> None:
    error = refused(200, b'{"error":{"message":"bad","code":422}}')

    assert error.answer is not None
    assert error.answer.status == 422


@pytest.mark.parametrize("status", [401, 403, 429, 500, 307])
def test_what_is_not_the_clients_business_is_not_told(status: int) -> None:
    error = refused(status, b'{"error":{"message":"key sk-1234 of account 77 at db3.internal"}}')

    assert error.answer is None
    assert not any(word in error.message for word in ("sk-1234", "77", "db3"))


def test_a_prompt_that_is_too_long_is_no_failure_of_the_server_that_calls_it_one() -> None:
    error = refused(500, b'{"error":{"message":"the request exceeds the available context size"}}')

    assert error.answer is None  # so that its own status counts
    assert error.message == "the request exceeds the available context size"


def test_html_is_not_handed_on_as_an_error() -> None:
    error = refused(413, b"<html>nginx/1.2.3 on host db3</html>")

    assert error.answer == UpstreamAnswer(413)
    assert error.message == "the upstream refused the request (413)"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'"no"', b"{", b'{"error":{"message":"\xff"}}', b"\x00" * 9]
)
@pytest.mark.parametrize("relay", [True, False])
def test_a_refusal_whose_body_cannot_be_read_keeps_its_status(body: bytes, *, relay: bool) -> None:
    assert refused(415, body, relay=relay).answer == UpstreamAnswer(415)


def test_a_caller_of_another_dialect_reads_the_message_in_its_own_shape() -> None:
    error = refused(422, b'{"error":{"message":"up/model is small","param":"x"}}', relay=False)

    assert error.answer == UpstreamAnswer(422)
    assert error.message == "public is small"
    assert isinstance(error, RequestRefused)
    assert error.param == "x"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:05 GMT", None),
        ("999999999", 3600.0),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after_of({"retry-after": text}, now=10.0) == seconds


def test_retry_after_is_passed_on() -> None:
    error = refused(429, retry_after="12")

    assert isinstance(error, Overloaded)
    assert error.retry_after == 12.0


def test_a_body_without_an_error_has_none() -> None:
    assert said_in(b'{"choices":[]}') is None
    assert said_in(b"nothing") is None
