"""Says everything that a model's files say, for `show`."""

from engines.gguf.catalog import Known
from engines.gguf.files.model_file import ModelFile
from engines.gguf.modelfile import Modelfile, parameter_lines, write_modelfile
from engines.gguf.recipe import Recipe
from engines.protocol import Message, ModelDetails, Text


def details_of(file: ModelFile, known: Known) -> ModelDetails:
    """A model's details, as one that is not loaded."""
    recipe = known.recipe
    return ModelDetails(
        info=known.info,
        modelfile=write_modelfile(_modelfile(file, recipe)),
        parameters="\n".join(parameter_lines(recipe.parameters)),
        template=recipe.template or known.header.chat_template or "",
        system=recipe.system,
        licenses=recipe.licenses,
        messages=[Message(role=one.role, parts=(Text(one.content),)) for one in recipe.messages],
        requires=recipe.settings.requires,
        metadata=known.header.metadata,
    )


def _modelfile(file: ModelFile, recipe: Recipe) -> Modelfile:
    layers = file.manifest.layers if file.manifest else ()
    files = [f"@{layer.digest}" for layer in layers if layer.kind in ("model", "projector")]
    return Modelfile(
        sources=tuple(files) or (file.name,),
        parameters=recipe.parameters,
        template=recipe.template,
        system=recipe.system,
        adapters=tuple(f"@{layer.digest}" for layer in layers if layer.kind == "adapter"),
        licenses=recipe.licenses,
        messages=recipe.messages,
        renderer=recipe.settings.renderer,
        parser=recipe.settings.parser,
        requires=recipe.settings.requires,
    )
