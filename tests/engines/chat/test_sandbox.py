"""Templates that mean harm: each must be refused, soon, and leave nothing behind."""

import time
from pathlib import Path

import pytest

from engines.chat.meter import MAX_SECONDS
from engines.chat.template import ChatTemplate
from engines.errors import RequestRefused, Unavailable
from engines.protocol import Message, Text

HELLO = Message(role="user", parts=(Text("hello"),))


def refused(source: str) -> str:
    """Compile and render; return how it was refused."""
    with pytest.raises((Unavailable, RequestRefused)) as caught:
        ChatTemplate(source).render([HELLO])
    return caught.value.message


BREAKOUTS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ messages.__class__ }}",
    "{{ messages[0].__init__ }}",
    "{{ cycler.__init__.__globals__.os.popen(COMMAND).read() }}",
    "{{ lipsum.__globals__['os'].system(COMMAND) }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['__builtins__']['open'](FILE, 'w') }}",
    "{{ self._TemplateReference__context }}",
    "{{ self.__init__.__globals__.__builtins__.__import__('os').system(COMMAND) }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ dict.mro() }}",
    "{{ range.__class__ }}",
    "{{ (1).__class__ }}",
    "{{ ''.format.__self__ }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ ''|attr('__class__') }}",
    "{{ [1]|map('attr', '__class__')|list }}",
    "{{ ['a']|map(attribute='__class__')|first }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages.clear() }}",
    "{{ messages[0].pop('role') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{% macro m() %}{{ caller.__class__ }}{% endmacro %}{% call m() %}x{% endcall %}",
    "{% macro m() %}{{ varargs }}{% endmacro %}{{ m(1) }}",
    "{% for x in messages %}{{ loop._iterable }}{% endfor %}",
    "{{ namespace() }}",
    "{{ range }}",
    "{{ messages[0].items }}",
]

