#!/usr/bin/env python3
"""Write tests/data/tokenizers/facts.json: transformers' tokens with the files beside a tokenizer.json.

A case is a set of such files, and for each text the ids that transformers gives it, with and without special tokens, and
the text of the ids without special tokens. The tokenizer.json comes from tests/data/models/smollm2, whose added tokens
are cut down to the first unless the case brings its own.

Needs transformers 5 and jinja2.
"""

import json
import tempfile
from pathlib import Path

from transformers import AutoTokenizer, __version__

DATA = Path(__file__).parent.parent / "data"
TEXTS = [
    "<|im_start|>user\nthe cat<|im_end|>\n<|endoftext|>",
    "a <|im_end|> b<|im_end|>  <tool> c<tool>d <tool>",
    "the <img> end</s> mask<pad>",
    "THE <Img> <|IM_END|>",
    "",
]


def token(content, special=True, lstrip=False, rstrip=False, single_word=False, normalized=False):
    return dict(
        content=content,
        lstrip=lstrip,
        normalized=normalized,
        rstrip=rstrip,
        single_word=single_word,
        special=special,
    )


def role(content, **flags):
    """A token as special_tokens_map.json has it."""
    described = token(content, **flags)
    del described["special"]
    return described


CHATML = {"0": token("<|endoftext|>"), "1": token("<|im_start|>"), "2": token("<|im_end|>")}
NAMES = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}

CASES = {
    "case 06: added_tokens_decoder alone names them": {
        "tokenizer_config.json": NAMES | {"added_tokens_decoder": CHATML}
    },
    "roles alone name them": {"tokenizer_config.json": NAMES},
    "roles as objects": {
        "tokenizer_config.json": {
            "bos_token": token("<|im_start|>") | {"__type": "AddedToken"},
            "eos_token": token("<|im_end|>", lstrip=True) | {"__type": "AddedToken"},
        }
    },
    "special_tokens_map.json": {
        "tokenizer_config.json": {},
        "special_tokens_map.json": {
            "bos_token": role("<|im_start|>"),
            "eos_token": role("<|im_end|>", rstrip=True),
            "additional_special_tokens": ["<tool>", "<img>"],
        },
    },
    "special_tokens_map.json yields to added_tokens_decoder": {
        "tokenizer_config.json": {"eos_token": "<|im_end|>", "added_tokens_decoder": CHATML},
        "special_tokens_map.json": {"eos_token": "</s>", "additional_special_tokens": ["<tool>"]},
        "added_tokens.json": {"<img>": 288},
    },
    "special_tokens_map.json overrides the configuration": {
        "tokenizer_config.json": {"eos_token": "</s>"},
        "special_tokens_map.json": {"eos_token": "<|im_end|>"},
    },
    "added_tokens.json": {
        "tokenizer_config.json": {"eos_token": "<|im_end|>"},
        "added_tokens.json": {"<tool>": 288, "<img>": 289, "<|im_end|>": 2},
    },
    "added_tokens.json in another order": {
        "tokenizer_config.json": {},
        "added_tokens.json": {"<img>": 289, "<tool>": 288},
    },
    "flags": {
        "tokenizer_config.json": {
            "added_tokens_decoder": CHATML
            | {
                "2": token("<|im_end|>", lstrip=True, rstrip=True),
                "288": token("<tool>", special=False, single_word=True),
                "289": token("<img>", special=False, normalized=True),
            }
        }
    },
    "special in the configuration alone": {
        "added_tokens": [token(name, special=False) | {"id": i} for i, name in enumerate(["<|endoftext|>", "<|im_start|>"])],
        "tokenizer_config.json": {"added_tokens_decoder": CHATML},
    },
    "a token with a role is special whatever the decoder says": {
        "tokenizer_config.json": {
            "eos_token": "<tool>",
            "added_tokens_decoder": {"288": token("<tool>", special=False)},
        }
    },
    "ids beyond the vocabulary, with a gap": {
        "tokenizer_config.json": {"added_tokens_decoder": {"295": token("<tool>"), "300": token("<img>")}}
    },
    "extra and custom roles": {
        "tokenizer_config.json": {
            "image_token": "<img>",
            "extra_special_tokens": {"tool_token": "<tool>"},
            "additional_special_tokens": ["</s>"],
            "mask_token": None,
        }
    },
    "a list of extra tokens": {
        "tokenizer_config.json": {
            "extra_special_tokens": ["<tool>", "<|im_end|>"],
            "additional_special_tokens": ["<img>"],
        }
    },
    "add_bos_token yields to tokenizer.json": {
        "tokenizer_config.json": NAMES
        | {"add_bos_token": True, "add_eos_token": True, "clean_up_tokenization_spaces": True, "added_tokens_decoder": CHATML}
    },
    "no files": {},
}


def make(files):
    tokenizer = json.loads((DATA / "models/smollm2/tokenizer.json").read_text("utf-8"))
    files = dict(files)
    tokenizer["added_tokens"] = files.pop("added_tokens", tokenizer["added_tokens"][:1])
    added = tokenizer["added_tokens"]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
        for name, content in files.items():
            if name == "tokenizer_config.json":
                content = content | {"tokenizer_class": "PreTrainedTokenizerFast"}
            (folder / name).write_text(json.dumps(content), "utf-8")
        if "tokenizer_config.json" not in files:
            (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        loaded = AutoTokenizer.from_pretrained(folder)
        texts = []
        for text in TEXTS:
            ids = loaded.encode(text, add_special_tokens=False)
            texts.append(
                {
                    "text": text,
                    "ids": ids,
                    "with_special": loaded.encode(text),
                    "decoded": loaded.decode(ids, skip_special_tokens=True),
                }
            )
        return {"files": files, "added_tokens": added, "eos": loaded.eos_token_id, "texts": texts}


if __name__ == "__main__":
    cases = {name: make(files) for name, files in CASES.items()}
    out = DATA / "tokenizers/facts.json"
    lines = [f"{json.dumps(name)}: {json.dumps(case, ensure_ascii=False)}" for name, case in cases.items()]
    content = ",\n ".join(lines)
    out.write_text(f'{{"transformers": "{__version__}", "cases": {{\n {content}\n}}}}\n', "utf-8")
    print(f"{out}: {len(cases)} cases, {out.stat().st_size} bytes")
