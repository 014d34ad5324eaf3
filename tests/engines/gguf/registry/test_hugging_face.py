"""Pulls from a server shaped like Hugging Face's."""

import hashlib
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from engines.errors import EngineError, ModelNotFound, RequestRefused, Unavailable
from engines.gguf.library import Library
from engines.gguf.recipe import recipe_of
from tests.engines.gguf.projector_files import write_projector
from tests.engines.gguf.registry.fake_host import FakeHost, redirect_to, status
from tests.engines.gguf.registry.pulling import blob, check, pulled
from tests.gguf_files import write_gguf

COMMIT = "c0ffee" + "0" * 34
API = "/api/models/Org/Tiny-GGUF"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", layers=1, width=32).read_bytes()


class Hub:
    """A repository on a fake host."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.siblings: list[dict[str, Any]] = []
        self.environment = {"HF_ENDPOINT": host.url, "HF_TOKEN": "hf_secret"}

    def put(self, path: str, content: bytes, **changes: Any) -> None:
        large = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        sibling = {"rfilename": path, "size": len(content), "lfs": large, **changes}
        self.siblings.append(sibling)
        self.host.files[self.path(path)] = content
        self.host.files[API] = json.dumps({"sha": COMMIT, "siblings": self.siblings}).encode()

    def path(self, file: str) -> str:
        return f"/Org/Tiny-GGUF/resolve/{COMMIT}/{file}"

    async def pulled(self, folder: Path, tag: str = "") -> None:
        name = f"hf.co/Org/Tiny-GGUF{tag}"
        await pulled(folder, name, environment=self.environment)


@pytest.fixture
async def hub(weights: bytes) -> AsyncGenerator[Hub]:
    async with FakeHost().running() as host:
        hub = Hub(host)
        hub.put("README.md", b"# Tiny", lfs=None)
        hub.put("tiny-Q8_0.gguf", weights)
        hub.put("tiny-Q4_K_M.gguf", weights + b"more")
        hub.put("params", b'{"stop":["END"]}', lfs=None)
        hub.put("system", b"be kind", lfs=None)
        yield hub


async def test_the_tag_chooses_the_file_and_small_files_come_along(
    hub: Hub, tmp_path: Path, weights: bytes
) -> None:
    await hub.pulled(tmp_path, ":q8_0")

    file = Library(tmp_path, {}).look_up("hf.co/org/tiny-gguf:Q8_0")
    recipe = recipe_of(file)
    assert file.name == "hf.co/Org/Tiny-GGUF:q8_0"
    assert file.path.read_bytes() == weights
    assert (recipe.system, recipe.parameters) == ("be kind", {"stop": ["END"]})
    assert recipe.settings.model_family == "llama"
    check(tmp_path)


async def test_a_projector_for_pictures_comes_along(
    hub: Hub, tmp_path: Path, weights: bytes
) -> None:
    eyes = write_projector(tmp_path / "eyes").read_bytes()
    hub.put("mmproj-model-Q8_0.gguf", b"smaller eyes")
    hub.put("mmproj-model-F16.gguf", eyes)

    await hub.pulled(tmp_path / "models", ":q8_0")

    file = Library(tmp_path / "models", {}).look_up("hf.co/org/tiny-gguf:Q8_0")
    assert file.path.read_bytes() == weights
    (projector,) = recipe_of(file).projectors
    assert projector.read_bytes() == eyes
    check(tmp_path / "models")


async def test_a_projector_that_is_none_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.put("mmproj-F16.gguf", b"<html>")

    with pytest.raises(RequestRefused, match="this is no GGUF file"):
        await hub.pulled(tmp_path, ":q8_0")

    assert Library(tmp_path, {}).list() == []


async def test_without_a_tag_it_is_the_middling_one(
    hub: Hub, tmp_path: Path, weights: bytes
) -> None:
    await hub.pulled(tmp_path)

    assert Library(tmp_path, {}).find("hf.co/Org/Tiny-GGUF").read_bytes() == weights + b"more"


async def test_a_whole_file_name_is_a_tag_too(hub: Hub, tmp_path: Path, weights: bytes) -> None:
    await hub.pulled(tmp_path, ":tiny-Q8_0")

    assert blob(tmp_path, weights).exists()


async def test_a_wrong_tag_is_answered_with_those_that_there_are(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as refused:
        await hub.pulled(tmp_path, ":Q2_K")

    assert refused.value.message.endswith(
        "has no GGUF file for the tag 'Q2_K' (there are: Q4_K_M, Q8_0)"
    )


async def test_the_token_goes_to_the_hub_and_not_to_its_storage(
    hub: Hub, tmp_path: Path, weights: bytes
) -> None:
    async with FakeHost().running("localhost") as storage:
        storage.files["/signed"] = weights
        hub.host.faults[hub.path("tiny-Q8_0.gguf")] = redirect_to(f"{storage.url}/signed")

        await hub.pulled(tmp_path, ":Q8_0")

        asked = hub.host.asked(API) + hub.host.asked(hub.path("tiny-Q8_0.gguf"))
        assert {headers["Authorization"] for headers in asked} == {"Bearer hf_secret"}
        assert storage.requests
        assert not any("Authorization" in headers for _, headers in storage.requests)
    assert blob(tmp_path, weights).read_bytes() == weights


async def test_a_file_that_is_not_what_the_hub_says_is_thrown_away(
    hub: Hub, tmp_path: Path, weights: bytes
) -> None:
    hub.host.files[hub.path("tiny-Q8_0.gguf")] = bytes(len(weights))

    with pytest.raises(Unavailable, match="was thrown away"):
        await hub.pulled(tmp_path, ":Q8_0")

    assert Library(tmp_path, {}).list() == []
    check(tmp_path)


@pytest.mark.parametrize(
    "path", ["../../../../evil-Q2_K.gguf", "/etc/evil-Q2_K.gguf", "a/./evil-Q2_K.gguf"]
)
async def test_a_file_name_is_never_a_path_here(hub: Hub, tmp_path: Path, path: str) -> None:
    hub.put(path, b"GGUF evil")

    with pytest.raises(Unavailable, match="impossible name"):
        await hub.pulled(tmp_path / "models", ":Q2_K")

    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("large", [None, {"sha256": "../../x", "size": 4}])
async def test_a_file_of_unknown_content_is_refused(
    hub: Hub, tmp_path: Path, large: dict[str, Any] | None
) -> None:
    hub.put("odd-Q2_K.gguf", b"GGUF", lfs=large)

    with pytest.raises(Unavailable, match="gives no SHA-256 for it"):
        await hub.pulled(tmp_path, ":Q2_K")


async def test_a_file_in_parts_is_refused_with_the_way_out(hub: Hub, tmp_path: Path) -> None:
    hub.put("big-Q2_K-00001-of-00003.gguf", b"GGUF")

    with pytest.raises(RequestRefused, match="llama-gguf-split"):
        await hub.pulled(tmp_path, ":Q2_K")


async def test_what_is_no_model_is_refused_and_has_no_name(hub: Hub, tmp_path: Path) -> None:
    hub.put("html-Q2_K.gguf", b"<html>please log in</html>")

    with pytest.raises(RequestRefused, match="this is no GGUF model"):
        await hub.pulled(tmp_path, ":Q2_K")

    assert not (tmp_path / "manifests").exists()


@pytest.mark.parametrize(("code", "kind"), [(404, ModelNotFound), (401, RequestRefused)])
async def test_a_repository_that_we_may_not_see_is_told_apart(
    hub: Hub, tmp_path: Path, code: int, kind: type[EngineError]
) -> None:
    hub.host.faults[API] = status(code)

    with pytest.raises(kind, match=r"hf\.co/Org/Tiny-GGUF"):
        await hub.pulled(tmp_path)


async def test_a_listing_that_is_none_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.host.files[API] = b"<html>"

    with pytest.raises(Unavailable, match="lists no files"):
        await hub.pulled(tmp_path)
