"""Makes a prompt with a template that a request brings, in the place of the model's own."""

from engines.chat.template import ChatTemplate
from engines.errors import EngineError, RequestRefused
from engines.gguf.go_template.syntax import CannotTranslate
from engines.gguf.go_template.writing import to_jinja
from engines.gguf.loaded_model import LoadedModel
from engines.protocol import GenerateRequest


def rendered_with(model: LoadedModel, go_source: str, request: GenerateRequest) -> str:
    """What a Go template makes of the request's messages. Raises `RequestRefused`.

    It is as untrusted as the request, so it runs where all templates do: engines/chat/sandbox.py.
    """
    try:
        template = ChatTemplate(
            to_jinja(go_source),
            bos_token=model.vocabulary.bos_spelling,
            eos_token=model.vocabulary.eos_spelling,
        )
        return template.render(request.messages, reasoning_effort=request.reasoning_effort).text
    except CannotTranslate as error:
        raise RequestRefused(f"template cannot be used: {error}", param="template") from None
    except EngineError as error:
        raise RequestRefused(
            f"template cannot be used: {error.message}", param="template"
        ) from None
