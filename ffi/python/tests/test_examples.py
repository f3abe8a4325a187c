"""The Python examples, as a person would call them, and their length."""

import json
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from support import MODEL, ROOT, prompts

EXAMPLES = ROOT / "examples/python"


def command(name, *args):
    """The command of an example with the test model."""
    return [sys.executable, "-I", str(EXAMPLES / name), MODEL, *args]


class Document(unittest.TestCase):
    def test_the_code_of_the_document_runs(self):
        document = (ROOT / "docs/python.md").read_text()
        blocks = [block.split("```")[0] for block in document.split("```python\n")[1:]]
        self.assertEqual(len(blocks), 3)
        code = "\n".join(blocks).replace("smollm2-135m-instruct", MODEL)
        # The last block says that a resumed answer is the one that was never cut. Another seed is the control.
        code += (
            "\nwhole = llm.generate('Once upon a time', SamplingParams(max_tokens=60, seed=first.seed))[0]"
            "\nother = llm.generate('Once upon a time', SamplingParams(max_tokens=60, seed=first.seed + 1))[0]"
            "\nprint('\\nequal:', text == whole.outputs[0].text, text == other.outputs[0].text)"
        )
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout.endswith("\nequal: True False\n"), done.stdout)


class Examples(unittest.TestCase):
    def test_examples_are_short(self):
        examples = [*EXAMPLES.glob("*.py"), *(ROOT / "examples/node").glob("*.mjs")]
        self.assertEqual(len(examples), 3)
        for path in examples:
            self.assertLess(len(path.read_text().splitlines()), 100, path.name)

    def test_batch_answers_every_line(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "prompts.txt"
            path.write_text("\n".join(prompts(5)) + "\n\n")
            answers = {}
            for options in [(), ("--drafter", "ngram"), ("--complete",)]:
                run = command("batch.py", str(path), "--max-tokens", "12", *options)
                done = subprocess.run(run, capture_output=True, text=True, check=False)
                self.assertEqual(done.returncode, 0, done.stderr)
                answers[options] = [json.loads(line) for line in done.stdout.splitlines()]
                self.assertEqual([answer["prompt"] for answer in answers[options]], prompts(5))
            self.assertEqual(answers[()], answers[("--drafter", "ngram")])
            self.assertNotEqual(answers[()], answers[("--complete",)])

    def test_the_service_streams_and_outlives_its_clients(self):
        run = command("stream_async.py", "--port", "0", "--max-tokens", "50")
        with subprocess.Popen(run, stderr=subprocess.PIPE, text=True) as service:
            try:
                port = int(service.stderr.readline().split()[-1])
                cut = socket.create_connection(("127.0.0.1", port), timeout=20)
                cut.sendall(b"the galley\n")
                cut.recv(1)
                cut.close()
                with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                    client.sendall(b"the galley\n")
                    text = client.makefile("rb").read()
                self.assertGreater(len(text), 10)
                self.assertFalse(text.startswith(b"error"), text)
                self.assertIsNone(service.poll())
            finally:
                service.terminate()
