#!/usr/bin/env python3
"""Write cases.json into a folder of chat templates: their texts as jinja2 renders them in transformers' environment.

For tests/data/templates, whose cases are in the repository. Other folders, with templates that are not Galley's to
distribute, are compared by `GALLEY_TEST_TEMPLATES=FOLDER cargo test -p galley-model --test templates -- --nocapture`.
"""

import argparse
import copy
import json
import sys
from itertools import product
from pathlib import Path

from jinja2.exceptions import TemplateError
from transformers.utils import chat_template_utils

USER = {"role": "user", "content": "Hi  there.\n"}
SYSTEM = {"role": "system", "content": " Be brief. "}
ARGUMENTS = {"city": "Łódź", "days": 3, "units": ["°C", None, True], "t": [1.0, 1e-05, 1e16, 1.5e300, 0.0001, -2.5]}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The \"weather\"\tin a <city> & 'more' \u2028\x01",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "A city's name"},
                    "days": {"type": "integer", "enum": [1, 2, 3], "default": 1},
                    "units": {"type": "array", "items": {"type": "string"}},
                    "where": {"type": ["object", "null"], "properties": {"x": {"type": "number"}}, "required": ["x"]},
                },
                "required": ["city"],
            },
            "return": {"type": "string"},
        },
    },
    {"type": "function", "function": {"name": "stop", "description": "", "parameters": {"type": "object", "properties": {}}}},
]
BARE_TOOLS = [{"type": "function", "function": {"name": "weather", "description": "w", "parameters": {"type": "object", "properties": {}, "required": []}}}]


def call(arguments, **more):
    return {"type": "function", "function": {"name": "weather", "arguments": arguments}, **more}


def turn(content, **more):
    return {"role": "assistant", "content": content, **more}


def ask(content):
    return {"role": "user", "content": content}


