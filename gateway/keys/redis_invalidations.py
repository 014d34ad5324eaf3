"""Tells other gateways by Redis publish that a key has changed.

Redis may be away at any moment: what is announced then is lost, and nobody waits for
it. A listener connects again by itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.keys.invalidations import Forget
from gateway.keys.text import is_id

CHANNEL = "penstock:key-changes"
ANNOUNCE_SECONDS = 0.25
CONNECT_SECONDS = 1.0
HEAR_SECONDS = 5.0  # how long to wait for a message before looking whether Redis is there
AGAIN_SECONDS = 1.0
CANCEL_SECONDS = 0.1  # how long a cancel may take before it is taken for lost

log: Any = structlog.get_logger()


class RedisInvalidations:
    """One Redis that gateways share. Made and used on one event loop."""

    def __init__(self, url: str) -> None:
        # What stands behind `?` is for the store of limits, but for the database.
        parts = urlsplit(url)
        query = "&".join(each for each in parts.query.split("&") if each.startswith("db="))
        self._url = urlunsplit(parts._replace(query=query))

    async def announce(self, key_id: str) -> None:
        """Publish the id; a Redis that is away or slow is logged and not waited for."""
        redis = self._redis()
        try:
            async with asyncio.timeout(ANNOUNCE_SECONDS):
                await cast(Awaitable[int], redis.publish(CHANNEL, key_id))
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("key_change_not_announced", key=key_id, reason=type(error).__name__)
        finally:
            await _closed(redis)

    @asynccontextmanager
    async def listening(self, forget: Forget) -> AsyncGenerator[None, None]:
        """Hear what anyone publishes, for as long as the block lasts."""
        task = asyncio.create_task(self._listen(forget))
        try:
            yield
        finally:
            # Once may not do: redis-py loses one cancel in twenty that come as it connects.
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=CANCEL_SECONDS)
            await asyncio.gather(task, return_exceptions=True)

    async def _listen(self, forget: Forget) -> None:
        was_there = True
        while True:
            redis = self._redis()
            try:
                async with redis.pubsub() as channel:
                    await channel.subscribe(CHANNEL)
                    if not was_there:
                        log.info("key_changes_heard_again")
                    was_there = True
                    await self._hear(channel, forget)
            except (RedisError, OSError, TimeoutError) as error:
                if was_there:
                    log.warning("key_changes_not_heard", reason=type(error).__name__)
                was_there = False
            except Exception:
                log.exception("key_changes_not_heard")
                was_there = False
            finally:
                await _closed(redis)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _hear(self, channel: Any, forget: Forget) -> None:
        while True:
            message = await channel.get_message(
                ignore_subscribe_messages=True, timeout=HEAR_SECONDS
            )
            if message is None:
                await channel.ping()  # a Redis that hangs must not be taken for a quiet one
                continue
            key_id = message["data"]
            if isinstance(key_id, bytes) and is_id(text := key_id.decode(errors="replace")):
                forget(text)

    def _redis(self) -> Any:
        return Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            self._url,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=HEAR_SECONDS + CONNECT_SECONDS,
            retry=None,
        )


async def _closed(redis: Any) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await redis.aclose()
    except (RedisError, OSError, TimeoutError) as error:
        log.debug("redis_not_closed", reason=type(error).__name__)
