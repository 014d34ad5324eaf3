"""Everything that is served, in one list."""

from collections.abc import Sequence
from typing import Any

from gateway.api import health
from gateway.api.admin import models as admin_models
from gateway.api.openai import chat, completions, embeddings, models, passthrough, rerank

HANDLERS: Sequence[Any] = [
    health.live,
    health.ready,
    chat.create_chat_completion,
    completions.create_completion,
    embeddings.create_embedding,
    rerank.create_rerank,
    models.list_models,
    models.retrieve_model,
    passthrough.pass_through,
    admin_models.show_models,
]
