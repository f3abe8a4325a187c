#!/usr/bin/env python3
"""Write tests/data/templates/expressions.json: jinja2's results for many small templates in transformers' environment.

A group is a pattern and the words that take the places of $a and $b in it, in all combinations. Of each combination
there is the text, `null` for an error, or `false` where the text is not the same in every process.
"""

import argparse
import copy
import json
import random
import re
from itertools import product
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template

CONTEXT = {
    "messages": [{"role": "user", "content": "Hello <World>, it's a test"}, {"role": "assistant", "content": None}],
    "items": [{"n": 2, "name": "b", "tags": ["x"]}, {"n": 1, "name": "A", "tags": []}, {"n": 3, "name": "c"}],
    "d": {"b": 1, "a": [1, 2.5, None, True], "items": "own", "é": {"k": "v"}, "_private": 7},
    "words": "  the quick\tbrown-fox jumps\nover 42 lazy dogs  ",
    "empty": "",
    "big": 12345678901234567,
    "nested": [[1, [2, [3]]], {"x": {"y": {"z": "deep"}}}],
}

VALUES = [
    "missing", "none", "true", "0", "-7", "2.5", "1e20", "''", "'abc'", "' Ab-c dE\\n'", "'<b>'", "'42'", "'-1.5e3'", "[]", "[3, 1, 2]",
    "['b', 'A', 'b']", "()", "(1, 'x')", "{}", "{'k': 1, 'A': 'v'}", "range(4)", "d.items", "d.items()", "namespace(a=1)", "items", "'é ß ǆ'",
]
OPERANDS = ["missing", "none", "true", "0", "3", "-2", "2.5", "''", "'a'", "'%s-%d'", "[]", "[1, 'a']", "(1, 2)", "{'a': 1}", "range(3)"]
FILTERS = [
    "abs", "attr('a')", "batch(2) | list", "capitalize", "center(9)", "count", "d('x')", "default('x', true)", "dictsort", "e", "escape",
    "filesizeformat", "first", "float", "float(1.5)", "forceescape", "format", "groupby('n')", "indent", "indent(2, true, true)", "int", "int(9)",
    "int(base=16)", "items | list", "join", "join('-')", "join(', ', attribute='name')", "last", "length", "list", "lower", "map('upper') | list",
    "map(attribute='name') | list", "map(attribute='q', default='-') | list", "max", "min", "max(attribute='n')", "pprint", "reject | list",
    "reject('none') | list", "rejectattr('n', 'gt', 1) | list", "replace('b', 'X')", "replace('', '.', 2)", "reverse | list", "reverse", "round",
    "round(1, 'ceil')", "round(-1)", "safe", "select | list", "select('number') | list", "selectattr('n') | map(attribute='n') | join",
    "selectattr('tags', 'defined') | list | length", "slice(2) | list", "slice(3, 'f') | list", "sort", "sort(reverse=true)", "sort(attribute='n')",
    "sort(case_sensitive=true)", "string", "striptags", "sum", "sum(attribute='n')", "title", "tojson", "tojson(indent=1)", "trim", "trim('ab ')",
    "truncate(5)", "truncate(4, true, '~', 0)", "unique | list", "upper", "urlencode", "wordcount", "wordwrap(6)", "xmlattr", "nosuchfilter",
]
TESTS = [
    "odd", "even", "divisibleby(2)", "divisibleby 3", "defined", "undefined", "none", "boolean", "false", "true", "integer", "float", "lower",
    "upper", "string", "mapping", "number", "sequence", "iterable", "callable", "sameas none", "sameas(true)", "escaped", "in [1, 'abc', none]",
    "in 'xabcx'", "eq 0", "==('abc')", "ne(none)", "gt 1", "lessthan(3)", "ge 2.5", "le('b')", "filter", "test", "nosuchtest",
]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or"]
ATTRIBUTES = [".a", "['a']", "[0]", "[-1]", "[1:]", "[::-1]", "[:-1]", "[5]", ".items", "['items']", ".get('a', 'z')", ".upper()", ".append", "[1.0]", ".__class__", "[none:2]", ".count('b')", ".index(3)", "()"]
TEXTS = ["words", "'a,b,,c'", "'ABC abc'", "'  x '", "''", "'éß\\u0130'", "'12'", "'line1\\nline2\\r\\nline3'", "'tEST it\\'s'", "'1_000'", "'²'", "'½'"]
METHODS = [
    "capitalize()", "casefold()", "center(10, '*')", "center(9)", "count('b')", "count('')", "endswith('c')", "endswith(('c', '3'))", "expandtabs(4)",
    "find('b')", "find('b', 3)", "find('zz')", "index('b')", "isalnum()", "isalpha()", "isascii()", "isdecimal()", "isdigit()", "isidentifier()",
    "islower()", "isnumeric()", "isprintable()", "isspace()", "istitle()", "isupper()", "join(['x', 'y'])", "join('abc')", "ljust(8, '.')", "rjust(8)",
    "lower()", "lstrip()", "lstrip('a ')", "partition(',')", "rpartition(',')", "partition('')", "removeprefix('a')", "removesuffix('c')",
    "replace('b', '<>')", "replace('b', '', 1)", "replace('', '-')", "rfind('b')", "rindex('b')", "rsplit(',', 1)", "rsplit(none, 1)", "rsplit()",
    "split()", "split(',')", "split(none, 2)", "split(',', maxsplit=1)", "split('')", "split(sep=',')", "splitlines()", "splitlines(true)",
    "startswith('a')", "startswith(('x', 'a'), 0)", "startswith('b', 2)", "strip()", "strip('a c')", "swapcase()", "title()", "translate({98: 'Q', 97: none})",
    "upper()", "zfill(6)", "encode", "append('x')", "format(1)", "__len__()",
]
FORMATS = ["'%s'", "'%d'", "'%5.2f|'", "'%-8s|'", "'%05d'", "'%+d'", "'%x %%'", "'%e'", "'%g'", "'%r'", "'%c'", "'%.2s'", "'%(k)s'", "'%s %s'", "'% d'", "'%#x'", "'%.3d'"]
FORMATTED = ["7", "-3", "2.5", "'text'", "none", "true", "[1]", "(1, 'b')", "{'k': 'v'}", "missing", "123456789.125", "1e-7", "65"]
BRACES = ["'{}'", "'{0}{0}'", "'{:>8}|'", "'{:<8}|'", "'{:^8}|'", "'{:*^9}'", "'{:05d}'", "'{:,}'", "'{:.2f}'", "'{:e}'", "'{:g}'", "'{:x}'", "'{:#b}'", "'{:%}'", "'{:+}'", "'{!r:>9}'", "'{:.1}'", "'{{}}{}'", "'{a}'", "'{0[0]}'", "'{0.real}'", "'{:{}}'", "'{:_}'", "'{:=+7}'", "'{'"]

