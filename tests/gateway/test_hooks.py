from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from gateway import Call, Principal, hookimpl
from gateway.hooks import Hooks, PluginInvalid, every, first, joined, kind_of, nested
from gateway.hookspecs import HookSpecs


def answering(value: int | None, name: str) -> Callable[[list[str]], Any]:
    async def answer(seen: list[str]) -> int | None:
        seen.append(name)
        return value

    return answer


async def test_first_stops_at_the_first_answer_and_asks_no_more() -> None:
    seen: list[str] = []
    implementations = [answering(None, "a"), answering(7, "b"), answering(8, "c")]

    answer = await first(implementations, seen)

    assert answer == 7
    assert seen == ["a", "b"]


async def test_every_runs_all_until_one_raises() -> None:
    seen: list[str] = []

    def step(name: str) -> Callable[[], Any]:
        async def run() -> None:
            seen.append(name)
            if name == "b":
                raise ValueError(name)

        return run

    with pytest.raises(ValueError, match="b"):
        await every([step("a"), step("b"), step("c")])

    assert seen == ["a", "b"]


@pytest.mark.parametrize("names", ["", "a", "ab"])
async def test_contexts_are_joined_however_few_they_are(names: str) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def context(name: str) -> AsyncGenerator[None, None]:
        seen.append(f"+{name}")
        yield
        seen.append(f"-{name}")

    async with joined([context(name) for name in names]):
        seen.append("inside")

    assert seen == [*(f"+{n}" for n in names), "inside", *(f"-{n}" for n in reversed(names))]


async def test_nested_leaves_in_reverse_also_when_the_inside_fails() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def context(name: str) -> AsyncGenerator[None, None]:
        seen.append(f"+{name}")
        try:
            yield
        finally:
            seen.append(f"-{name}")

    with pytest.raises(RuntimeError):
        async with nested([context("a"), context("b")]):
            raise RuntimeError

    assert seen == ["+a", "+b", "-b", "-a"]


@pytest.mark.parametrize(
    ("hook", "kind"),
    [("register_engines", "sync"), ("identify", "async"), ("admit", "context"), ("route", "async")],
)
def test_a_hooks_kind_is_read_off_its_spec(hook: str, kind: str) -> None:
    assert kind_of(vars(HookSpecs)[hook]) == kind


def test_an_implementation_of_the_wrong_kind_is_refused_when_it_is_loaded() -> None:
    class Wrong:
        @hookimpl
        async def admit(self, call: Call) -> None: ...

    with pytest.raises(PluginInvalid, match=r"wrong\.admit is async; the hook is context"):
        Hooks([("wrong", Wrong())])


def test_a_wrapper_around_a_hook_is_refused_when_it_is_loaded() -> None:
    class Wrapping:
        @hookimpl(wrapper=True)
        def register_routes(self) -> Any:
            return (yield)

    with pytest.raises(PluginInvalid, match=r"wrapping\.register_routes is a wrapper"):
        Hooks([("wrapping", Wrapping())])


def test_a_hook_that_does_not_exist_is_refused_when_it_is_loaded() -> None:
    class Misspelled:
        @hookimpl
        async def identity(self, call: Call) -> None: ...

    with pytest.raises(Exception, match="identity"):
        Hooks([("misspelled", Misspelled())])


async def test_plugins_act_in_the_order_in_which_the_policy_lists_them(call: Call) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        async def identify(self, headers: Mapping[str, str]) -> Principal | None:
            return Principal(name=self.name, team="t") if self.name in headers["who"] else None

    hooks = Hooks([("a", Named("a")), ("b", Named("b")), ("c", Named("c"))])

    assert (await hooks.identify(call, {"who": "c"})) == Principal(name="c", team="t")
    assert (await hooks.identify(call, {"who": "cb"})) == Principal(name="b", team="t")
    assert (await hooks.identify(call, {"who": "-"})) is None


async def test_an_implementation_takes_the_arguments_that_it_names(call: Call) -> None:
    seen: list[object] = []

    class Image:
        @hookimpl
        async def fetch_image(self, url: str) -> bytes | None:
            seen.append(url)
            return None

    class Turned:
        @hookimpl
        async def fetch_image(self, url: str, call: Call) -> bytes | None:
            seen.append((url, call))
            return b"an image"

    hooks = Hooks([("image", Image()), ("turned", Turned())])

    assert await hooks.fetch_image(call, "https://a.test/b.png") == b"an image"
    assert seen == ["https://a.test/b.png", ("https://a.test/b.png", call)]


async def test_some_hooks_alone_leave_the_others_and_plugins_without_them_silent(
    call: Call,
) -> None:
    seen: list[str] = []

    class Preparing:
        @hookimpl
        async def prepare(self, call: Call) -> None:
            seen.append("prepare")

        @hookimpl
        async def authorize(self, call: Call) -> None:
            seen.append("authorize")

    class Limiting:
        @hookimpl
        @asynccontextmanager
        async def admit(self, call: Call) -> AsyncGenerator[None, None]:
            seen.append("admit")
            yield

        @hookimpl
        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None, None]:
            seen.append("lifespan of limiting")
            yield

    class Living(Preparing):
        @hookimpl
        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None, None]:
            seen.append("lifespan of living")
            yield

    hooks = Hooks([("limiting", Limiting()), ("living", Living())]).only("prepare", "route")

    async with hooks.lifespan(cast(Any, None)):
        await hooks.authorize(call)
        await hooks.prepare(call)
        async with hooks.admit(call), hooks.observe(call):
            pass

    assert seen == ["lifespan of living", "prepare"]
    assert await hooks.identify(call, {}) is None
