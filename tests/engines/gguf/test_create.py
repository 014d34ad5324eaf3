"""Models made from blobs and from other models; see test_quantizing.py and conversion/ for more."""

import os
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from engines.errors import ModelNotFound, RequestRefused, Unavailable
from engines.gguf.copying import copy_model
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.importing import import_file
from engines.gguf.files.manifests import layer
from engines.gguf.files.names import parse_name
from engines.gguf.library import Library
from engines.gguf.new_model import assembled, write_model
from engines.gguf.recipe import Said, recipe_of
from tests.engines.gguf.creating import blob_of, created, library_of, shown, statuses
from tests.engines.gguf.ollama_folder import everything, put_model
from tests.engines.gguf.projector_files import write_projector
from tests.gguf_files import write_gguf

LIBRARY = "registry.ollama.ai/library"
GO = "{{ if .System }}<s>{{ .System }}</s>{{ end }}<u>{{ .Prompt }}</u><a>{{ .Response }}</a>"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", layers=1, width=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


async def test_a_model_is_made_of_a_blob_with_all_that_a_modelfile_can_say(
    folder: Path, weights: Path
) -> None:
    digest = blob_of(folder, weights)

    steps = await created(
        folder,
        "team/mine:v1",
        f'FROM @{digest}\nPARAMETER temperature 0.5\nPARAMETER stop END\nSYSTEM """be\nkind"""\n'
        f'TEMPLATE """{GO}"""\nMESSAGE user 1+1\nMESSAGE assistant 2\nLICENSE MIT\nLICENSE BSD\n'
        "REQUIRES 0.6.0\nPARAMETER mirostat 1",
    )

    said = statuses(steps)
    assert said[0] == "gathering model components"
    assert "parameter mirostat is kept and changes nothing here" in said
    assert f"using existing layer {digest}" in said
    assert sum(status.startswith("creating new layer sha256:") for status in said) == 6
    assert said[-2:] == ["writing manifest", "success"]
    file = library_of(folder).look_up("team/mine:v1")
    recipe = recipe_of(file)
    assert file.path.read_bytes() == weights.read_bytes()
    assert recipe.parameters == {"temperature": 0.5, "stop": ["END"], "mirostat": 1}
    assert (recipe.system, recipe.template) == ("be\nkind", GO)
    assert recipe.messages == (Said("user", "1+1"), Said("assistant", "2"))
    assert recipe.licenses == ("MIT", "BSD")
    assert (recipe.settings.requires, recipe.settings.model_family) == ("0.6.0", "llama")
    assert recipe.settings.file_type == "Q8_0"


async def test_a_model_made_of_another_keeps_what_it_does_not_say_anew(
    folder: Path, weights: Path
) -> None:
    await created(
        folder,
        "base",
        f"FROM @{blob_of(folder, weights)}\nSYSTEM be kind\nPARAMETER top_k 3\nPARAMETER seed 1\n"
        "MESSAGE user hi\nLICENSE MIT",
    )

    await created(folder, "child", "FROM base\nPARAMETER top_k 9\nMESSAGE user bye")

    recipe = recipe_of(library_of(folder).look_up("child"))
    assert recipe.parameters == {"top_k": 9, "seed": 1}
    assert (recipe.system, recipe.messages) == ("be kind", (Said("user", "bye"),))
    assert recipe.licenses == ("MIT",)
    # Weights, system message and license are shared.
    assert len(list((folder / "blobs").glob("sha256-*"))) == 3 + 2 * 3


async def test_an_empty_system_takes_the_bases_away(folder: Path, weights: Path) -> None:
    await created(folder, "base", f"FROM @{blob_of(folder, weights)}\nSYSTEM be kind")

    await created(folder, "child", 'FROM base\nSYSTEM ""')

    assert recipe_of(library_of(folder).look_up("child")).system == ""


async def test_what_show_writes_makes_the_same_model_again(folder: Path, weights: Path) -> None:
    await created(
        folder,
        "first",
        f'FROM @{blob_of(folder, weights)}\nSYSTEM """two\nlines"""\nPARAMETER stop "a b"\n'
        f'TEMPLATE """{GO}"""\nMESSAGE user hi\nLICENSE """MIT\n\nfor all"""',
    )
    details = await shown(folder, "first")

    await created(folder, "second", details.modelfile)

    first, second = (library_of(folder).look_up(name) for name in ("first", "second"))
    assert first.manifest is not None
    assert second.manifest is not None
    assert first.manifest.raw == second.manifest.raw


