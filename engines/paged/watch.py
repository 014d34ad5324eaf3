"""What becomes of one model's steps: counted, and remembered where they failed.

A step loop tells it. It knows nothing of the model that has the loop: two that knew
each other would stay until somebody looked for cycles, with all of the model's memory,
and nobody looks at what was there when a loop began (`tune_interpreter`).
"""

from engines.metrics import ModelRecorder
from engines.paged.failures import DeviceFault, first_line
from engines.paged.sequence import StepPlan


class Watch:
    """One model's; the step thread calls it, and others read `failure`."""

    def __init__(self, recorder: ModelRecorder, fault: DeviceFault) -> None:
        self.recorder = recorder
        self._fault = fault
        self.failure = ""  # of the last step that failed; not the error, whose frames hold memory

    def note_step(self, plan: StepPlan, seconds: float) -> None:
        """Count a step that was read."""
        new_tokens = 0
        for row in plan.rows:
            sequence, end = row.sequence, row.start + row.count
            # A row beyond the last token was launched before that was known to be the last.
            if row.samples and end < len(sequence.tokens):
                is_first = end == sequence.num_prompt_tokens
                new_tokens += 1 + (end if is_first else 0)
        steps = self.recorder.steps
        steps.preempted(len(plan.preempted))
        steps.stepped(
            seconds,
            computed_tokens=plan.num_tokens,
            sequences=len(plan.rows),
            iteration_tokens=new_tokens,
        )

    def note_failure(self, error: BaseException) -> bool:
        """May the runner be used again after this?"""
        self.failure = first_line(error)
        # After any error of CUDA's own the model is loaded anew; some stay with the process.
        return not self._fault.note(error) and "CUDA error" not in self.failure
