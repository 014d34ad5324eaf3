"""All that was found: what the table shows and what the JSON file holds."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import msgspec
from msgspec import Struct

from gateway.parity.answer import Answer
from gateway.parity.aspects import Aspect, Finding
from gateway.parity.compare import Tolerance, compare
from gateway.parity.prompt_set import Prompt
from gateway.parity.requirements import Requirements, Share

VERSION = 1  # of the JSON file's shape


class Heard(Struct, frozen=True, kw_only=True):
    """One side and its answers, in the order of the prompts."""

    name: str
    model: str
    answers: Sequence[Answer]

    @property
    def targets(self) -> list[str]:
        """Where its answers came from, as far as it told."""
        return sorted({answer.target for answer in self.answers} - {""})

    @property
    def num_answered(self) -> int:
        """Prompts that were answered."""
        return sum(answer.failure is None for answer in self.answers)

    @property
    def first_output_seconds(self) -> float | None:
        """The median."""
        return _median(answer.first_output_seconds for answer in self.answers)

    @property
    def tokens_per_second(self) -> float | None:
        """The median."""
        return _median(answer.tokens_per_second for answer in self.answers)


class Comparison(Struct, frozen=True, kw_only=True):
    """One side held against the reference; findings are in the order of the prompts."""

    reference: Heard
    other: Heard
    findings: Sequence[Mapping[Aspect, Finding]]
    shares: Sequence[Share]

    @property
    def num_answered(self) -> int:
        """Prompts that both answered."""
        pairs = zip(self.reference.answers, self.other.answers, strict=True)
        return sum(one.failure is None and two.failure is None for one, two in pairs)

    @property
    def holds(self) -> bool:
        """Is it as equal as required? Two sides that answer nothing are not shown to be."""
        return self.num_answered > 0 and all(share.holds for share in self.shares)


class Report(Struct, frozen=True, kw_only=True):
    """Every comparison of one run."""

    prompts: Sequence[Prompt]
    sides: Sequence[Heard]  # the first is the reference
    comparisons: Sequence[Comparison]

    @property
    def holds(self) -> bool:
        """Is every side as equal to the reference as required?"""
        return all(comparison.holds for comparison in self.comparisons)


def report_of(
    prompts: Sequence[Prompt],
    sides: Sequence[Heard],
    requirements: Requirements,
    tolerance: Tolerance,
) -> Report:
    """Compare every side with the first."""
    comparisons = [
        _comparison(prompts, sides[0], other, requirements, tolerance) for other in sides[1:]
    ]
    return Report(prompts=prompts, sides=sides, comparisons=comparisons)


def _comparison(
    prompts: Sequence[Prompt],
    reference: Heard,
    other: Heard,
    requirements: Requirements,
    tolerance: Tolerance,
) -> Comparison:
    findings = [
        compare(prompt, one, two, tolerance)
        for prompt, one, two in zip(prompts, reference.answers, other.answers, strict=True)
    ]
    shares = [
        requirements.share(aspect, (found[aspect].agrees for found in findings))
        for aspect in Aspect
    ]
    return Comparison(reference=reference, other=other, findings=findings, shares=shares)


def to_json(report: Report) -> bytes:
    """The JSON file: docs/parity.md describes it."""
    content = {
        "version": VERSION,
        "holds": report.holds,
        "sides": [_side(side) for side in report.sides],
        "comparisons": [_compared(comparison) for comparison in report.comparisons],
        "prompts": [_prompt(report, at) for at in range(len(report.prompts))],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _side(side: Heard) -> dict[str, Any]:
    return {
        "name": side.name,
        "model": side.model,
        "targets": side.targets,
        "answered": side.num_answered,
        "first_output_seconds": side.first_output_seconds,
        "tokens_per_second": side.tokens_per_second,
    }


def _compared(comparison: Comparison) -> dict[str, Any]:
    return {
        "reference": comparison.reference.name,
        "other": comparison.other.name,
        "holds": comparison.holds,
        "answered": comparison.num_answered,
        "aspects": {
            share.aspect: {
                "agreeing": share.agreeing,
                "compared": share.compared,
                "required": share.required,
                "holds": share.holds,
            }
            for share in comparison.shares
        },
    }


def _prompt(report: Report, at: int) -> dict[str, Any]:
    prompt = report.prompts[at]
    return {
        "name": prompt.name,
        "endpoint": prompt.endpoint,
        "body": prompt.body,
        "answers": [_answer(side.answers[at]) for side in report.sides],
        "findings": [
            {
                aspect: finding
                for aspect, finding in comparison.findings[at].items()
                if finding.agrees is not None
            }
            for comparison in report.comparisons
        ],
    }


def _answer(answer: Answer) -> dict[str, Any]:
    told = {name: getattr(answer, name) for name in answer.__struct_fields__}
    del told["logprobs"], told["vectors"]  # long, and their findings say what there is to know
    if answer.rendered is not None:
        tokens = [
            {"id": token.id, "text": token.piece.decode("utf-8", "replace")}
            for token in answer.rendered.tokens
        ]
        told["rendered"] = {"text": answer.rendered.text, "tokens": tokens}
    return told


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