BOMBS = [
    "{{ 'a' * 10**9 }}",
    "{{ 10**9 * 'a' }}",
    "{{ [0] * 10**9 }}",
    "{{ 10**(10**10) }}",
    "{{ (2**1000) * (2**1000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ 'a'|center(10**9) }}",
    "{{ 'a'.center(10**9) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'a'.zfill(10**9) }}",
    "{{ '\\t'.expandtabs(10**9) }}",
    "{{ 'a\\n'|indent(10**9) }}",
    "{{ messages|tojson(indent=10**9) }}",
    "{{ 1.5|round(10**9) }}",
    "{{ 'a'|wordwrap(1) }}",
    "{{ 'a'|format(1) }}",
    "{{ messages|pprint }}",
    "{{ lipsum(10**6) }}",
    "{{ range(10**9)|list }}",
    "{{ range(99999)|join('x' * 9999) }}",
    "{{ ('x' * 9999).join(range(99999)|map('string')) }}",
    "{{ ('a' * 99999)|replace('a', 'b' * 99999) }}",
    "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "{{ ('a' * 99999).replace('', 'b' * 99999) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{% for i in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro d(x) %}{{ x }}{{ x }}{% endmacro %}" + "{{ " + "d(" * 40 + "'a'" + ")" * 40 + " }}",
    "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x=['a']) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x='a') %}{% for i in range(99) %}"
    "{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
    "{% set n = namespace(x='a') %}{% for i in range(99) %}"
    "{% set n.x = [n.x, n.x]|join %}{% endfor %}",
    "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x }}",
    "{% set n = namespace(x='a', y='a') %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}"
    "{% set n.y = (n.y, n.y) %}{% endfor %}{{ n.x == n.y }}",
    "{% set n = namespace(x={}) %}{% for i in range(99) %}"
    "{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}{{ n.x|tojson }}",
    "{% set n = namespace(x={}) %}{% for i in range(99) %}"
    "{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}{{ {n.x|string: 1} }}",
    "{% set n = namespace(l=[]) %}{% set big = 'a' * 999999 %}"
    "{% for i in range(99999) %}{% set n.l = n.l + [big[1:]] %}{% endfor %}",
    "{{ (range(9999)|list)|sum(start=[]) }}",
    "{% filter indent(10**9) %}x\ny{% endfilter %}",
    "{{ 'a'|upper" + "|upper" * 14_000 + " }}",
    "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "{{ " + "[" * 2000 + "]" * 2000 + " }}",
    "{{ 1" + "+1" * 20_000 + " }}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "{% for a in [1] %}" * 200 + "{% endfor %}" * 200,
    "{% for a in [1] %}" * 5000 + "{% endfor %}" * 5000,
    "{% macro m() %}" * 100 + "{% endmacro %}" * 100,
    "{% set x = 1 %}" * 3000 + "{{ y.z }}",
    "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x] %}{% endfor %}"
    "{{ n.x|tojson }}",
    "{% set n = namespace(x=range(49000)|list) %}{% for i in range(99) %}{% set n.x = [n.x] %}"
    "{% endfor %}{{ n.x|tojson(indent=16) }}",
    "{% set a = range(99999)|list %}{% set b = range(99999)|list %}"
    "{% if a" + "==b==a" * 4000 + " %}{% endif %}",
]


@pytest.mark.parametrize("source", BREAKOUTS)
def test_no_template_reaches_python(source: str, tmp_path: Path):
    canary = tmp_path / "canary"
    source = source.replace("COMMAND", f"'touch {canary}'").replace("FILE", f"'{canary}'")

    try:
        text = ChatTemplate(source).render([HELLO]).text
    except (Unavailable, RequestRefused):
        text = ""

    assert text == ""
    assert not canary.exists()


@pytest.mark.parametrize("source", BOMBS, ids=lambda source: source[:50])
def test_no_template_uses_up_time_or_memory(source: str):
    started = time.thread_time()

    message = refused(source)

    assert message.startswith("the model's chat template ")
    assert time.thread_time() - started < MAX_SECONDS + 3


def test_what_nests_without_end_is_refused_before_it_has_cost_much():
    source = (
        "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x] %}{% endfor %}"
    )

    assert refused(source).endswith("it nests too deeply")


def test_messages_are_the_same_after_a_render():
    message = Message(role="user", parts=(Text("hello"),))

    refused("{% set messages[0].content = 'x' %}")
    refused("{{ messages[0].update(content='x') }}")

    assert ChatTemplate("{{ messages[0].content }}").render([message]).text == "hello"


def test_a_long_conversation_is_never_too_expensive_for_an_honest_template():
    source = (
        "{% set n = namespace(all=[], text='') %}"
        "{% for m in messages %}{% set n.all = n.all + [m] %}{% endfor %}"
        "{% for m in n.all %}{{ m.role ~ ': ' ~ (m.content|trim) + '\n' }}{% endfor %}"
    )
    messages = [Message(role="user", parts=(Text("word " * 400),))] * 300

    text = ChatTemplate(source).render(messages).text

    assert text.count("user: word") == 300


def test_renders_in_two_threads_have_a_meter_each():
    from concurrent.futures import ThreadPoolExecutor

    template = ChatTemplate("{% for i in range(2000) %}{{ messages[0].content }}{% endfor %}")

    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda _: template.render([HELLO]).text, range(8)))

    assert texts == ["hello" * 2000] * 8


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ {'b': '<é>', 'a': None}|tojson }}", '{"b": "<é>", "a": null}'),
        ("{{ [1, 2]|tojson(indent=2) }}", "[\n  1,\n  2\n]"),
        ("{{ [1, 2]|tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ [3, 1]|sort|join('-') }}", "1-3"),
        ("{{ messages|map(attribute='role')|join }}", "user"),
        ("{{ messages|selectattr('role', 'equalto', 'user')|list|length }}", "1"),
        ("{{ [1, 2, 3]|sum }}", "6"),
        ("{{ 'a b'.split()[-1] ~ 1 ~ none }}", "b1None"),
        ("{{ x|default(4096) }}", "4096"),
        ("{{ 'hello'[1:3] }}", "el"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{{ loop.length }}{% endfor %}", "a11"),
        ("{% for x in [1, 2] %}{{ loop.last }}{{ loop.previtem }}{% endfor %}", "FalseTrue1"),
        ("{% for x in [] %}{% else %}none{% endfor %}", "none"),
        ("{% macro m(x, y=2) %}{{ x + y }}{% endmacro %}{{ m(1) }}", "3"),
        ("{{ '\n a\n'|trim }}{{ 'x'.upper() }}{{ 'abc'.replace('b', '') }}", "aXac"),
        ("{{ 'user' in ['user'] and 7 // 2 == 3 and 2 * 3 == 6 and 7 % 4 == 3 }}", "True"),
        ("{{ [[1, 'a']]|items|list if false else {'a': [1]}|items|list }}", "[('a', [1])]"),
        ("{{ strftime_now('%Y')|length }}", "4"),
    ],
)
def test_what_honest_templates_do_works(source: str, text: str):
    assert ChatTemplate(source).render([HELLO]).text == text
