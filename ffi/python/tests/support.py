"""The tiny model of the tests, and requests of every kind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MODEL = str(ROOT / "tests/data/models/smollm2")
#: An engine that has room for all sequences of a test.
SIZES = {"max_num_seqs": 64, "kv_cache_tokens": 8192, "threads": 2}

WORDS = "the galley proof printed page corrects of and press a sheet goes to before checked original".split()


def prompts(n):
    """Texts of different lengths."""
    return [" ".join(WORDS[(i * 7 + k * (i + 3)) % len(WORDS)] for k in range(1 + i % 9)) for i in range(n)]


def settings_of(i):
    """Settings of request ``i``: greedy, sampled, penalties, stops, several sequences, log-probabilities."""
    kinds = [
        {"temperature": 0.0},
        {"temperature": 0.8, "top_p": 0.95},
        {"temperature": 1.3, "top_k": 20, "min_p": 0.01},
        {"temperature": 0.7, "repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.1},
        {"temperature": 0.9, "stop": ["e", "th"], "min_tokens": 3},
        {"temperature": 1.0, "n": 3, "stop_token_ids": [101, 32]},
        {"temperature": 0.0, "logprobs": 3, "logit_bias": {101: 2.5, 97: -100.0}},
        {"temperature": 0.6, "logprobs": 0, "ignore_eos": True},
    ]
    return {**kinds[i % len(kinds)], "seed": 1000 + i, "max_tokens": 24 + i % 17}


def plain(outputs):
    """Everything of answers that must be equal for equal requests."""
    return [
        [(o.index, o.text, o.token_ids, o.logprobs, o.finish_reason, o.stop_reason) for o in output.outputs]
        for output in outputs
    ]


def interrupt_after(seconds):
    """Sends SIGINT to this process later. Returns a function that says how long ago it was sent, in seconds."""
    # A program that was started in the background may ignore the signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sent = []

    def send():
        time.sleep(seconds)
        sent.append(time.monotonic())
        os.kill(os.getpid(), 2)

    threading.Thread(target=send, daemon=True).start()
    return lambda: time.monotonic() - sent[0]


def python(code):
    """The output of a new interpreter."""
    return subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True).stdout


def wait_until(condition, seconds=5.0):
    """Whether the condition holds within this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.001)
    return False
