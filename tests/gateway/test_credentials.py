import pytest

from gateway.credentials import presented_credential
from gateway.errors import Unauthenticated


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"authorization": ""}, None),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "Bearer   "}, None),
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer   abc "}, "abc"),
        ({"authorization": "abc"}, "abc"),
        ({"authorization": "Basic abc"}, "Basic abc"),
        ({"x-api-key": " abc "}, "abc"),
        ({"api-key": "abc"}, "abc"),
        ({"authorization": "Bearer abc", "x-api-key": "abc", "api-key": "abc"}, "abc"),
        ({"authorization": "Bearer abc", "x-api-key": ""}, "abc"),
    ],
)
def test_the_credential_is_found_in_any_header(
    headers: dict[str, str], expected: str | None
) -> None:
    assert presented_credential(headers) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer abc", "x-api-key": "def"},
        {"x-api-key": "abc", "api-key": "ABC"},
        {"authorization": "Basic abc", "x-api-key": "abc"},
        {"authorization": "Bearer abc, Bearer def"},
        {"x-api-key": "abc, abc"},
    ],
)
def test_two_credentials_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated, match="two different"):
        presented_credential(headers)
