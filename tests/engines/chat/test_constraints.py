import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.chat.constraints import MAX_CACHED, ConstraintCompiler, ConstraintState
from engines.errors import RequestRefused
from engines.protocol import Choice, Constraint, Grammar, JsonObject, JsonSchema, Regex
from tests.engines.chat.test_json_scan import json_objects
from tests.engines.chat.vocabulary import EOS, OPEN, TOKENS, follows, new_compiler

COMPILER = new_compiler()
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (JsonObject(), '{"a": [1, {"b": null}]}', "[1]"),
        (JsonObject(), "{}", '"text"'),
        (JsonSchema(schema=PERSON), '{"name": "Ada", "age": 36}', '{"name": "Ada"}'),
        (JsonSchema(schema=PERSON), '{"name":"Ada","age":36}', '{"name":"Ada","age":-1}'),
        (JsonSchema(schema=PERSON), '{\n  "name": "Ada",\n  "age": 36\n}', '{  "name": "Ada"}'),
        (JsonSchema(schema={"$ref": "#/$defs/n", "$defs": {"n": {"type": "array",
            "items": {"$ref": "#/$defs/n"}}}}), "[[], [[]]]", "[1]"),
        (JsonSchema(schema=True), "17", "x"),
        (JsonSchema(schema={"enum": ["a", 1]}), '"a"', '"b"'),
        (Regex("[a-z]+[0-9]{2}"), "abc12", "abc1"),
        (Regex("^a|b$"), "b", "c"),
        (Choice(["yes", 'no "way"\\', "né\n", ""]), 'no "way"\\', "no"),
        (Choice(["yes", 'no "way"\\', "né\n", ""]), "", "ye"),
        (Choice(["né\n"]), "né\n", "ne"),
        (Grammar('start: "a" b+\nb: "b" | "c"'), "abcb", "a"),
    ],
)  # fmt: skip
def test_each_constraint_lets_through_what_it_should(constraint: Constraint, good: str, bad: str):
    assert follows(COMPILER.compile(constraint), good)
    assert not follows(COMPILER.compile(constraint), bad)


@given(value=json_objects)
def test_any_json_object_is_a_json_object(value: dict[str, object]):
    assert follows(COMPILER.compile(JsonObject()), json.dumps(value))


@given(choices=st.lists(st.text(max_size=8), min_size=1, max_size=6), other=st.text(max_size=8))
def test_a_choice_is_one_of_the_choices_and_nothing_else(choices: list[str], other: str):
    for choice in choices:
        assert follows(COMPILER.compile(Choice(choices)), choice)
    assert follows(COMPILER.compile(Choice(choices)), other) is (other in choices)


def generate(state: ConstraintState, seed: int) -> bytes:
    """Write as a model of no sense would: any allowed token, the end as soon as it may."""
    random = np.random.default_rng(seed)
    written = b""
    for _ in range(400):
        if state.may_end:
            return written
        logits = random.standard_normal(len(TOKENS)).astype(np.float32)
        state.apply(logits)
        token = int(np.argmax(logits))
        assert state.allows(token)
        state.accept(token)
        written += TOKENS[token]
    return b""


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_model_prefers_the_text_is_valid(seed: int):
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
            "note": {"type": "string", "maxLength": 5},
        },
        "required": ["kind", "items", "note"],
        "additionalProperties": False,
    }

    value = json.loads(generate(COMPILER.compile(JsonSchema(schema=schema)), seed))

    assert set(value) == {"kind", "items", "note"}
    assert value["kind"] in "ab"
    assert len(value["items"]) <= 3
    assert len(value["note"]) <= 5


