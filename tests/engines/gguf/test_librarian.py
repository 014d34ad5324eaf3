"""The library as an engine offers it: what the policy lets it do, and what is told of a model."""

import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from engines.errors import EngineError, ModelNotFound, RequestRefused, Unavailable
from engines.gguf.catalog import Catalog
from engines.gguf.config import GgufConfig
from engines.gguf.librarian import Librarian
from engines.protocol import ModelLibrary, Text
from tests.engines.gguf.ollama_folder import everything, put_model
from tests.engines.gguf.registry.fake_host import FakeHost
from tests.engines.gguf.registry.pulling import QUICK
from tests.gguf_files import CHATML, write_gguf

LIBRARY = "registry.ollama.ai/library"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", layers=1, width=32)


def librarian(
    folder: Path | None, environment: dict[str, str] | None = None, **config: Any
) -> Librarian:
    how = GgufConfig(**config)
    home = {"HOME": str(folder)} if folder else {}
    return Librarian(Catalog(folder, how), how, how=QUICK, environment=home | (environment or {}))


async def all_of(steps: AsyncGenerator[Any, None]) -> list[str]:
    return [step.status async for step in steps]


async def why_not(steps: AsyncGenerator[Any, None]) -> str:
    with pytest.raises(EngineError) as refused:
        await all_of(steps)
    return refused.value.message


@pytest.fixture
async def host(weights: Path) -> AsyncGenerator[FakeHost]:
    async with FakeHost().running() as running:
        running.put_model("team/tiny", {"model": weights.read_bytes()})
        running.files["/m.gguf"] = weights.read_bytes()
        yield running


@pytest.mark.parametrize("allowed", [None, ("127.0.0.1",), ("*.0.0.1",), ("hf.co", "127.0.0.1:*")])
async def test_models_come_from_allowed_hosts(
    tmp_path: Path, host: FakeHost, allowed: tuple[str, ...] | None
) -> None:
    library = librarian(tmp_path, registries=allowed)

    assert (await all_of(library.pull(f"{host.host}/team/tiny")))[-1] == "success"
    assert (await all_of(library.pull(f"{host.url}/m.gguf")))[-1] == "success"


async def test_what_a_model_is_made_from_is_pulled_first(tmp_path: Path, host: FakeHost) -> None:
    library = librarian(tmp_path)
    modelfile = f"FROM {host.host}/team/tiny\nSYSTEM be kind"

    first = await all_of(library.create("mine", modelfile))
    asked = len(host.requests)
    again = await all_of(library.create("twin", modelfile))

    assert (first[0], first.count("success"), first[-1]) == ("pulling manifest", 1, "success")
    assert first.index("verifying sha256 digest") < first.index("gathering model components")
    assert again[0] == "gathering model components"
    assert len(host.requests) == asked
    assert (await library.show("mine")).system == "be kind"
    assert (await library.show(f"{host.host}/team/tiny")).system == ""


async def test_a_base_that_cannot_be_had_leaves_no_model(tmp_path: Path, host: FakeHost) -> None:
    library = librarian(tmp_path, registries=("127.0.0.1",))
    away = librarian(tmp_path / "away")
    said = [
        await why_not(library.create("mine", f"FROM {source}"))
        for source in (f"{host.host}/team/nope", "qwen3", "./m.gguf", "a b")
    ]

    assert "there is no model" in said[0]
    assert "and it cannot be pulled: " in said[0]
    assert "the policy's `registries` are 127.0.0.1" in said[1]
    assert "is a file and no model" in said[2]
    assert "'a b' is not the name of a model" in said[3]
    with pytest.raises(Unavailable, match="and it cannot be pulled"):
        await all_of(away.create("mine", "FROM 127.0.0.1:1/team/tiny"))
    with pytest.raises(RequestRefused, match="has a mistake"):
        await all_of(library.create("mine", f"FROM {host.host}/team/tiny\nTEMPLATE {{{{ .A"))
    assert not (tmp_path / "manifests").exists()


@pytest.mark.parametrize("name", ["{host}/team/tiny", "{url}/m.gguf", "qwen3", "hf.co/a/b:Q4_0"])
async def test_and_from_no_other(tmp_path: Path, host: FakeHost, name: str) -> None:
    library = librarian(tmp_path, registries=("registry.example.com", "127.0.0.1:1"))
    name = name.format(host=host.host, url=host.url)

    for steps in (library.pull(name), library.push(name)):
        assert "the policy's `registries` are registry.example.com, 127.0.0.1:1" in await why_not(
            steps
        )

    assert host.requests == []
    assert "registries` are none" in await why_not(librarian(tmp_path, registries=()).pull(name))


async def test_the_policys_hub_goes_before_the_environments(tmp_path: Path, host: FakeHost) -> None:
    library = librarian(tmp_path, {"HF_ENDPOINT": "http://127.0.0.1:1"}, hugging_face_url=host.url)

    assert "has no model 'hf.co/a/b:Q4_0'" in await why_not(library.pull("hf.co/a/b:Q4_0"))
    assert [path for path, _ in host.requests] == ["/api/models/a/b"]