# Tags, with white space before and after them.
BLANKS = ["", " ", "\n", "\n\n ", " \t\n", "\r\n", "\r \n", "\u00a0\n"]
OPENS = ["{% if 1 %}", "{%- if 1 %}", "{%+ if 1 %}", "{% if 1 -%}", "{% if 1 +%}", "{%- if 1 -%}", "{% raw %}x{% endraw %}{% if 1 %}"]
INNER = ["{{ 1 }}", "{{- 1 }}", "{{ 1 -}}", "{# c #}", "{#- c #}", "{# c -#}", "{#+ c +#}", "{% raw %} r\n{% endraw %}", "{%- raw -%} r {%- endraw -%}", "{% raw %}\n r {%+ endraw +%}"]
TAGS = [before + tag + after for before, tag, after in product(BLANKS[:5], OPENS, BLANKS[:6])]
INNER_TAGS = [before + tag + after for before, tag, after in product(BLANKS, INNER, BLANKS)]

LINE_ENDS = (
    "{%- for message in messages %}\r\n  {# a comment #}\r\n  {{ message.role }}:\r\n{{ message.content }}|\r{% if loop.last %}"
    "\r\n  last\r\n  {%- endif %}\r\n{% endfor %}\r\n\r\n"
)

TEMPLATES = r"""
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 == true }}
{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7.5 // 2 }} {{ 7 / 2 }} {{ 6 / 2 }}
{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e-5 }} {{ 1.0 }} {{ 100000000000000000.0 }} {{ 123456789012345678901234567890 }}
{{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1.5e3 }} {{ 1e5 }}
{{ 'a' 'b' "c" }} {{ 'it\'s' }} {{ "tab\there" }} {{ '\u00e9\x41\101' }} {{ ['it\'s', "q\"", '\n', '\x00', 'é', '\u200b'] }}
{{ [1, 2.0, none, true, 'x', (1,), (), {'a': [1]}, {}] }}
{{ (1, 2) }} {{ 1, 2 }} {{ (1,) }} {{ () }}
{{ {'b': 1, 'a': 2, 1: 'x', none: 3, true: 4} }}
{{ {1: 'a', 1.0: 'b', true: 'c'} }}
{{ missing.x }}
{{ missing }}|{{ missing is defined }}|{{ missing | length }}|{{ missing ~ 'x' }}
{{ missing + 1 }}
{{ 'a' in missing }} {{ missing == missing }} {{ missing == none }} {{ not missing }}
{% for x in missing %}{{ x }}{% else %}none{% endfor %}
{{ 'x' if false }}|{{ 'x' if true else 'y' if false else 'z' }}|{{ ('x' if false) is undefined }}
{{ d.items }}
{{ d['items'] }} {{ d.é.k }} {{ d._private }} {{ d.keys() | list }} {{ d.get('zz') }} {{ d.get('zz', 3) }}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}
{% for k in d %}{{ k }},{% endfor %} {{ d | length }} {{ 'b' in d }} {{ d.values() | list | tojson }}
{{ d.items() }} {{ {'a': 1}.keys() }} {{ {'a': 1}.values() }}
{% for item in items | sort(attribute='n') %}{{ loop.index }}/{{ loop.length }}:{{ item.name }}{{ ',' if not loop.last }}{% endfor %}
{% for x in [1, 2, 3] %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}
{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }}{{ loop.cycle('a', 'b') }} {% endfor %}
{% for x in nested recursive %}{% if x is iterable and x is not string and x is not mapping %}[{{ loop(x) }}]{% else %}{{ x }}{{ loop.depth }}{% endif %}{% endfor %}
{% for x in range(10) if x is odd %}{{ x }}{% endfor %} {% for x in range(10) if x > 20 %}{{ x }}{% else %}empty{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for a, (b, c) in [(1, (2, 3)), [4, [5, 6]]] %}{{ a }}{{ b }}{{ c }} {% endfor %}
{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}
{% for c in 'héy' %}{{ c }}-{% endfor %} {% for x in 5 %}{{ x }}{% endfor %}
{% for i in range(3) %}{% for j in range(2) %}{{ loop.index }}{{ loop.length }}{% endfor %}{{ loop.index }}|{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + 10 %}{{ x }} {% endfor %}{{ x }}
{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}
{% set ns = namespace(found=false, n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% set ns.found = true %}{% endfor %}{{ ns.n }}{{ ns.found }}{{ ns.zz }}{{ ns }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns['b'] }} {% set ns._x = 1 %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = b, a %}{{ a }}{{ b }} {% set t = 1, %}{{ t }}
{% set d2 = {} %}{% set d2.x = 1 %}
{% set x %}some <b> {{ 1 + 1 }}{% endset %}{{ x }} {{ x is string }} {{ x | length }} {{ x is escaped }}
{% set x | upper | replace('A', 'b') %}a cat{% endset %}{{ x }}
{% filter upper | trim %}  abc {{ 'd' }} {% endfilter %}|
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }} {% set a = 5 %}{% with a = 1, b = a %}{{ b }}{% endwith %}
{% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=3) }} {{ m(b=1, a=0) }} {{ m() }}
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, k=4) }} {{ m.name }} {{ m.arguments }} {{ m }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}
{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m('q') }} {% set f = m %}{{ f('z') }}
{% macro wrap(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call wrap('p') %}in{{ 1 }}{% endcall %}
{% macro each(xs) %}{% for x in xs %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(x, i) each('ab') %}{{ i }}{{ x }};{% endcall %}
{% macro outer() %}{% macro inner() %}i{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}
{% macro rec(n) %}{{ n }}{% if n > 0 %},{{ rec(n - 1) }}{% endif %}{% endmacro %}{{ rec(3) }}
{% set v = 1 %}{% macro m() %}{{ v }}{{ later }}{% endmacro %}{% set v = 2 %}{% set later = 'L' %}{{ m() }}
{% for i in [1] %}{% macro m() %}{{ i }}{{ loop.index }}{% endmacro %}{{ m() }}{% endfor %}
{{ range(5) }} {{ range(1, 10, 3) | list }} {{ range(5)[1:3] }} {{ range(3) | length }} {{ 2 in range(3) }} {{ range(5, 0, -2) | list }} {{ range(3)[-1] }}
{{ range(100001) }}
{{ dict(a=1, b='x') }} {{ dict([('a', 1)]) }} {{ dict({'z': 0}, a=1) }} {{ dict.fromkeys(['a', 'b'], 0) }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set _ = c.reset() %}{{ c.next() }}
{% set j = joiner('; ') %}{% for x in 'abc' %}{{ j() }}{{ x }}{% endfor %}
{{ joiner is callable }} {{ range is callable }} {{ namespace is callable }} {{ strftime_now is defined }} {{ raise_exception is callable }} {{ dict is callable }}
{{ raise_exception('no: ' ~ 1) }}
{{ messages[0].content.split()[0] }} {{ messages[0]['role'] }} {{ messages[-1].content is none }} {{ messages[-1].content }} {{ messages | length }}
{{ messages[1:] | length }} {{ messages[::-1][0].role }} {{ messages[:1] + messages[1:] == messages }} {{ messages[5:] }}
{{ messages.append(1) }}
{{ messages.append is defined }} {{ d.update is defined }} {{ d.pop }}
{{ 'abc'[1] }}{{ 'abc'[-1] }}{{ 'abc'[::2] }}{{ 'abc'[::-1] }}{{ 'héllo'[1:3] }}{{ 'abc'[5] }}{{ 'abc'[1:100] }}{{ 'abc'[-2:] }}{{ [1,2,3,4][-3:-1] }}{{ [1,2,3,4][3:0:-1] }}
{{ 'a' ~ 1 ~ 2.0 ~ none ~ true ~ [1] ~ {} }} {{ 1 ~ 2 }} {{ 'x' ~ missing }}
{{ 'ab' * 3 }} {{ 3 * 'ab' }} {{ [0] * 2 }} {{ 'ab' * -1 }}
{{ true + true }} {{ true == 1 }} {{ false in [0] }} {{ 1 in [true] }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ (1,) == [1] }}
{{ none + 1 }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ 'a' < 1 }}
{{ none < 1 }}
{{ 1 / 0 }}
{{ not true and false }} {{ not (true and false) }} {{ 1 and 0 }} {{ 0 or 'x' }} {{ none or missing or 'last' }} {{ not 1 == 2 }}
{{ 1 is not none }} {{ 1 is number and 2 is even }} {{ 'a' not in 'abc' }} {{ not 'a' in 'abc' }} {{ 1 is in [1] }} {{ 3 is not in [1] }}
{{ x is defined and x.y }} {{ (missing | default({})).y is defined }} {{ missing | default('d') | upper }}
{{ -1 | abs }} {{ (-1) | abs }} {{ 1 + 2 | string ~ 'x' }} {{ 2 * 3 | float }} {{ - 2 }} {{ +2 }} {{ --2 }}
{{ 'a,b' | replace(',', ';') | upper }} {{ ['b', 'a'] | sort | join('+') }} {{ [[1, 2], [3]] | sum(start=[]) }}
{{ items | map(attribute='name') | join(', ') }} {{ items | selectattr('n', '>', 1) | map(attribute='name') | list }} {{ items | rejectattr('tags') | list | length }}
{{ items | groupby('n') | first }} {% for g in items | groupby('n') %}{{ g.grouper }}{{ g.list | length }}{{ g[0] }} {% endfor %}
{% set g = items | map(attribute='n') %}{{ g | list }}{{ g | list }}
{{ items | map('attr', 'name') | list }} {{ ['1', 'x'] | map('int', 5) | list }} {{ ['a'] | map('replace', 'a', 'b') | first }}
{{ items | sort(attribute='name') | map(attribute='name') | join }} {{ items | sort(attribute='n,name', reverse=true) | map(attribute='n') | join }}
{{ items | max(attribute='n') | tojson }} {{ [] | max }} {{ items | map(attribute='tags.0') | list }}
{{ d | tojson }} {{ d | tojson(true) }} {{ d | tojson(indent=2) }}
{{ d | tojson(separators=(',', ':')) }} {{ d | tojson(indent=4, separators=[', ', ' : '], sort_keys=true) }} {{ [] | tojson(indent=2) }} {{ {} | tojson(indent=0) }} {{ [1] | tojson(indent=0) }}
{{ '</script>\u2028\x7f"\\/' | tojson }} {{ 'é\x7f😀' | tojson(ensure_ascii=true) }} {{ [1.0, 1e400, none, true] | tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }}
{{ missing | tojson }}
{{ {(1, 2): 3} | tojson }}
{{ (1, 2) | tojson }} {{ range(2) | list | tojson }} {{ 'x' | tojson | tojson }} {{ [[], {}] | tojson(indent=1) }} {{ {'a': 1} | tojson(indent='--') }}
{{ '<a href="x">\'&amp;' | e }} {{ '<' | safe }} {{ ('<' | safe) + '<' }} {{ ('<' | e) ~ '<' }} {{ '<b>' | e | e }} {{ '<b>' | forceescape }} {{ ('%s' | safe) % '<' }} {{ ['<' | safe] }}
{% autoescape true %}{{ '<' }}{{ '<' | safe }}{% set lt = '<' %}{{ lt ~ ('>' | safe) }}{% set x %}<{{ '<' }}{% endset %}{{ x }}{% endautoescape %}{{ '<' }}
{{ words | trim | title }} {{ words | wordcount }} {{ words.split() | join('_') }} {{ words | wordwrap(10) }}
{{ 'foo bar baz qux' | truncate(9) }} {{ 'foo bar baz qux' | truncate(9, true) }} {{ 'foo bar baz qux' | truncate(11) }} {{ 'foo bar baz qux' | truncate(11, false, '...', 0) }}
{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, first=true) }}|{{ 'a\n\nb' | indent('> ', blank=true) }}
{{ 'x=%s, y=%.1f' | format(1, 2) }} {{ '%(a)s' | format(a=3) }} {{ '{} {x}'.format(1, x=2) }} {{ '{0[a]} {1.real}'.format({'a': 1}, 5) }}
{{ '%s and %s' % ('a', 'b') }} {{ '%s' % [1, 2] }} {{ '%d%%' % 50 }} {{ '%(k)s!' % {'k': 'v'} }} {{ '%5s|%-5s|' % ('a', 'b') }} {{ '%s' % none }}
{{ 1234567.891 | round(1) }} {{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 42 | round }} {{ 1234 | round(-2) }} {{ 7.1 | round(0, 'floor') }}
{{ '0x1A' | int(base=16) }} {{ '1_000' | int }} {{ ' 42 ' | int }} {{ '4.9' | int }} {{ 'x' | int(-1) }} {{ none | int }} {{ 3.99 | int }} {{ 'inf' | float }} {{ 'nan' | float }} {{ '1e3' | float }} {{ '' | float }}
{{ 1000 | filesizeformat }} {{ 1 | filesizeformat }} {{ 1536 | filesizeformat(true) }} {{ 123456789 | filesizeformat }}
{{ {'b': 1, 'A': 2} | dictsort }} {{ {'b': 1, 'A': 2} | dictsort(true) }} {{ {'b': 1, 'A': 2} | dictsort(by='value', reverse=true) }} {{ d | items | first }}
{{ 'a b&c=d/é' | urlencode }} {{ {'a': 1, 'b c': 'x/y'} | urlencode }} {{ {'class': 'x', 'id': none, 'n': 1} | xmlattr }} {{ '<p>a  <b>b</b>&amp;</p>' | striptags }}
{{ [3, 1, 3, 'a', 'A'] | unique | list }} {{ 'hello' | reverse }} {{ [1, 2] | reverse | list }} {{ 'hello' | first }}{{ 'hello' | last }} {{ [] | first }} {{ [1] | random }}
{{ [1, 2, 3, 4, 5] | batch(2, 0) | list }} {{ [1, 2, 3, 4, 5] | slice(3) | list }} {{ [1, 2, 3] | slice(2, 'x') | list }}
{{ ['a', 'b'] | select('equalto', 'a') | list }} {{ [1, 2, 3] | reject('odd') | list }} {{ [0, 1, ''] | select | list }} {{ none | select | list }}
a{# comment #}b {#- trimmed -#} c
a {%- if true -%} b {%- endif -%} c
{% raw %}{{ not }} {% x %}{% endraw %} {%- raw -%} {{ y }} {%- endraw -%} z
{% if 1 %}{% elif 2 %}b{% else %}c{% endif %}{% if 0 %}a{% elif 2 %}b{% else %}c{% endif %}{% if 0 %}a{% elif 0 %}b{% else %}c{% endif %}
{% if missing %}a{% else %}b{% endif %}{% if [] %}a{% elif {} %}b{% elif '' %}c{% elif 0.0 %}d{% else %}e{% endif %}
{% if messages is iterable and messages is not mapping and messages is sequence %}yes{% endif %}
{{ none is iterable }} {{ missing is iterable }} {{ 'x' is iterable }} {{ d is iterable }} {{ 1 is iterable }} {{ missing is sequence }} {{ d.items() is sequence }}
{{ 'abc' is string }} {{ 1 is string }} {{ true is number }} {{ true is integer }} {{ 1.0 is float }} {{ d is mapping }} {{ none is none }} {{ 'upper' is filter }} {{ 'odd' is test }}
{% print 1, 2 %} {% print 'x' %}
{% do x %}
{% include 'x' %}
{% if false %}{% include 'x' %}{% endif %}fine
{% block b %}in block {{ d.b }}{% endblock %} {% block c %}c{% endblock c %}
{% generation %}gen {{ 1 }}{% endgeneration %}
{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}
{{ }}
{% if %}x{% endif %}
{% for x in [1] %}{% endif %}
{% for x in [1] %}x
{{ 'unclosed }}
{{ [1, 2 }}
{{ {'a': 1} }}{{ {'a': {'b': 2}}.a.b }}{{ {'a': 1}['a'] }}{{ {'a': 1,} }}{{ [1,] }}
{{ foo.bar.baz is defined }}
{{ d.zz.yy }}
{{ d.zz is defined }} {{ d.zz.yy is defined if d.zz is defined else 'no' }}
{{ loop is defined }} {{ caller is defined }} {{ varargs is defined }}
{{ 'A' if messages[0].role == 'user' and 'World' in messages[0].content else 'B' }}
{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ (messages | selectattr('content', 'none') | first).role }}
{% set roles = messages | map(attribute='role') | list %}{{ roles }} {{ 'user' in roles }} {{ roles.index('assistant') }} {{ roles.count('user') }}
{{ nested[0][1][1][0] }} {{ nested[1].x.y.z }} {{ nested.1.x }} {{ nested | length }} {{ nested[0] + [9] }}
{{ big }} {{ big * 10 }} {{ big + 0.5 }} {{ big // 7 }} {{ big | string | length }} {{ 2 ** 64 }} {{ 10 ** 20 }} {{ 2 ** -1 }} {{ 2 ** 0.5 }}
{{ 1 / 12345678901234567 }} {{ -98765432109876543210 / 3 }} {{ 2 ** 100 / 3 ** 50 }} {{ 0 / 123456789012345678 }} {{ 2 ** 120 / 1 }}
{{ 5 is divisibleby 5 }} {{ 5 is eq 5 }} {{ 'a' is in 'abc' }} {{ 2 is sameas 2 }} {{ 1 is sameas true }}
{{ 'Straße'.upper() }} {{ 'ΑΣ'.lower() }} {{ 'ﬁ'.title() }} {{ "they're bill's".title() }} {{ 'hello world'.capitalize() }} {{ 'ǆx'.title() }}
{{ ' \u00a0x\u2003'.strip() | length }} {{ 'a\u2028b'.splitlines() }} {{ 'x\x1cy'.split() }} {{ '\ufeffx'.strip() | length }}
{{ ''.join(['a', 'b']) }} {{ ', '.join(messages | map(attribute='role')) }} {{ '-'.join('abc') }} {{ 'x'.join([1]) }}
{{ lipsum is defined }} {{ 'abc'.foo }} {{ 'abc'.upper }}
{%- set x = 5 -%} {{- x -}} {%- set y -%} a {%- endset -%} {{ y }}
{{ 'é\n' }} {{ '\d' }} {{ '\N' }}
{{ 1 if 2 }}{{ (1 if 0) or 'e' }} {{ [x for x in y] }}
{{ d.items()[0] }} {{ (d.items() | list)[0] }} {{ (d.items() | list)[0][1] }} {{ d | list }}
{{ items[0].name.upper() ~ items[-1]['n'] }} {{ items | map(attribute='tags') | map('length') | list }}
{% set found = [] %}{% for i in items %}{% if i.n > 1 %}{% set found = found + [i.name] %}{% endif %}{% endfor %}{{ found }}
{% for i in items %}{% set outer_loop = loop %}{% for t in i.tags %}{{ outer_loop.index }}{{ t }}{% endfor %}{% endfor %}
{{ (1, 2) + (3,) }} {{ (1, 2)[0] }} {{ (3, 1) | sort }} {{ (1, 2) | list }} {{ (1, 2) == (1, 2) }} {{ (1, 2).count(1) }} {{ [1, 2].index(2) }} {{ [1].copy() }}
""".strip("\n")


