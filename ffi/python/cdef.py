"""The declarations of galley.h in the form that cffi reads: no preprocessor lines, no C++ guards, no comments."""

import re


def declarations(header):
    """The types, functions and integer macros of a header."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", header, flags=re.DOTALL)
    text = text.replace("\\\n", " ")
    lines, guard = [], 0
    for line in text.splitlines():
        directive = re.match(r"\s*#\s*(\w+)\s*(.*)", line)
        if not directive:
            if not guard:
                lines.append(line)
            continue
        name, rest = directive.groups()
        if guard:
            guard += {"if": 1, "ifdef": 1, "ifndef": 1, "endif": -1}.get(name, 0)
        elif name == "ifdef" and rest.strip() == "__cplusplus":
            guard = 1
        elif name == "define":
            number = re.fullmatch(r"(\w+)\s+\(?(-?\d+|0x[0-9a-fA-F]+)[uUlL]*\)?", rest.strip())
            if number:
                lines.append("#define {} {}".format(*number.groups()))
    return "\n".join(line for line in (line.strip() for line in lines) if line) + "\n"


def functions(text):
    """Names of the functions of a header, or of its declarations."""
    return sorted(
        set(re.findall(r"\b(galley_\w+)\s*\((?!\s*\*)", re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)))
    )