def test_mask_apply_and_allows_agree():
    state = COMPILER.compile(Regex("(hello|é)*"))
    mask = state.mask()
    logits = np.zeros(len(TOKENS) + 5, dtype=np.float32)

    state.apply(logits)

    assert mask.dtype == np.uint32
    assert len(mask) == (len(TOKENS) + 31) // 32
    allowed = [token for token in range(len(TOKENS)) if mask[token // 32] >> (token % 32) & 1]
    assert allowed == [token for token in range(len(TOKENS)) if state.allows(token)]
    assert np.flatnonzero(logits == 0).tolist() == allowed
    assert [TOKENS[token] for token in allowed] == [
        b"h",
        b"\xc3",
        b"hello",
        "é".encode(),
        TOKENS[EOS],
    ]


def test_it_is_finished_when_nothing_but_the_end_may_follow():
    state = COMPILER.compile(Regex("ab?"))

    state.accept(ord("a"))
    assert state.may_end
    assert not state.is_finished
    state.accept(ord("b"))
    assert state.is_finished
    assert state.allows(EOS)
    assert not state.allows(ord("b"))
    assert [
        token for token in range(len(TOKENS)) if state.mask()[token // 32] >> (token % 32) & 1
    ] == [EOS]
    state.accept(EOS)


def test_the_end_is_not_allowed_before_the_text_is_whole():
    state = COMPILER.compile(Regex("ab"))

    assert not state.allows(EOS)
    with pytest.raises(ValueError, match="token 264 is not allowed here"):
        state.accept(EOS)


def test_a_token_that_is_not_allowed_is_an_error():
    with pytest.raises(ValueError, match="token 98 is not allowed here"):
        COMPILER.compile(Regex("a")).accept(ord("b"))


def test_a_clone_goes_its_own_way():
    state = COMPILER.compile(Choice(["ab", "ac"]))
    state.accept(ord("a"))

    other = state.clone()
    other.accept(ord("b"))

    assert other.is_finished
    assert not state.is_finished
    assert state.allows(ord("c"))


def test_special_tokens_are_never_text():
    state = new_compiler(special_calls=True).compile(Regex("(?s).*"))

    assert not state.allows(OPEN)
    assert state.allows(ord("<"))


def test_blanks_in_json_are_bounded():
    state = COMPILER.compile(JsonObject())

    assert not follows(state, '{ "a":  1}')
    assert not follows(COMPILER.compile(JsonObject()), "{\n\n}")
    assert not follows(COMPILER.compile(JsonObject()), "{\n" + " " * 17)


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(keyword: str) -> JsonSchema:
    definitions = {f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)}
    return JsonSchema(
        schema={"$ref": "#/$defs/d0", "$defs": {**definitions, "d30": {"type": "string"}}}
    )


HOSTILE: dict[str, Constraint] = {
    "optional 1300": Regex("[a-z]?" * 1300),
    "optional 3000": Regex("[a-z]?" * 3000),
    "repetition": Regex("(a{1000}){1000}"),
    "repetition of repetition": Regex("((a{1000}){1000}){1000}"),
    "brackets 200000": Regex("(" * 200_000 + ")" * 200_000),
    "brackets 4000": Regex("(" * 4000 + "a" + ")" * 4000),
    "stars": Regex("((a*)*)*"),
    "many stars": Regex("(" * 90 + "a" + "*)" * 90 + "*"),
    "determinize": Regex("(a|b)*a(a|b){40}"),
    "dots": Regex(".*" + ".*".join("abcdefghij" * 3)),
    "intersection": Regex("(.*a.{20}b.*)&(.*c.{20}d.*)"),
    "unicode": Regex(r"\p{L}{1000}"),
    "unclosed": Regex("(["),
    "backwards": Regex("[z-a]"),
    "never": Regex(r"[^\s\S]"),
    "backreference": Regex(r"(a)\1"),
    "lookahead": Regex("(?=a)b"),
    "surrogate": Regex("\ud800"),
    "nul": Regex("\x00"),
    "empty": Regex(""),
    "no choices": Choice([]),
    "choices 50000": Choice([f"w{i}" for i in range(50_000)]),
    "choices 5000": Choice([f"w{i}" for i in range(5000)]),
    "long choice": Choice(["x" * 60_000]),
    "cyclic ref": JsonSchema(schema={"$ref": "#/$defs/a", "$defs": {
        "a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
    "self ref": JsonSchema(schema={"$ref": "#"}),
    "remote ref": JsonSchema(schema={"$ref": "http://127.0.0.1:9/x"}),
    "missing ref": JsonSchema(schema={"$ref": "#/$defs/none"}),
    "false": JsonSchema(schema=False),
    "deep": JsonSchema(schema=nested(2000)),
    "nearly deep": JsonSchema(schema=nested(60)),
    "many properties": JsonSchema(schema={"properties": {f"p{i}": {} for i in range(5000)}}),
    "1000 properties": JsonSchema(schema={"properties": {f"p{i}": {} for i in range(1000)}}),
    "many values": JsonSchema(schema={"enum": [f"v{i}" for i in range(100_000)]}),
    "5000 values": JsonSchema(schema={"enum": [f"v{i}" for i in range(5000)]}),
    "min items": JsonSchema(schema={"type": "array", "items": {"type": "null"}, "minItems": 10**9}),
    "min length": JsonSchema(schema={"type": "string", "minLength": 10**9}),
    "pattern": JsonSchema(schema={"type": "string", "pattern": "(a{1000}){1000}"}),
    "patterns": JsonSchema(schema={"patternProperties": {f".*{i}.*": {} for i in range(200)}}),
    "pattern stars": JsonSchema(schema={"type": "string", "pattern": "^((a*)*)*$"}),
    "unknown format": JsonSchema(schema={"type": "string", "format": "zzz"}),
    "unknown type": JsonSchema(schema={"type": "foo"}),
    "type of numbers": JsonSchema(schema={"type": 5}),
    "all of any of": JsonSchema(schema={"allOf": [{"anyOf": [
        {"properties": {f"p{i}{j}": {}}} for i in range(8)]} for j in range(8)]}),
    "doubling refs": doubling("allOf"),
    "doubling choices": doubling("anyOf"),
    "doubling either": doubling("oneOf"),
    "multiples": JsonSchema(schema={"allOf": [{"type": "integer", "multipleOf": n}
                                              for n in (7919, 7907, 7901, 7883)]}),
    "huge number": JsonSchema(schema={"type": "integer", "minimum": -(10**30), "maximum": 10**30}),
    "least number": JsonSchema(schema={"const": -(2**63)}),
    "least numbers": JsonSchema(schema={"type": "integer", "minimum": -1e300, "maximum": -1e19}),
    "multiple": JsonSchema(schema={"type": "integer", "multipleOf": 1000003}),
    "beyond doubles": JsonSchema(schema={"const": 10**400}),
    "least number in a grammar": Grammar('start: %json {"enum": [1, -9223372036854775807]}'),
    "not a number": JsonSchema(schema={"type": "number", "minimum": float("nan")}),
    "not json": JsonSchema(schema={"enum": [b"bytes"]}),
    "options": JsonSchema(schema={"x-guidance": {"whitespace_pattern": "(a{1000}){1000}"}}),
    "undefined rule": Grammar("start: foo"),
    "no start": Grammar('other: "a"'),
    "left recursion": Grammar('start: start "a" | "a"'),
    "nothing repeated": Grammar('start: x*\nx: ""*'),
    "ambiguous": Grammar('start: x x x x x x x x x\nx: | "a" | x x'),
    "cycle of rules": Grammar("start: a\na: b\nb: a"),
    "cycle of terminals": Grammar("start: A\nA: B\nB: A"),
    "repeated rules": Grammar('start: a{1000000}\na: "x" b{1000000}\nb: "y"'),
    "terminals of terminals": Grammar("start: C\nC: B{400}\nB: A{40}\nA: /a{1000}/"),
    "regex inside": Grammar("start: /(a{1000}){1000}/"),
    "optional terminals": Grammar("start: " + "A? " * 3000 + "\nA: /[a-z]/"),
    "deep grammar": Grammar("start: " + "(" * 9000 + '"a"' + ")" * 9000),
    "alternatives": Grammar("start: " + " | ".join(f'"w{i}"' for i in range(3000))),
    "not a grammar": Grammar("{]" * 9000),
    "json inside": Grammar('start: %json {"type": "string", "pattern": "(a{1000}){1000}"}'),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_constraint_hangs_or_ends_the_process(name: str):
    started = time.thread_time()

    try:
        state = COMPILER.compile(HOSTILE[name], param="somewhere")
        for _ in range(20):
            allowed = np.flatnonzero(np.unpackbits(state.mask().view(np.uint8), bitorder="little"))
            if state.is_finished:
                break
            state.accept(int(allowed[0]))
    except RequestRefused as refused:
        assert refused.param == "somewhere"
        assert refused.message
        assert "\n" not in refused.message
        assert len(refused.message) < 500

    assert time.thread_time() - started < 8


def test_the_interpreter_goes_on_while_a_constraint_compiles():
    slow = JsonSchema(schema={"properties": {f"p{i}": {} for i in range(1000)}})

    with ThreadPoolExecutor(1) as pool:
        compiling = pool.submit(new_compiler().compile, slow)
        longest = 0.0
        while not compiling.done():
            started = time.perf_counter()
            sum(range(100))
            longest = max(longest, time.perf_counter() - started)

    assert compiling.result() is not None
    assert longest < 1


def test_the_same_constraint_is_compiled_once_and_few_are_kept(monkeypatch: pytest.MonkeyPatch):
    compiler = new_compiler()
    built: list[str] = []
    build = ConstraintCompiler._built

    def counted(self: ConstraintCompiler, grammar: str, param: str) -> object:
        built.append(grammar)
        return build(self, grammar, param)

    monkeypatch.setattr(ConstraintCompiler, "_built", counted)

    for _ in range(3):
        compiler.compile(Regex("a"))
    assert len(built) == 1
    for at in range(MAX_CACHED):
        compiler.compile(Regex(f"b{at}"))
    compiler.compile(Regex("a"))

    assert len(built) == MAX_CACHED + 2


def test_one_compiler_serves_many_threads():
    compiler = new_compiler()

    def work(at: int) -> bool:
        return follows(compiler.compile(Regex(f"x{at % 5}+")), f"x{at % 5}{at % 5}")

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]):
    for constraint in (
        Regex("(["),
        Regex("a"),
        JsonSchema(schema={"type": "string", "format": "x"}),
    ):
        try:
            COMPILER.compile(constraint)
        except RequestRefused:
            continue

    sys.stdout.flush()
    assert capfd.readouterr() == ("", "")


def test_the_message_says_what_is_wrong():
    with pytest.raises(RequestRefused, match="unclosed character class") as refused:
        COMPILER.compile(Regex("(["))
    assert refused.value.param == "response_format"
    with pytest.raises(RequestRefused, match="Unknown format: zzz"):
        COMPILER.compile(JsonSchema(schema={"type": "string", "format": "zzz"}))
    assert COMPILER.compile(JsonSchema(schema={"type": "string", "format": "zzz"}, strict=False))


@pytest.mark.parametrize("schema", [False, {"not": {}}, {"type": "object", "not": True}])
@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_that_nothing_satisfies_is_refused(schema: dict[str, object] | bool, strict: bool):
    with pytest.raises(RequestRefused, match="nothing satisfies it"):
        COMPILER.compile(JsonSchema(schema=schema, strict=strict))


@pytest.mark.parametrize("keyword", ["not", "contains", "propertyNames", "if"])
def test_what_the_compiler_cannot_hold_an_answer_to_is_refused_where_it_is_strict(keyword: str):
    schema = {"properties": {"a": {keyword: {"type": "string"}}}}

    with pytest.raises(RequestRefused, match=keyword):
        COMPILER.compile(JsonSchema(schema=schema))
    assert COMPILER.compile(JsonSchema(schema=schema, strict=False))
