"""The store that many gateways share: one Redis, one script for each decision.

The scripts tell the time by Redis's clock and count in integers; a script that
Redis has lost is sent again whole. All keys carry one hash tag, so a cluster
keeps them on one node.

A call never waits for a connection. While there is none, `reserve` fails at once
and a keeper tries again in the background, after a pause that doubles and
wavers, and lets calls back in when a PING was answered in time. Time-outs count
as failures; the fifth in a row drops the connection.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

import msgspec
import structlog

from gateway.store.memory import TOMBSTONE_MS
from gateway.store.protocol import Decision, Demand, Fill, StoreUnavailable
from gateway.store.redis_address import RedisAddress
from gateway.store.redis_wire import (
    RedisLink,
    RedisLost,
    RedisRefused,
    RedisTooSlow,
    Reply,
    is_unknown_script,
)
from gateway.store.scripts import (
    SCRIPTS,
    ScriptCall,
    ToldBuckets,
    key_of_call,
    script_call,
    script_of,
    told,
)

log = structlog.get_logger()

LEASE_MS = 30_000  # how long a call counts as running after its gateway was last heard of
RESERVATION_MS = 3_600_000
MAX_FAILURES = 5  # in a row
MAX_OWED = 10_000  # settlements kept for a Redis that is away
PAUSE_SECONDS = (0.1, 5.0)  # first and longest pause before a connection is tried again
CONNECT_SECONDS = 1.0  # no call waits for this
OWED_SECONDS = 1.0  # nobody waits for these
MAX_RENEWED_AT_ONCE = 200

FAILURES = (RedisLost, RedisTooSlow, RedisRefused, OSError, TimeoutError)
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Decision)


class RedisStore:
    """One process's connection to the shared store. `clock` is for tests: Redis has its own."""

    lease_ms: ClassVar[int] = LEASE_MS

    def __init__(self, address: RedisAddress, *, clock: Callable[[], int] | None = None) -> None:
        self._address = address
        self._clock = clock or (lambda: 0)
        self._link: RedisLink | None = None
        self._failures = 0
        self._num_lost = 0  # settlements that no longer fitted
        self._owed: deque[ScriptCall] = deque()
        self._held: dict[str, ToldBuckets] = {}  # by the call's id

    @property
    def is_connected(self) -> bool:
        """Would a reservation be sent?"""
        return self._link is not None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Keep a connection and renew leases; starts also while Redis is away."""
        first = asyncio.Event()
        tasks = [asyncio.create_task(self._keep(first)), asyncio.create_task(self._renew())]
        try:
            await first.wait()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._pay_owed()
            link, self._link = self._link, None
            if link is not None:
                # The answer to this comes after those to all settlements.
                with contextlib.suppress(*FAILURES):
                    await link.send(b"PING", timeout=OWED_SECONDS)
                link.close()

    @asynccontextmanager
    async def visited(self) -> AsyncGenerator[None, None]:
        """One connection for a look from outside. Raises `StoreUnavailable`."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._link = link = await self._connect()
        except FAILURES as error:
            raise StoreUnavailable(f"the store failed: {error}") from error
        try:
            yield
        finally:
            self._link = None
            link.close()

    async def reserve(
        self, call_id: str, demands: Sequence[Demand], *, output: int = 0, least_output: int = 0
    ) -> Decision:
        """See `Store.reserve`."""
        buckets = told(tuple([demand.bucket for demand in demands]))
        payload = _encode(
            (call_id, self._clock(), output, least_output, LEASE_MS, RESERVATION_MS, demands, False)
        )
        decision = await self._decided(buckets.called("reserve", call_id, payload))
        if decision.granted:
            self._held[call_id] = buckets
        return decision

    async def peek(self, demands: Sequence[Demand]) -> Sequence[Fill]:
        """See `Store.peek`."""
        buckets = told(tuple([demand.bucket for demand in demands]))
        payload = _encode(("-", self._clock(), 0, 0, LEASE_MS, RESERVATION_MS, demands, True))
        return (await self._decided(buckets.called("reserve", "-", payload))).fills

    def settle(
        self,
        call_id: str,
        demands: Sequence[Demand],
        used: Sequence[int],
        *,
        charge_unreserved: bool = False,
    ) -> None:
        """See `Store.settle`."""
        buckets = self._held.pop(call_id, None) or told(
            tuple([demand.bucket for demand in demands])
        )
        payload = _encode((call_id, self._clock(), TOMBSTONE_MS, charge_unreserved, demands, used))
        self._pay(buckets.called("settle", call_id, payload))

    async def _decided(self, asked: ScriptCall) -> Decision:
        link = self._link
        if link is None:
            raise StoreUnavailable("the store is away")
        try:
            reply = await self._run(link, asked, self._address.timeout_seconds)
        except FAILURES as error:
            raise StoreUnavailable(f"the store failed: {error}", asked=True) from error
        assert isinstance(reply, bytes)
        return _decoder.decode(reply)

    async def _run(self, link: RedisLink, asked: ScriptCall, seconds: float) -> Reply:
        """One round trip; two if Redis does not know the script."""
        try:
            try:
                reply = await link.ask(asked.by_digest(), seconds)
            except RedisRefused as error:
                if not is_unknown_script(error):
                    raise
                reply = await link.ask(asked.whole(), seconds)
        except FAILURES as error:
            self._failed(link, error)
            raise
        self._failures = 0
        return reply

    def _failed(self, link: RedisLink, error: Exception) -> None:
        self._failures += 1
        if link is self._link and (self._failures >= MAX_FAILURES or link.closed.is_set()):
            self._link = None
            link.close()
            log.warning("store_lost", store=str(self._address), error=str(error))

    def _pay(self, settlement: ScriptCall) -> None:
        """Send a settlement and do not wait; owe it if that fails."""
        link = self._link
        if link is None:
            self._owe(settlement)
            return
        seconds = self._address.timeout_seconds

        def done(settled: "asyncio.Future[Reply]") -> None:
            error = None if settled.cancelled() else settled.exception()
            if error is None:
                self._failures = 0
            elif isinstance(error, RedisRefused) and is_unknown_script(error):
                # Redis knows it from now on.
                link.ask(settlement.whole(), seconds).add_done_callback(done)
            elif isinstance(error, Exception):
                self._owe(settlement)
                self._failed(link, error)

        link.ask(settlement.by_digest(), seconds).add_done_callback(done)

    def _owe(self, settlement: ScriptCall) -> None:
        if len(self._owed) >= MAX_OWED:
            self._owed.popleft()
            self._num_lost += 1
        self._owed.append(settlement)

    async def _pay_owed(self) -> None:
        """Send what is owed, in order; what fails stays owed."""
        link = self._link
        while link is not None and self._owed:
            try:
                await self._run(link, self._owed[0], OWED_SECONDS)
            except FAILURES:
                return
            self._owed.popleft()
        if self._num_lost:
            log.error("settlements_lost", store=str(self._address), count=self._num_lost)
            self._num_lost = 0

    async def _keep(self, first: asyncio.Event) -> None:
        """Connect whenever there is no connection, until cancelled."""
        shortest, longest = PAUSE_SECONDS
        pause = shortest
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    link = await self._connect()
            except FAILURES as error:
                if not first.is_set():
                    log.warning("store_away", store=str(self._address), error=str(error))
                    first.set()
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(longest, 2 * pause)
                continue
            self._link, self._failures = link, 0
            log.info("store_connected", store=str(self._address), owed=len(self._owed))
            first.set()
            began = time.monotonic()
            await self._while_connected(link)
            # A Redis that answers PING and then fails must not be asked at full speed.
            pause = shortest if time.monotonic() - began > longest else min(longest, 2 * pause)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))

    async def _connect(self) -> RedisLink:
        link = await self._address.connect()
        try:
            for name in SCRIPTS:
                await link.send(b"SCRIPT", b"LOAD", script_of(name).source, timeout=OWED_SECONDS)
        except BaseException:
            link.close()
            raise
        return link

    async def _while_connected(self, link: RedisLink) -> None:
        """Pay what is owed, now and then; return when the connection is gone."""
        while not link.closed.is_set():
            await self._pay_owed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await link.closed.wait()
        if self._link is link:
            self._link = None
            log.warning("store_lost", store=str(self._address), error="the connection ended")

    async def _renew(self) -> None:
        """Every third of a lease's life, say which calls still run."""
        while True:
            await asyncio.sleep(self.lease_ms / 3000)
            held = self._keys_held()
            for start in range(0, len(held), MAX_RENEWED_AT_ONCE):
                await self.renew_now(held[start : start + MAX_RENEWED_AT_ONCE])

    async def renew_now(self, held: Sequence[tuple[str, list[bytes]]] | None = None) -> None:
        """Renew the leases of calls that run, by default of all."""
        calls = self._keys_held() if held is None else held
        link = self._link
        if link is None or not calls:
            return
        keys = [key for _, own in calls for key in own]
        told = [(call_id, len(own) - 1) for call_id, own in calls]
        payload = msgspec.msgpack.encode((self._clock(), LEASE_MS, RESERVATION_MS, told))
        with contextlib.suppress(*FAILURES):
            await self._run(link, script_call("renew", keys, payload), OWED_SECONDS)

    def _keys_held(self) -> list[tuple[str, list[bytes]]]:
        """For each call that runs, the keys of its reservation and its leases."""
        return [
            (call_id, [key_of_call(call_id), *buckets.leases])
            for call_id, buckets in self._held.items()
        ]