def random_templates(count):
    """Expressions of a few operators, put together at random; the same every time."""
    rng = random.Random(20240726)
    # jinja2 folds expressions of constants and hides their errors, so only variables are sliced.
    attributes = [attribute for attribute in ATTRIBUTES if ":" not in attribute]
    atoms = OPERANDS + ["d", "words[2:9:2]", "nested[::-1]", "d.a[:2]", "words", "items[0].n", "messages[0].content", "nested[0]", "big", "d.a", "'x'", "7"]

    def expression(depth):
        kind = rng.randrange(9) if depth else 0
        inner = lambda: expression(depth - 1)
        if kind <= 1:
            return rng.choice(atoms)
        if kind <= 3:
            return f"({inner()} {rng.choice(BINARY)} {inner()})"
        if kind == 4:
            return f"({inner()}) | {rng.choice(FILTERS[:-1])}"
        if kind == 5:
            return f"(({inner()}) is {rng.choice(TESTS[:-1])})"
        if kind == 6:
            return f"({inner()}){rng.choice(attributes)}"
        if kind == 7:
            return f"({inner()} if {inner()} else {inner()})"
        return f"[{inner()}, {inner()}]"

    return ["{{ " + expression(3) + " }}" for _ in range(count)]


# Patterns of the differences that docs/chat-templates.md lists.
DIFFERENT = [
    r"items.*\| pprint",  # the text has more than one line
    r"^\{\{ -2 \*\* 2.5 \}\}$",  # the result is a complex number
    r"\(d\.items\) \| wordcount",  # an address counts as two words
]


