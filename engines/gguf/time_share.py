"""How many tokens of prompts and texts one step may take while answers wait for it."""

PROMPT_SHARE_SECONDS = 0.1
MIN_PROMPT_SHARE = 32


class TimeShare:
    """Learns from steps what a token costs; owned by the step thread."""

    def __init__(self) -> None:
        self._seconds_per_token = 0.0

    @property
    def num_tokens(self) -> int:
        """So many take about `PROMPT_SHARE_SECONDS`; few, while that is to be learnt."""
        if not self._seconds_per_token:
            return MIN_PROMPT_SHARE
        return max(MIN_PROMPT_SHARE, int(PROMPT_SHARE_SECONDS / self._seconds_per_token))

    def measured(self, num_tokens: int, seconds: float) -> None:
        """Note how long a step of so many took."""
        if num_tokens < MIN_PROMPT_SHARE:
            return
        each = seconds / num_tokens
        last = self._seconds_per_token
        self._seconds_per_token = 0.8 * last + 0.2 * each if last else each
