"""The `penstock` command: one file for each command, imported when it is used.

Nothing heavy is imported here, so that `penstock --help` answers at once.
"""

import importlib
from collections.abc import Mapping

import click

# command -> (module, one line for --help, which must not import the module)
COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("serve", "Serve the models of a policy."),
    "run": ("run", "Chat with a model, or ask it one question."),
    "pull": ("pull", "Fetch a model."),
    "list": ("list_models", "List the models that you may use."),
    "show": ("show", "Show what a model is."),
    "create": ("create", "Make a model from a Modelfile."),
    "cp": ("cp", "Give a model another name."),
    "rm": ("rm", "Remove models."),
    "push": ("push", "Send a model to a registry."),
    "ps": ("ps", "Show what is loaded and running."),
    "stop": ("stop", "Take models out of memory."),
    "keys": ("keys", "Create, list and revoke API keys."),
    "policy": ("policy", "Check, explain and reload policies."),
    "usage": ("usage", "Sum up what was used, by team, key, model or day."),
    "audit": ("audit", "Show and verify the audit log."),
    "bench": ("bench", "Measure how fast a model answers."),
    "parity": ("parity", "See whether a model answers alike in two places."),
}

# What Ollama's users type -> the command that it is.
OTHER_NAMES: Mapping[str, str] = {"ls": "list", "start": "serve"}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command, or None if there is none of that name."""
        cmd_name = OTHER_NAMES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        return importlib.import_module(f"gateway.cli.{module}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with the nearest name."""
        import difflib

        name = args[0] if args else ""
        known = (*COMMANDS, *OTHER_NAMES)
        if name and not name.startswith("-") and name not in known:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean `penstock {near[0]}`?" if near else "see `penstock --help`"
            ctx.fail(f"there is no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="penstock", prog_name="penstock")
def main() -> None:
    """One gate, many engines: a self-hosted LLM gateway with its engines inside."""