def result(source):
    if any(re.search(pattern, source) for pattern in DIFFERENT):
        return False
    try:
        text = _compile_jinja_template(source).render(**copy.deepcopy(CONTEXT))
        text.encode()
    except Exception:  # jinja2 lets Python's own errors pass
        return None
    unsteady = re.search(r"(?i) at 0x|%200x|<(generator|function|bound|built-in|class|list_|reversed)|object>", text)
    return False if unsteady or len(text) > 2000 else text


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="tests/data/templates")
    parser.add_argument("--random", type=int, default=400, help="how many templates are made at random")
    parser.add_argument("--random-only", action="store_true")
    options = parser.parse_args()
    groups = []
    for pattern, a, b in [
        ("{{ ($a) | $b }}", VALUES, FILTERS),
        ("{{ ($a) is $b }}", VALUES, TESTS),
        ("{% set v = $a %}{{ v$b }}", VALUES, ATTRIBUTES),
        ("{{ ($a).$b }}", TEXTS, METHODS),
        ("{{ $a % $b }}", FORMATS, FORMATTED),
        ("{{ $a.format($b, a=1) }}", BRACES, FORMATTED),
        ("a$ab$b", TAGS, ["{% endif %}", "\n  {% endif %}\n", " {%- endif %} \n\n", "\n {%+ endif +%}\n"]),
        ("$ab$b", INNER_TAGS, ["", "\n"]),
        *((f"{{{{ $a {op} $b }}}}", OPERANDS, OPERANDS) for op in BINARY),
    ]:
        if options.random_only:
            break
        texts = [result(pattern.replace("$a", x).replace("$b", y)) for x, y in product(a, b)]
        groups.append({"pattern": pattern, "a": a, "b": b, "texts": texts})
    sources = [] if options.random_only else [LINE_ENDS, *TEMPLATES.split("\n")]
    sources += random_templates(options.random)
    templates = [[source, result(source)] for source in sources]
    data = {"context": CONTEXT, "groups": groups, "templates": templates}
    dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    lines = [f'"context":{dump(CONTEXT)}']
    lines.append('"groups":[\n' + ",\n".join(map(dump, groups)) + "]")
    lines.append('"templates":[\n' + ",\n".join(map(dump, templates)) + "]")
    (options.directory / "expressions.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
    print(sum(len(group["texts"]) for group in groups) + len(templates), "templates")


if __name__ == "__main__":
    main()