async def test_a_library_that_is_only_read_is_never_written_to(
    tmp_path: Path, weights: Path, host: FakeHost
) -> None:
    put_model(tmp_path, f"{LIBRARY}/tiny/latest", {"model": weights.read_bytes()})
    library = librarian(tmp_path, models_writable=False)
    before = everything(tmp_path)

    for steps in (library.pull(f"{host.host}/team/tiny"), library.create("x", "FROM tiny")):
        assert "no models folder to write to" in await why_not(steps)
    for change in (library.copy("tiny", "x"), library.add_file(str(weights))):
        with pytest.raises(RequestRefused, match="no models folder to write to"):
            await change
    with pytest.raises(RequestRefused, match="is only read here"):
        await library.delete("tiny")
    with pytest.raises(RequestRefused, match="no models folder to write to"):
        await librarian(None).has_blob("sha256:" + "0" * 64)

    assert everything(tmp_path) == before
    assert (await library.show("tiny")).info.name == "tiny:latest"


async def test_what_is_new_goes_to_ollamas_folder_if_that_may_be_written_to(
    tmp_path: Path, weights: Path
) -> None:
    theirs = tmp_path / "ollama"
    put_model(theirs, f"{LIBRARY}/tiny/latest", {"model": weights.read_bytes()})
    config = {"ollama_models_dir": str(theirs), "ollama_models_writable": True}
    library = librarian(None, **config)

    await library.copy("tiny", "mine")
    with pytest.raises(ModelNotFound, match="it is listed as 'tiny:latest'"):
        await library.delete("TINY")
    assert await library.listed_name("TINY") == "tiny:latest"
    assert await library.delete("tiny") == "tiny:latest"

    names = [path.relative_to(theirs / "manifests") for path in theirs.rglob("latest")]
    assert [str(name) for name in names] == [f"{LIBRARY}/mine/latest"]
    assert (theirs / "blobs").is_dir()


async def test_show_tells_everything_that_the_files_say(tmp_path: Path, weights: Path) -> None:
    library = librarian(tmp_path)
    digest = await library.add_file(str(weights))
    await all_of(
        library.create(
            "mine",
            f"FROM @{digest}\nPARAMETER stop END\nPARAMETER top_k 3\nSYSTEM be kind\n"
            "MESSAGE user 1+1\nMESSAGE assistant 2\nLICENSE MIT\nREQUIRES 0.7.1",
        )
    )

    details = await library.show("mine")

    assert details.info.name == "mine:latest"
    assert (details.info.family, details.info.quantization) == ("llama", "q8_0")
    assert details.info.digest is not None
    assert details.parameters.splitlines() == ['stop "END"', "top_k 3"]
    assert (details.template, details.system) == (CHATML, "be kind")
    assert (details.licenses, details.requires) == (("MIT",), "0.7.1")
    assert [(message.role, message.parts) for message in details.messages] == [
        ("user", (Text("1+1"),)),
        ("assistant", (Text("2"),)),
    ]
    assert details.metadata["llama.block_count"] == 1
    assert "tokenizer.chat_template" in details.metadata or len(CHATML) > 1024
    assert details.modelfile.startswith(f"FROM @{digest}\n")


async def test_a_plain_file_is_shown_by_its_own_name(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "plain.gguf").write_bytes(weights.read_bytes())

    details = await librarian(tmp_path).show("plain")

    assert details.modelfile == "FROM plain\n"
    assert (details.system, details.licenses, details.info.digest) == ("", (), None)


async def test_blobs_are_there_when_they_were_handed_over(tmp_path: Path, weights: Path) -> None:
    library = librarian(tmp_path / "models")
    digest = f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}"

    assert not await library.has_blob(digest)
    assert await library.add_file(str(weights), digest) == digest
    assert await library.has_blob(digest)
    for wrong in ("sha256:../../etc/passwd", "x", "sha256:" + "A" * 64):
        with pytest.raises(RequestRefused, match="is not sha256:"):
            await library.has_blob(wrong)
        with pytest.raises(RequestRefused, match="is not sha256:"):
            await library.add_file(str(weights), wrong)


async def test_a_file_that_is_not_what_it_should_be_is_no_blob(
    tmp_path: Path, weights: Path
) -> None:
    library = librarian(tmp_path / "models")
    other = "sha256:" + "0" * 64

    with pytest.raises(RequestRefused, match=f"the file has digest sha256:.*, not {other}"):
        await library.add_file(str(weights), other)
    with pytest.raises(Unavailable, match="'gone' cannot be copied: No such file"):
        await library.add_file(str(tmp_path / "gone"))

    assert not await library.has_blob(other)


async def test_names_are_deleted_and_files_that_somebody_put_there_are_not(
    tmp_path: Path, weights: Path
) -> None:
    (tmp_path / "plain.gguf").write_bytes(weights.read_bytes())
    library = librarian(tmp_path)
    await library.copy("plain", "team/mine")

    assert await library.delete("team/mine:latest") == "team/mine:latest"
    with pytest.raises(RequestRefused, match="is a file that somebody put there"):
        await library.delete("plain")
    for unknown in ("nowhere", "../x", "starter2"):
        with pytest.raises(ModelNotFound):
            await library.delete(unknown)

    assert (tmp_path / "plain.gguf").exists()
    assert list((tmp_path / "blobs").glob("sha256-*")) == []


def test_the_engine_is_a_model_library(tmp_path: Path) -> None:
    from engines.gguf.engine import GgufEngine

    assert isinstance(GgufEngine("x", GgufConfig(), models_dir=tmp_path), ModelLibrary)