# Each entry: name, messages, tools.
CHATS = [
    ("one", [USER], []),
    ("system", [SYSTEM, USER], []),
    ("three", [USER, turn(" Hello! "), ask("é <b> 'x'")], []),
    ("two users", [USER, USER], []),
    ("skip and stop", [{"role": "skip", "content": ""}, ask("a.b"), {"role": "stop", "content": "."}, USER], []),
    ("empty texts", [{"role": "system", "content": ""}, ask(""), turn(""), ask("x")], []),
    ("answer last", [SYSTEM, USER, turn("The answer\nis")], []),
    ("system later", [USER, turn("a"), SYSTEM, ask("b")], []),
    ("no messages", [], []),
    ("unicode", [ask("你好 👩‍👩‍👧 \u0301 \u202e\u00a0x\u2028"), turn("Łódź 𝔘"), ask("\t  ñ \t")], []),
    ("line ends", [{"role": "system", "content": "a\r\nb\r"}, ask("c\r\n\r\nd"), turn("\r\n"), ask("\n\n")], []),
    ("tags in text", [ask("{{ x }} {% if %} <|im_end|> </s>"), turn("<think>\na\n</think>\n\nb"), ask("c")], []),
    ("developer", [{"role": "developer", "content": "d"}, USER], []),
    ("parts", [ask([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), turn([{"type": "text", "text": "c"}]), ask("d")], []),
    ("system parts", [{"role": "system", "content": [{"type": "text", "text": "s"}]}, USER], []),
    ("image", [ask([{"type": "image"}, {"type": "text", "text": "what?"}])], []),
    ("null content", [USER, {"role": "assistant", "content": None, "tool_calls": [call(ARGUMENTS)]}, {"role": "tool", "content": "t"}], TOOLS),
    ("missing content", [USER, {"role": "assistant", "tool_calls": [call(ARGUMENTS)]}, {"role": "tool", "content": "t", "name": "weather"}], TOOLS),
    ("tools", [USER], TOOLS),
    ("bare tools", [USER], BARE_TOOLS),
    ("tools and system", [SYSTEM, USER], TOOLS),
    ("tool chat", [SYSTEM, ask("Weather?"), turn("", tool_calls=[call(ARGUMENTS)]), {"role": "tool", "content": "sunny"}], TOOLS),
    ("tool ids", [ask("Weather?"), turn("", tool_calls=[call(ARGUMENTS, id="abcdefghi")]), {"role": "tool", "content": "sunny", "tool_call_id": "abcdefghi", "name": "weather"}, turn("It is sunny."), ask("thanks")], TOOLS),
    ("arguments as text", [ask("Weather?"), turn("", tool_calls=[call(json.dumps(ARGUMENTS), id="123456789")]), {"role": "tool", "content": '{"a": [1]}', "tool_call_id": "123456789"}], TOOLS),
    ("two calls", [ask("W?"), turn("Let me see.", tool_calls=[call({"city": "A"}, id="aaaaaaaaa"), call({}, id="bbbbbbbbb")]), {"role": "tool", "content": "1", "tool_call_id": "aaaaaaaaa"}, {"role": "tool", "content": "2", "tool_call_id": "bbbbbbbbb"}, ask("so?")], TOOLS),
    ("calls without tools", [ask("W?"), turn("", tool_calls=[call({"a": 1.5})]), {"role": "tool", "content": "x"}], []),
    ("flat calls", [ask("W?"), turn("", tool_calls=[{"name": "weather", "arguments": {"city": "A"}, "id": "c1"}]), {"role": "tool", "content": {"t": 1}, "tool_call_id": "c1"}], TOOLS),
    ("tool list result", [ask("W?"), turn("", tool_calls=[call({"a": 1}, id="x")]), {"role": "tool", "content": [{"type": "text", "text": "r"}], "tool_call_id": "x"}], TOOLS),
    ("reasoning", [ask("1+1?"), turn("2", reasoning_content="one and one"), ask("2+2?")], []),
    ("reasoning last", [ask("1+1?"), turn("2", reasoning_content=" r ", thinking=" r ")], []),
    ("reasoning and tools", [ask("W?"), turn("", reasoning_content="think\nmore", tool_calls=[call({"city": "A"})]), {"role": "tool", "content": "s"}, turn("done", reasoning_content="end")], TOOLS),
]
VARIABLES = [
    {"thinking": False},
    {"enable_thinking": True, "thinking": True, "reasoning_effort": "high", "pad_token": "<pad>", "unk_token": "<unk>"},
    {"enable_thinking": False, "documents": [{"title": "T", "text": "x\ny"}], "date_string": "1 Jan 2020"},
]


def cases_of(path, chats, variables):
    template = chat_template_utils._compile_jinja_template(path.read_bytes().decode())
    for (chat, (_, messages, tools)), (index, more) in product(enumerate(chats), enumerate(variables)):
        for prompt in (True, False):
            case = {"template": path.name, "chat": chat, "variables": index, "prompt": prompt}
            context = {"bos_token": "<s>", "eos_token": "</s>", "documents": None} | more
            context |= {"messages": messages, "tools": tools or None, "add_generation_prompt": prompt}
            try:
                text = template.render(**copy.deepcopy(context))
                text.encode()
                case["text"] = text
            except Exception as error:  # jinja2 lets Python's own errors pass
                is_raised = type(error) is TemplateError
                case["raised" if is_raised else "error"] = str(error) if is_raised else f"{type(error).__name__}: {error}"
            yield case


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--chats", type=Path, help="a JSON file, a list of [name, messages, tools], in place of the built-in list")
    parser.add_argument("--few", action="store_true", help="one set of variables")
    options = parser.parse_args()
    chats = json.loads(options.chats.read_text()) if options.chats else CHATS
    variables = VARIABLES[:1] if options.few else VARIABLES
    cases = []
    for path in sorted(options.directory.glob("*.jinja")):
        try:
            cases += cases_of(path, chats, variables)
        except TemplateError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
    dump = lambda values: ",\n".join(json.dumps(value, ensure_ascii=False) for value in values)
    parts = {"chats": chats, "variables": variables, "cases": cases}
    lines = ",\n".join(f'"{name}": [\n{dump(values)}]' for name, values in parts.items())
    (options.directory / "cases.json").write_text("{" + lines + "}\n", encoding="utf-8")
    texts = sum("text" in case for case in cases)
    print(f"{len(cases)} cases, {texts} with a text")


if __name__ == "__main__":
    main()
