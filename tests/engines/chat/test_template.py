import json

import pytest

from engines.chat.template import CHATML, MAX_SOURCE_CHARS, ChatTemplate
from engines.chat.tool_format import ToolFormat
from engines.errors import RequestRefused, Unavailable, Unsupported
from engines.protocol import Image, Message, NamedTool, Text, Tool, ToolCall
from tests.engines.chat.templates import LLAMA, MISTRAL, QWEN

ADD = Tool(name="add", description="Adds <two>", parameters={"type": "object", "é": 1})
SUB = Tool(name="sub")
CALL = ToolCall(id="call_abcdefghijklmnopqrstuvwx", name="add", arguments='{"b": 1, "a": "é"}')
HELLO = Message(role="user", parts=(Text("hello"),))
CALLED = (
    HELLO,
    Message(role="assistant", tool_calls=(CALL,)),
    Message(role="tool", parts=(Text("3"),), answers_tool_call=CALL.id),
)


def system(text: str) -> Message:
    return Message(role="system", parts=(Text(text),))


def test_chatml_is_there_for_models_without_a_template():
    template = ChatTemplate(CHATML)

    rendered = template.render([system("be kind"), HELLO])

    assert rendered.text == (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert not rendered.starts_in_reasoning
    assert not template.render([HELLO], add_generation_prompt=False).text.endswith("assistant\n")


@pytest.mark.parametrize(
    ("source", "tools", "thinks", "shows_system", "tool_format"),
    [
        (QWEN, True, True, True, ToolFormat.HERMES),
        (LLAMA, True, False, True, ToolFormat.LLAMA3_JSON),
        (MISTRAL, True, False, False, ToolFormat.MISTRAL),
        (CHATML, False, False, True, ToolFormat.HERMES),
    ],
)
def test_what_a_model_can_do_is_read_off_its_template(
    source: str, tools: bool, thinks: bool, shows_system: bool, tool_format: ToolFormat
):
    template = ChatTemplate(source, "<s>", "</s>")

    assert template.supports_tools is tools
    assert template.can_think is thinks
    assert template.supports_system is shows_system
    assert template.tool_format is tool_format


def test_qwens_way_with_tools():
    text = ChatTemplate(QWEN).render([system("be kind"), *CALLED], tools=[ADD]).text

    assert text == (
        "<|im_start|>system\nbe kind\n\n# Tools\n<tools>\n"
        '{"type": "function", "function": {"name": "add", "description": "Adds <two>", '
        '"parameters": {"type": "object", "é": 1}}}\n</tools>\n'
        'Write a call as <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>\n'
        "<|im_start|>user\nhello<|im_end|>\n"
        '<|im_start|>assistant\n\n<tool_call>\n{"name": "add", "arguments": {"b": 1, "a": "é"}}\n'
        "</tool_call><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )


def test_llamas_way_with_tools():
    text = ChatTemplate(LLAMA, "<s>").render(CALLED, tools=[ADD]).text

    assert text.startswith("<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython")
    assert '{\n    "type": "function",\n    "function": {' in text
    assert '{"name": "add", "parameters": {"b": 1, "a": "é"}}<|eot_id|>' in text
    assert 'ipython<|end_header_id|>\n\n"3"<|eot_id|>' in text


def test_mistrals_way_with_tools_wants_ids_of_nine_letters():
    text = ChatTemplate(MISTRAL, "<s>", "</s>").render(CALLED, tools=[ADD, SUB]).text

    called, answered = text.split("[TOOL_RESULTS] ")
    call = json.loads(called.split("[TOOL_CALLS] ")[1].removesuffix("</s>"))[0]
    assert call["arguments"] == {"b": 1, "a": "é"}
    assert len(call["id"]) == 9
    assert json.loads(answered.removesuffix("[/TOOL_RESULTS]"))["call_id"] == call["id"]


@pytest.mark.parametrize(("effort", "starts"), [(None, True), ("low", True), ("none", False)])
def test_it_says_whether_the_answer_begins_inside_thinking(effort: str | None, starts: bool):
    rendered = ChatTemplate(QWEN).render([HELLO], reasoning_effort=effort)

    assert rendered.starts_in_reasoning is starts


def test_the_arguments_of_past_calls_are_text_where_the_template_wants_text():
    source = "{{ messages[1].tool_calls[0].function.arguments + '!' }}"

    assert ChatTemplate(source).render(CALLED).text == CALL.arguments + "!"


def test_arguments_that_are_no_object_stay_as_they_are():
    call = ToolCall(id="c", name="add", arguments="not json")
    source = "{{ messages[0].tool_calls[0].function.arguments }}"

    rendered = ChatTemplate(source).render([Message(role="assistant", tool_calls=(call,))])

    assert rendered.text == "not json"


def test_a_tools_answer_carries_the_tools_name():
    source = "{{ messages[2].name }} {{ messages[2].tool_call_id }}{# tool_calls #}"

    assert ChatTemplate(source).render(CALLED).text == f"add {CALL.id}"


def test_a_named_tool_is_the_only_one_that_the_model_is_told_of():
    template = ChatTemplate("{{ tools | map(attribute='function.name') | join(',') }}")

    assert template.render([HELLO], tools=[ADD, SUB]).text == "add,sub"
    assert template.render([HELLO], tools=[ADD, SUB], tool_choice=NamedTool("sub")).text == "sub"
    assert template.render([HELLO], tools=[ADD], tool_choice="none").text == ""


def test_a_named_tool_that_is_not_there_is_refused():
    with pytest.raises(RequestRefused, match=r"'mul', which is not in tools \(there are: add\)"):
        ChatTemplate(QWEN).render([HELLO], tools=[ADD], tool_choice=NamedTool("mul"))


def test_what_the_template_has_no_place_for_is_refused():
    template = ChatTemplate(CHATML)
    picture = Message(role="user", parts=(Image(b"x", "image/png"),))

    with pytest.raises(Unsupported, match="no place for tools") as refused:
        template.render([HELLO], tools=[ADD])
    assert refused.value.param == "tools"
    with pytest.raises(Unsupported, match="no place for tool calls"):
        template.render(CALLED)
    with pytest.raises(Unsupported, match="cannot read images"):
        template.render([picture])
    assert template.render([HELLO], tools=[ADD], tool_choice="none").text


def test_a_developer_message_is_a_system_message_to_templates_that_know_no_other():
    message = Message(role="developer", parts=(Text("be kind"),))

    assert "<|im_start|>system\nbe kind" in ChatTemplate(CHATML).render([message]).text
    assert (
        ChatTemplate("{% if 0 %}developer{% endif %}{{ messages[0].role }}").render([message]).text
        == "developer"
    )


def test_what_the_template_says_of_the_messages_reaches_the_caller():
    with pytest.raises(RequestRefused, match="Only user and assistant roles") as refused:
        ChatTemplate(MISTRAL).render([system("x"), HELLO])

    assert refused.value.param == "messages"


def test_messages_that_the_template_stumbles_over_are_refused():
    with pytest.raises(RequestRefused, match="cannot render these messages: list object has no"):
        ChatTemplate("{{ messages[7].content }}").render([HELLO])


@pytest.mark.parametrize(
    "source", ["{% if %}", "{{ 'a'|pprint }}", "{% for x in y %}", "{{" * 5000]
)
def test_a_template_that_does_not_compile_is_the_models_fault(source: str):
    with pytest.raises(Unavailable, match="does not compile"):
        ChatTemplate(source)


def test_a_template_of_absurd_size_is_not_compiled():
    with pytest.raises(Unavailable, match=f"over {MAX_SOURCE_CHARS} characters"):
        ChatTemplate("x" * (MAX_SOURCE_CHARS + 1))


def test_generation_blocks_and_loop_controls_are_understood():
    body = "{% generation %}{{ m.content }}{% endgeneration %}{% break %}"
    source = "{% for m in messages %}" + body + "{% endfor %}"

    assert ChatTemplate(source).render([HELLO, HELLO]).text == "hello"


def test_a_tokenizer_config_has_all_that_is_needed():
    config = {
        "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        "bos_token": {"content": "<s>", "special": True},
        "eos_token": "</s>",
    }

    assert ChatTemplate.from_tokenizer_config(config).render([HELLO]).text == "<s>hello</s>"


def test_named_templates_are_chosen_by_whether_there_are_tools():
    template = ChatTemplate.from_tokenizer_config(
        {
            "chat_template": [
                {"name": "default", "template": "plain"},
                {"name": "tool_use", "template": "{{ tools[0].function.name }}"},
            ],
            "bos_token": None,
        }
    )

    assert template.supports_tools
    assert template.render([HELLO]).text == "plain"
    assert template.render([HELLO], tools=[ADD]).text == "add"


def test_a_tokenizer_config_without_a_template_means_chatml():
    assert "<|im_start|>user\nhello" in ChatTemplate.from_tokenizer_config({}).render([HELLO]).text


def test_a_template_without_end_does_not_say_that_the_messages_are_wrong():
    with pytest.raises(Unavailable, match="is not safe to run: it takes more than"):
        ChatTemplate(
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
        ).render([HELLO])
