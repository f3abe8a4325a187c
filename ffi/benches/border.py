"""The same as border.c, with ``LLM``. argv: settings of the engine as JSON. Standard input is the array of requests."""

import json
import sys
import time

from galley import LLM, SamplingParams

settings = json.loads(sys.argv[1])
requests = json.load(sys.stdin)
with LLM(settings.pop("model"), **settings) as llm:
    prompts = [request.pop("prompt") for request in requests]
    params = [SamplingParams(**request) for request in requests]
    start, cpu = time.monotonic_ns(), time.thread_time_ns()
    outputs = llm.generate(prompts, params)
    cpu, end = time.thread_time_ns() - cpu, time.monotonic_ns()
n_tokens = sum(len(answer.token_ids) for output in outputs for answer in output.outputs)
print(n_tokens + len(outputs), n_tokens, cpu, end - start)
