"""A constraint on the answer of a model that thinks first."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engines.chat.constraints import ConstraintState


class AfterThinking:
    """A constraint that begins when the thinking ends: until then the model is free."""

    def __init__(
        self, state: ConstraintState, end_of_thinking: int, end_ids: Sequence[int]
    ) -> None:
        self._state = state
        self._end_of_thinking = end_of_thinking
        self._end_ids = list(end_ids)
        self._is_thinking = True

    @property
    def is_finished(self) -> bool:
        """Whether nothing can follow."""
        return not self._is_thinking and self._state.is_finished

    def allows(self, token: int) -> bool:
        """Whether this token may come next."""
        return token not in self._end_ids if self._is_thinking else self._state.allows(token)

    def accept(self, token: int) -> None:
        """Go on to the state after this token."""
        if self._is_thinking:
            self._is_thinking = token != self._end_of_thinking
        else:
            self._state.accept(token)

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of all tokens that may not come next to minus infinity."""
        if self._is_thinking:
            logits[self._end_ids] = -np.inf
        else:
            self._state.apply(logits)

    def mask(self) -> NDArray[np.uint32]:
        """Return one bit for each token, lowest bit first: 1 if it may come next."""
        mask = self._state.mask()
        if not self._is_thinking:
            return mask
        free = np.full_like(mask, 0xFFFFFFFF)
        for token in self._end_ids:
            free[token // 32] &= np.uint32(~(1 << (token % 32)) & 0xFFFFFFFF)
        return free
