#!/usr/bin/env python3
"""Write tests/data/templates/cases.json: what transformers renders from the templates there."""

import argparse
import json
from pathlib import Path

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

USER = {"role": "user", "content": "Hi  there.\n"}
CHATS = [
    [USER],
    [{"role": "system", "content": " Be brief. "}, USER],
    [USER, {"role": "assistant", "content": " Hello! "}, {"role": "user", "content": "é <b> 'x'"}],
    [USER, USER],
    [{"role": "skip", "content": ""}, {"role": "user", "content": "a.b"}, {"role": "stop", "content": "."}, USER],
]
ARGUMENTS = {"city": "Łódź", "days": 3, "units": ["°C", None, True], "t": [1.0, 1e-05, 1e16, 1.5e300, 0.0001, -2.5]}
CALL = {"type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The \"weather\"\tin a <city> & 'more' \u2028\x01",
            "parameters": {"type": "object", "properties": {}, "required": []},
        },
    }
]
TOOL_CHAT = [
    {"role": "system", "content": "Use tools."},
    {"role": "user", "content": "Weather in Łódź?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny"},
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="tests/data/templates")
    directory = parser.parse_args().directory
    cases = []
    for path in sorted(directory.glob("*.jinja")):
        template = _compile_jinja_template(path.read_text())
        runs = [(chat, None, prompt) for chat in CHATS for prompt in (False, True)]
        runs += [([USER], TOOLS, True), (TOOL_CHAT, TOOLS, True)]
        for messages, tools, prompt in runs:
            case = {"template": path.name, "messages": messages, "tools": tools or []}
            case["add_generation_prompt"] = prompt
            try:
                case["text"] = template.render(
                    messages=messages,
                    tools=tools,
                    add_generation_prompt=prompt,
                    bos_token="<s>",
                    eos_token="</s>",
                    thinking=False,
                )
            except TemplateError as error:
                case["error"] = str(error)
            cases.append(case)
    lines = ",\n".join(json.dumps(case) for case in cases)
    (directory / "cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
