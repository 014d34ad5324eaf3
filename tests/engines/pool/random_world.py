"""A machine of pretended memory, and many who load, use, break and take away models at random.

The world keeps its own books: what is loaded, who uses it, how often each request was
answered. It checks them at every change, whatever the pool believes.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from engines.errors import EngineError, ModelNotFound, Overloaded, Unavailable
from engines.pool import Budget, Limits, Need, Pool, Room

NAMES = [f"m{number}" for number in range(9)]
GIANT = "giant"  # fits no budget
MAX_LOAD_SECONDS = 4.0
MAX_HOLD_SECONDS = 2.0
MIN_RESIDENCY_SECONDS = 3.0
MAX_WAIT_SECONDS = 60.0  # twice the longest that was seen


@dataclass(eq=False)
class Model:
    world: "World"
    name: str
    room: Room
    version: int
    has_failed: bool = False
    num_users: int = 0
    is_closing: bool = False

    async def close(self) -> None:
        self.world.claim(not self.num_users, f"{self.name} is taken from under its users")
        self.world.claim(not self.is_closing, f"{self.name} is closed twice")
        self.is_closing = True
        await asyncio.sleep(self.world.random.random() * 0.5)
        del self.world.held[self.name]
        if self.world.random.random() < 0.02:
            raise OSError("it would not go")


@dataclass(eq=False)
class World:
    random: Random
    total: Room = field(default_factory=lambda: Room(100, 40, 4))
    machine: int = 120  # main memory, of which others may have some
    taken_by_others: int = 0
    held: dict[str, Room] = field(default_factory=dict)  # by models loading, loaded, closing
    loading: dict[str, Room] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)  # the last copy of each
    versions: Counter[str] = field(default_factory=Counter)  # of the files
    answers: Counter[int] = field(default_factory=Counter)  # by request
    outcomes: Counter[str] = field(default_factory=Counter)
    num_requests: int = 0
    longest_wait: float = 0.0
    tasks: dict[asyncio.Task[None], str] = field(default_factory=dict)  # whom each asks for
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # What a timer or a task of the pool raises would only be logged.
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.claim(False, repr(context))
        )
        self.pool: Pool[Model] = Pool(
            self.open,
            limits=Limits(
                keep_alive_seconds=5.0,
                max_waiting=10,
                min_residency_seconds=MIN_RESIDENCY_SECONDS,
            ),
            budget=Budget(self.total, self.free),
            clock=asyncio.get_running_loop().time,
        )
        self.needs = {name: self._some_needs() for name in NAMES}
        self.needs[GIANT] = [Need(Room(101, 0, 1))]

    def claim(self, is_true: bool, otherwise: str) -> None:
        """Note what must never be; the pool would take an exception for a failed load."""
        if not is_true:
            self.violations.append(otherwise)

    def _some_needs(self) -> list[Need]:
        size = self.random.randint(5, 70)
        if self.random.random() < 0.5:
            return [Need(Room(size, 0, 1))]
        on_gpu = [min(40, size), size // 3, 0]
        return [Need(Room(size - gpu + 1, gpu, 1), gpu) for gpu in on_gpu]

    def free(self) -> Room:
        loaded = sum(
            room.main_bytes for name, room in self.held.items() if name not in self.loading
        )
        return Room(self.machine - self.taken_by_others - loaded, self.total.gpu_bytes, 100)

    def check(self) -> None:
        """The pool's own books say no less than is true, and nothing has happened that must not."""
        assert not self.violations, self.violations[0]
        assert self.pool.room.holds(self.in_use()), (self.pool.room, self.held)

    def in_use(self) -> Room:
        return sum(self.held.values(), Room())

    async def open(self, name: str, need: Need) -> Model:
        self.claim(name not in self.held, f"{name} is loaded twice")
        after = self.in_use() + need.room
        self.claim(self.total.holds(after), f"{after} is over the budget")
        coming = need.room.main_bytes + sum(room.main_bytes for room in self.loading.values())
        self.claim(coming <= self.free().main_bytes, f"{name} is too much for the machine")
        self.held[name] = self.loading[name] = need.room
        version = self.versions[name]
        try:
            await asyncio.sleep(self.random.random() * MAX_LOAD_SECONDS)
            if (luck := self.random.random()) < 0.06:
                raise [Unavailable("bad luck"), ModelNotFound(name), ValueError("odd")][
                    int(luck * 50)
                ]
        except BaseException:
            del self.held[name]
            raise
        finally:
            del self.loading[name]
        more = self.random.choice((0, 0, 0, 0, -2, 3))
        measured = Room(max(1, need.room.main_bytes + more), need.room.gpu_bytes, 1)
        self.held[name] = measured
        self.models[name] = Model(self, name, measured, version)
        if self.random.random() < 0.3:
            # It runs after somebody is granted the model and before that somebody can know.
            asyncio.get_running_loop().call_soon(self._cancel_one, name)
        return self.models[name]

    def _cancel_one(self, name: str) -> None:
        for task, wanted in self.tasks.items():
            if wanted == name:
                task.cancel()
                return

    def start(self, name: str, *, is_long: bool = True) -> None:
        self.num_requests += 1
        number = self.num_requests
        task = asyncio.create_task(self._request(number, name, is_long=is_long))
        self.tasks[task] = name

        def ended(_: asyncio.Task[None]) -> None:
            del self.tasks[task]
            if task.cancelled():  # before it ever ran
                self._answered(number, "cancelled")

        task.add_done_callback(ended)

    async def _request(self, number: int, name: str, *, is_long: bool) -> None:
        loop = asyncio.get_running_loop()
        keep_alive = self.random.choice((None, None, 0.0, 1.0, 30.0, -1.0))
        began = loop.time()
        try:
            lease = await self.pool.lease(
                name,
                keep_alive_seconds=keep_alive,
                needs=self.needs[name],
                expects_another=not is_long,
            )
        except Overloaded as error:
            assert error.retry_after is not None
            assert error.retry_after >= 1.0
            return self._answered(number, "overloaded")
        except EngineError as error:
            return self._answered(number, error.code)
        except asyncio.CancelledError:
            return self._answered(number, "cancelled")
        finally:
            self.longest_wait = max(self.longest_wait, loop.time() - began)
        model = lease.model
        self.claim(model is self.models[name], f"{name} is an older copy")
        self.claim(model.version == self.versions[name], f"{name} is not what its file says")
        self.claim(not model.is_closing and not model.has_failed, f"{name} is of no use")
        model.num_users += 1
        try:
            if is_long:
                await asyncio.sleep(self.random.random() * MAX_HOLD_SECONDS)
        except asyncio.CancelledError:
            pass
        finally:
            model.num_users -= 1
            lease.release()
        return self._answered(number, "answered")

    def _answered(self, number: int, how: str) -> None:
        self.answers[number] += 1
        self.outcomes[how] += 1

    async def unload(self, name: str) -> None:
        await self.pool.unload(name)
        self.outcomes["unloaded"] += 1

    async def settle(self) -> None:
        """With nothing new to wake the pool, all who wait hear of it in time."""
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def step(self) -> None:
        """One random operation, then the books."""
        if self.random.random() < 0.001:
            await self.settle()
        luck, random = self.random.random(), self.random
        name = random.choice(NAMES)
        if luck < 0.40:
            self.start(name)
        elif luck < 0.45:
            self.start(name, is_long=False)  # an explicit load
        elif luck < 0.46:
            self.start(GIANT)
        elif luck < 0.56 and self.tasks:
            random.choice(list(self.tasks)).cancel()
        elif luck < 0.65:
            await self._break_something(name)
        else:
            await asyncio.sleep(random.choice((0.0, 0.0, 0.01, 0.1, 1.0)))
        self.check()

    async def _break_something(self, name: str) -> None:
        luck = self.random.random()
        if luck < 0.4:
            task = asyncio.create_task(self.unload(name))
            self.tasks[task] = ""
            task.add_done_callback(self.tasks.pop)
        elif luck < 0.6:
            self.versions[name] += 1
            self.pool.retire(name)  # another file has its name, or none
            self.needs[name] = self._some_needs()
        elif luck < 0.8 and name in self.models:
            self.models[name].has_failed = True
        elif luck > 0.9:
            await self._take_memory()

    async def _take_memory(self) -> None:
        # A load that is decided begins at once, before others can take its memory.
        for _ in range(100):
            if self.pool.room == self.in_use():
                break
            await asyncio.sleep(0)
        self.claim(self.pool.room == self.in_use(), "a place is held by nobody")
        self.taken_by_others = self.random.choice((0, 0, 10, 40, 90))
