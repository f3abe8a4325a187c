#!/usr/bin/env python3
"""Answers every line of a file, all in one batch, and writes one JSON object a line.

    batch.py smollm2-135m-instruct questions.txt > answers.jsonl
    batch.py model.gguf prompts.txt --complete --drafter ngram --max-tokens 200

A line is a question to a chat model, or with --complete the beginning of a text. The order and number of the lines
change no answer, and neither does the drafter.
"""

import argparse
import json
import sys
import time

from galley import LLM, SamplingParams


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a known name, a hub id, a directory or a GGUF file")
    parser.add_argument(
        "file", type=argparse.FileType(encoding="utf-8"), help="one prompt a line; - reads standard input"
    )
    parser.add_argument("--complete", action="store_true", help="continue the lines instead of answering them")
    parser.add_argument("--drafter", help="such as ngram, or streaming-llm,budget=512")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    lines = [line.rstrip("\n") for line in args.file if line.strip()]
    params = SamplingParams(max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed)
    with LLM(args.model, drafter=args.drafter) as llm:
        start = time.monotonic()
        if args.complete:
            outputs = llm.generate(lines, params)
        else:
            outputs = llm.chat([[{"role": "user", "content": line}] for line in lines], params)
        seconds = time.monotonic() - start
    n_tokens, n_drafted = 0, 0
    for line, output in zip(lines, outputs):
        answer = output.outputs[0]
        n_tokens += len(answer.token_ids)
        n_drafted += sum(source is not None for source in answer.sources)
        print(
            json.dumps({"prompt": line, "text": answer.text, "finish_reason": answer.finish_reason}, ensure_ascii=False)
        )
    print(
        f"{len(lines)} answers, {n_tokens} tokens in {seconds:.1f} s; {n_drafted} of them were drafted",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
