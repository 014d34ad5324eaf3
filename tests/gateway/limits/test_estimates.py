from engines.protocol import GenerateRequest, Image, Message, Text, Tool
from gateway.limits import Estimates
from gateway.limits.estimates import MAX_MODELS, MIN_SAMPLES, estimated_tokens


def test_the_default_holds_until_enough_answers_were_seen() -> None:
    estimates = Estimates(default_output_tokens=700)

    for length in range(MIN_SAMPLES - 1):
        estimates.learn("a", length)
    assert estimates.output_tokens("a") == 700
    estimates.learn("a", 5)

    assert estimates.output_tokens("a") == MIN_SAMPLES - 2
    assert estimates.output_tokens("b") == 700


def test_names_that_clients_make_up_do_not_fill_the_memory() -> None:
    estimates = Estimates(default_output_tokens=700)

    for number in range(MAX_MODELS + 50):
        estimates.learn(f"model-{number}", 1)

    assert len(estimates._lengths) == MAX_MODELS


def test_what_nobody_could_count_is_estimated_from_all_that_is_in_it() -> None:
    def request(**fields: object) -> GenerateRequest:
        return GenerateRequest(id="r", model="m", **fields)  # type: ignore[arg-type]

    hello = Message(role="user", parts=[Text("hello " * 10)])
    picture = Message(role="user", parts=[Text("hello " * 10), Image(b"", "image/png")])
    tools = [Tool(name="clock", description="says " * 100)]

    assert estimated_tokens(request(prompt=[1, 2, 3])) == 3
    assert estimated_tokens(request(prompt="hello " * 10)) == 20
    assert estimated_tokens(request(messages=[hello, hello])) == 2 * 28
    assert estimated_tokens(request(messages=[picture])) > 1000
    assert estimated_tokens(request(messages=[hello], tools=tools)) > 28 + 150
