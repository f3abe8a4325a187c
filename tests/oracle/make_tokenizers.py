#!/usr/bin/env python3
"""Write tests/data/tokenizers: texts and the token ids that other tokenizers give them.

smollm2.json        SmolLM2's tokenizer.json, by the `tokenizers` package
sentencepiece.gguf  a small SentencePiece BPE vocabulary, trained here, as llama.cpp stores it
sentencepiece.json  its ids: `plain` by sentencepiece, `special` by llama.cpp

Needs tokenizers, sentencepiece, gguf and llama-cpp-python.
"""

import argparse
import io
import json
from pathlib import Path

import gguf
import sentencepiece
from llama_cpp import Llama
from tokenizers import Tokenizer

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "I'm sure they'll say it's we've'd won't I'D IT'S",
    "Zażółć gęślą jaźń. Привет, мир! 你好，世界。こんにちは世界 안녕하세요 שלום مرحبا नमस्ते ไทย",
    "👍🏽 👨‍👩‍👧‍👦 🇩🇪 naïve café e\u0301 ﬁ ½ Ⅷ ²",
    "x = 1234567890; y=3.14159e-10; 0xFF 1,000,000 12:34:56 ٣٤٥ १२३",
    "def f(a, b):\n\tif a:\n\t\treturn b[0] ** 2  # comment\n\n\n    class A: pass\r\n",
    "a  b   c    d\t\te\n\n\n f \u00a0g \u3000h  ",
    "   leading and trailing   ",
    "\n\n\n",
    "     ",
    "\t \t \n \r\n",
    "https://example.org/a?b=c&d=%20#e user@host.org C++ C# F# /* */ != === -> => :: ...",
    "\u0001\u007f\u200b\ufeff\ufffd",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓀀 \U0010ffff",
    "a" * 60,
    " 's 'S 't 'T ''s",
]
CHATML = "<|im_start|>user\nhi<|im_end|>\n<|endoftext|> <|im_start|><|im_start|> <|im_sta"
BRACKETS = ["<s>[INST] Hello [/INST] world </s>", "use <tool> here", "<s>", "<unk>", "<0x41>"]
TOKEN_TYPES = {"unknown": 2, "control": 3, "unused": 5, "byte": 6}


def train(text_files):
    """A SentencePiece model with the settings of Llama 2 and Mistral: byte fallback, split digits."""
    lines = [line for file in text_files for line in file.read_text("utf-8").split("\n")]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for line in lines if line.strip()),
        model_writer=model,
        model_type="bpe",
        vocab_size=700,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        control_symbols=["[INST]", "[/INST]"],
        user_defined_symbols=["<tool>"],
        max_sentence_length=100_000,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def token_type(model, index):
    for name, value in TOKEN_TYPES.items():
        if getattr(model, f"is_{name}")(index):
            return value
    return 4 if model.id_to_piece(index) == "<tool>" else 1


def write_gguf(model, path):
    ids = range(model.get_piece_size())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([model.id_to_piece(i) for i in ids])
    writer.add_token_scores([model.get_score(i) for i in ids])
    writer.add_token_types([token_type(model, i) for i in ids])
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_unk_token_id(model.unk_id())
    writer.add_add_bos_token(True)
    # Keys that llama.cpp requires before it reads the vocabulary.
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def dump(path, cases):
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(f"[\n{lines}\n]\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smollm2", type=Path, required=True, help="SmolLM2's tokenizer.json")
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="to train on")
    parser.add_argument("--out", type=Path, required=True, help="tests/data/tokenizers")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    smollm2 = Tokenizer.from_file(str(args.smollm2))
    encode = lambda text: smollm2.encode(text, add_special_tokens=False).ids
    dump(args.out / "smollm2.json", [{"text": t, "ids": encode(t)} for t in [*TEXTS, CHATML]])

    model = train(args.text)
    write_gguf(model, args.out / "sentencepiece.gguf")
    llama = Llama(str(args.out / "sentencepiece.gguf"), vocab_only=True, verbose=False)
    special = lambda text: llama.tokenize(text.encode(), add_bos=False, special=True)
    cases = []
    for text in TEXTS + BRACKETS:
        # llama.cpp and transformers put a space before each piece of text between user-defined symbols.
        plain = special(text) if "<tool>" in text else model.encode(text)
        cases.append({"text": text, "plain": plain, "special": special(text)})
    dump(args.out / "sentencepiece.json", cases)


if __name__ == "__main__":
    main()