async def test_a_model_of_a_folder_that_is_only_read_is_brought_over(
    tmp_path: Path, weights: Path
) -> None:
    theirs = tmp_path / "ollama"
    put_model(theirs, f"{LIBRARY}/tiny/latest", {"model": weights.read_bytes(), "system": b"hm"})
    before = everything(theirs)
    folder = ModelFolder(theirs, is_writable=False)
    library = Library(tmp_path / "ours", {}, also=[folder])

    copy_model(library, "tiny", "mine")

    assert everything(theirs) == before
    ours = Library(tmp_path / "ours", {})
    assert ours.look_up("mine").path.read_bytes() == weights.read_bytes()
    assert recipe_of(ours.look_up("mine")).system == "hm"


async def test_a_plain_file_gets_a_name_by_being_copied(tmp_path: Path, weights: Path) -> None:
    tmp_path.joinpath("plain.gguf").write_bytes(weights.read_bytes())
    library = Library(tmp_path, {})

    copy_model(library, "plain", "named:v1")

    file = Library(tmp_path, {}).look_up("named:v1")
    assert file.path.read_bytes() == weights.read_bytes()
    assert recipe_of(file).settings.model_type == "36.00K"


def adapter(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.zeros((2, 32), dtype=np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", np.zeros((32, 2), dtype=np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file):
        write()
    writer.write_tensors_to_file()
    writer.close()
    return path


async def test_an_adapter_is_a_layer_and_a_new_one_takes_its_place(
    folder: Path, weights: Path, tmp_path: Path
) -> None:
    lora = blob_of(folder, adapter(tmp_path / "lora.gguf"))
    await created(folder, "tuned", f"FROM @{blob_of(folder, weights)}\nADAPTER @{lora}")

    recipe = recipe_of(library_of(folder).look_up("tuned"))
    details = await shown(folder, "tuned")

    assert [path.name for path in recipe.adapters] == [lora.file_name]
    assert f"ADAPTER @{lora}" in details.modelfile
    await created(folder, "child", f"FROM tuned\nADAPTER @{lora}")
    child = library_of(folder).look_up("child").manifest
    assert child is not None
    assert len(child.of_kind("adapter")) == 1


async def test_a_projector_beside_the_weights_is_a_layer_of_its_own(
    folder: Path, weights: Path, tmp_path: Path
) -> None:
    eyes = blob_of(folder, write_projector(tmp_path / "eyes.gguf"))

    seen = f"FROM @{blob_of(folder, weights)} m.gguf\nFROM @{eyes} eyes.gguf"
    await created(folder, "sees", seen)

    recipe = recipe_of(library_of(folder).look_up("sees"))
    assert [path.name for path in recipe.projectors] == [eyes.file_name]
    assert f"\nFROM @{eyes}\n" in (await shown(folder, "sees")).modelfile


@pytest.mark.parametrize(
    ("modelfile", "said"),
    [
        ("FROM nowhere", "FROM: there is no model 'nowhere'"),
        ("FROM ./m.gguf", "is a file and no model: hand it over as a blob"),
        ("FROM /etc/passwd", "is a file and no model: hand it over as a blob"),
        ("FROM ../../secret.GGUF", "is a file and no model: hand it over as a blob"),
        ("FROM @sha256:../../etc/passwd", "is not sha256: and 64 hexadecimal digits"),
        ("FROM @sha256:" + "0" * 64, "hand it over first"),
        ("FROM @sha256:" + "0" * 64 + " ../model.safetensors", "is not the plain name of a file"),
        ("FROM {weights}\nADAPTER ./lora.gguf", "ADAPTER './lora.gguf' must be handed over"),
        ("FROM {weights}\nADAPTER {weights}", "is no adapter"),
        ("FROM {weights}\nTEMPLATE {{{{ .Nope }}}}", "neither .Messages nor .Prompt"),
        ("FROM {own}\nTEMPLATE {{{{ .Foo", "the TEMPLATE has a mistake: the action '{{ .Foo' does"),
        ("FROM {own}\nTEMPLATE {{{{ if .Prompt }}}}x", "a mistake: a block does not end"),
        (
            "FROM {own}\nTEMPLATE {{{{ .Prompt }}}}{{{{ $x }}}}",
            "uses $x, which it does not declare",
        ),
        ("FROM {text}", "this is no GGUF model"),
    ],
)
async def test_what_cannot_be_made_is_refused_and_leaves_no_name(
    folder: Path, tmp_path: Path, modelfile: str, said: str
) -> None:
    plain = write_gguf(tmp_path / "t.gguf", layers=1, width=32, chat_template=None)
    text = tmp_path / "text"
    text.write_text("no model at all")
    own = write_gguf(tmp_path / "o.gguf", layers=1, width=32)  # has a chat template
    files = {"weights": plain, "text": text, "own": own}
    names = {name: f"@{blob_of(folder, path)}" for name, path in files.items()}

    with pytest.raises(RequestRefused) as refused:
        await created(folder, "mine", modelfile.format(**names))

    assert said in refused.value.message
    assert not (folder / "manifests").exists()


async def test_a_header_that_lies_is_refused_before_anything_loads_it(
    folder: Path, weights: Path, tmp_path: Path
) -> None:
    content = weights.read_bytes().replace(
        b"llama.block_count" + struct.pack("<II", 4, 1),
        b"llama.block_count" + struct.pack("<II", 4, 10**6),
    )
    (tmp_path / "lies.gguf").write_bytes(content)

    with pytest.raises(RequestRefused, match="block_count is 1000000; expected 1 to 512"):
        await created(folder, "mine", f"FROM @{blob_of(folder, tmp_path / 'lies.gguf')}")


async def test_a_template_that_fits_nowhere_gives_way_to_the_models_own(
    folder: Path, weights: Path
) -> None:
    digest = blob_of(folder, weights)

    steps = await created(folder, "mine", f"FROM @{digest}\nTEMPLATE {{{{ nope .Prompt }}}}")

    assert (
        "the TEMPLATE cannot be used (it uses the function 'nope'): the model's own chat template "
        "is"
    ) in statuses(steps)
    assert (await shown(folder, "mine")).template == "{{ nope .Prompt }}"


async def test_blobs_that_no_model_was_made_of_go_after_a_day(
    folder: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "theirs").write_bytes(b"theirs")
    old, new = (blob_of(folder, tmp_path / name) for name in ("old", "new"))
    models = ModelFolder(folder)
    theirs = import_file(models, tmp_path / "theirs")  # as Ollama would put it there
    used = blob_of(folder, weights)
    await created(folder, "one", f"FROM @{used}")
    for digest in (old, used, theirs):
        os.utime(models.blob(digest), (1, 1))
    for digest in (old, used):
        os.utime(folder / "blobs" / ".handed-over" / digest.file_name, (1, 1))

    await created(folder, "two", "FROM one")

    assert not models.blob(old).exists()
    assert models.blob(new).exists()
    assert models.blob(used).exists()
    assert models.blob(theirs).exists()
    notes = [path.name for path in (folder / "blobs" / ".handed-over").iterdir()]
    assert notes == [new.file_name]


async def test_names_and_folders_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(RequestRefused, match="is not the name of a model"):
        await created(tmp_path, "../up", "FROM x")
    with pytest.raises(RequestRefused, match="no models folder to write to"):
        copy_model(Library(None, {}), "a", "b")
    with pytest.raises(ModelNotFound):
        copy_model(Library(tmp_path, {}), "a", "b")


async def test_a_model_that_loses_a_blob_while_it_is_made_has_no_name(
    folder: Path, weights: Path
) -> None:
    digest = blob_of(folder, weights)
    models = ModelFolder(folder)
    manifest = assembled(models, [layer("model", digest, weights.stat().st_size)], {})
    models.blob(digest).unlink()

    with pytest.raises(Unavailable, match="has gone meanwhile"):
        write_model(models, parse_name("mine"), manifest)

    assert library_of(folder).list() == []
