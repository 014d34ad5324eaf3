"""Reads small JSON documents from an issuer, and from nowhere that it might send us to."""

import asyncio
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from gateway.oidc.issuer_policy import url_problem
from gateway.oidc.strict_json import strict_object

FETCH_SECONDS = 5.0
MAX_BYTES = 512 * 1024
MAX_REDIRECTS = 3
_HEADERS = {"accept": "application/json", "accept-encoding": "identity"}


class FetchFailed(Exception):
    """The document could not be had; the message is for the log."""


async def fetch_json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """The JSON object at `url`. Raises `FetchFailed`, within `FETCH_SECONDS`.

    Redirects are followed on the same origin only: another host's answer would not be
    this issuer's word.
    """
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            return strict_object(await _fetched(client, url))
    except TimeoutError:
        raise FetchFailed(f"{url} did not answer within {FETCH_SECONDS:g} seconds") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise FetchFailed(f"{url}: {type(error).__name__}: {error}") from error
    except ValueError as error:
        raise FetchFailed(f"{url} answered with what is no JSON object: {error}") from error


async def _fetched(client: httpx.AsyncClient, url: str) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        async with client.stream("GET", url, headers=_HEADERS, follow_redirects=False) as response:
            if response.status_code == 200:
                return await _body(url, response)
            if not response.is_redirect:
                raise FetchFailed(f"{url} answered {response.status_code}")
            target = urljoin(url, response.headers["location"])
        if url_problem(target) or _origin(target) != _origin(url):
            raise FetchFailed(f"{url} redirects to another host, which is not followed")
        url = target
    raise FetchFailed(f"{url} redirects again and again")


async def _body(url: str, response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise FetchFailed(f"{url} answered compressed, unasked")
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_BYTES:
            raise FetchFailed(f"{url} answered with over {MAX_BYTES // 1024} KiB")
    return bytes(body)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default
