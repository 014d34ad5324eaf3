"""Everything that is served, in one list."""

from collections.abc import Sequence
from typing import Any

from gateway.api import health
from gateway.api.admin import audit, calls, keys, policy, targets, teams, usage
from gateway.api.admin import models as admin_models
from gateway.api.ollama import (
    blobs,
    copy,
    create,
    delete,
    embed,
    generate,
    ps,
    pull,
    push,
    show,
    tags,
    version,
)
from gateway.api.ollama import chat as ollama_chat
from gateway.api.ollama import embeddings as ollama_embeddings
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
    generate.create_generation,
    ollama_chat.create_chat,
    embed.create_embeddings,
    ollama_embeddings.create_embedding,
    tags.list_tags,
    show.show_model,
    ps.list_running,
    version.show_version,
    version.show_running,
    pull.pull_model,
    push.push_model,
    create.create_model,
    copy.copy_model,
    delete.delete_model,
    blobs.check_blob,
    blobs.create_blob,
    admin_models.show_models,
    keys.list_keys,
    keys.create_key,
    keys.show_key,
    keys.revoke_key,
    keys.disable_key,
    keys.enable_key,
    keys.expire_key,
    keys.narrow_key,
    keys.rotate_key,
    teams.list_teams,
    teams.show_team,
    usage.show_usage,
    calls.list_calls,
    calls.end_call,
    audit.list_audit,
    audit.verify_audit,
    policy.show_policy,
    policy.check_policy,
    policy.explain_policy,
    policy.reload_policy,
    targets.show_targets,
    targets.drain_target,
    targets.resume_target,
]
