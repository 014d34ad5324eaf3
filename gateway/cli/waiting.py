"""A line on the terminal while a model loads and reads a prompt."""

import threading
import time
from typing import Any

from gateway.cli.client import GatewayClient

_PATIENCE_SECONDS = 0.3  # an answer that comes at once needs no line
_LOOK_SECONDS = 0.2


class Waiting:
    """Shown from `with` on until `stop`, or the end of the block."""

    def __init__(self, console: Any, client: GatewayClient) -> None:
        self._console = console
        self._client = client
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Waiting":
        if self._console.is_terminal:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the line away; whoever prints next does it on a clean line."""
        if not self._stopped.is_set():
            self._stopped.set()
            if self._thread.is_alive():
                self._thread.join()

    def _follow(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        if self._stopped.wait(_PATIENCE_SECONDS):
            return
        columns = (
            TextColumn("[dim]{task.description}[/dim]"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("waiting", total=None)
            since = time.monotonic()
            while not self._stopped.wait(_LOOK_SECONDS):
                loading = self._loading() if time.monotonic() - since > _LOOK_SECONDS else None
                if loading is None:
                    progress.update(task, description="thinking", total=None)
                else:
                    name, fraction = loading
                    progress.update(
                        task, description=f"loading {name}", total=1.0, completed=fraction
                    )

    def _loading(self) -> tuple[str, float] | None:
        """The model that is being loaded and how far it is, if the caller may know."""
        state: dict[str, Any] = self._client.glimpse("/admin/models") or {}
        models: list[dict[str, Any]] = state.get("models", [])
        return next(
            ((m["name"], m["loading"]) for m in models if m.get("loading") is not None), None
        )
