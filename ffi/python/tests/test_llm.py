"""``LLM``: the bytes of the program, every form of prompt, interrupts, forks."""

import copy
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

import galley
from galley import LLM, SamplingParams
from galley._library import TREE, library
from galley._prompts import Request
from galley._queue import Answer, Queue
from support import MODEL, SIZES, interrupt_after, plain, prompts, python, settings_of, wait_until

PROGRAM = os.path.join(TREE, "bin", "galley")


def answers_of_the_program(requests):
    """The answers of ``galley run`` to requests in JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests.jsonl"
        path.write_text("".join(json.dumps(request) + "\n" for request in requests))
        command = [PROGRAM, "run", "--model", MODEL, "--request", str(path), "--max-num-seqs", "64"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]


def plain_json(answers):
    """The same parts of the program's answers as ``support.plain`` takes."""

    def logprobs(output):
        if "logprobs" not in output:
            return None
        entries = []
        for entry in output["logprobs"]:
            logprobs = {entry["token_id"]: (entry["logprob"], None)}
            logprobs.update({token: (value, rank + 1) for rank, (token, value) in enumerate(entry["top"])})
            entries.append(logprobs)
        return entries

    def part(output):
        ids = output["token_ids"]
        return output["index"], output["text"], ids, logprobs(output), output["finish_reason"], output["stop_reason"]

    return [[part(output) for output in answer["outputs"]] for answer in answers]


def in_32_bits(answers):
    """JSON has the shortest decimals of log-probabilities, and galley.h their 32 bits."""

    def pair(value):
        logprob, rank = (value.logprob, value.rank) if isinstance(value, galley.Logprob) else value
        return struct.pack("f", float("-inf") if logprob is None else logprob), rank

    return [
        [
            (
                *part[:3],
                part[3] and [{token: pair(value) for token, value in entry.items()} for entry in part[3]],
                *part[4:],
            )
            for part in answer
        ]
        for answer in answers
    ]


class Answers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.llm = LLM(MODEL, **SIZES)

    @classmethod
    def tearDownClass(cls):
        cls.llm.close()

    def test_200_prompts_give_the_bytes_of_the_program(self):
        texts, settings = prompts(200), [settings_of(i) for i in range(200)]
        ours = self.llm.generate(texts, [SamplingParams(**own) for own in settings])
        requests = [{"prompt": text, **own} for text, own in zip(texts, settings)]
        theirs = answers_of_the_program(requests)
        self.assertEqual(
            [output.prompt_token_ids for output in ours], [answer["prompt_token_ids"] for answer in theirs]
        )
        self.assertEqual(in_32_bits(plain(ours)), in_32_bits(plain_json(theirs)))
        self.assertEqual({output.fingerprint for output in ours}, {answer["fingerprint"] for answer in theirs})
        # The control: another seed changes a sampled answer, and the comparison notices.
        requests[1]["seed"] += 1
        other = answers_of_the_program(requests[:2])
        self.assertEqual(in_32_bits(plain_json(other[:1])), in_32_bits(plain(ours[:1])))
        self.assertNotEqual(in_32_bits(plain_json(other)), in_32_bits(plain(ours[:2])))

    def test_a_prompt_alone_gives_the_bytes_of_the_batch(self):
        params = [SamplingParams(**settings_of(i)) for i in range(16)]
        together = plain(self.llm.generate(prompts(16), params))
        alone = [plain(self.llm.generate(text, own))[0] for text, own in zip(prompts(16), params)]
        self.assertEqual(together, alone)

    def test_more_prompts_than_may_wait(self):
        with LLM(MODEL, max_waiting=3, max_num_seqs=2, kv_cache_tokens=1024) as llm:
            outputs = llm.generate(prompts(50), SamplingParams(temperature=0, max_tokens=4))
        self.assertEqual(
            plain(outputs), plain(self.llm.generate(prompts(50), SamplingParams(temperature=0, max_tokens=4)))
        )

    def test_every_form_of_prompt(self):
        ids = self.llm.get_tokenizer().encode("the galley")
        params = SamplingParams(temperature=0, max_tokens=5)
        expected = plain(self.llm.generate("the galley", params))
        forms = [["the galley"], ids, [ids], {"prompt_token_ids": ids}, {"prompt": "the galley"}, tuple(ids)]
        for form in forms:
            outputs = self.llm.generate(form, params)
            self.assertEqual(plain(outputs), expected, form)
            self.assertEqual(outputs[0].prompt_token_ids, ids)
        both = self.llm.generate([ids, "the galley"], params)
        self.assertEqual(plain(both), expected * 2)
        self.assertEqual(self.llm.generate([]), [])
        for wrong in [7, None, {"prompt": "a", "prompt_token_ids": [1]}, {"promt": "a"}, [None]]:
            with self.assertRaises(TypeError, msg=repr(wrong)):
                self.llm.generate(wrong)
        for wrong in [b"a", [b"a"], bytearray(b"a"), {"prompt": b"a"}, {"prompt_token_ids": b"a"}]:
            with self.assertRaisesRegex(TypeError, "decode it first", msg=repr(wrong)):
                self.llm.generate(wrong)
        with self.assertRaises(galley.InvalidRequest):
            self.llm.generate([[-1]])

    def test_a_chat_is_its_rendered_prompt(self):
        messages = [{"role": "user", "content": "What is a galley?"}]
        tokenizer, params = self.llm.get_tokenizer(), SamplingParams(temperature=0, max_tokens=6)
        ids = tokenizer.apply_chat_template(messages)
        outputs = self.llm.chat([messages, messages], params)
        self.assertEqual([output.prompt_token_ids for output in outputs], [ids, ids])
        self.assertEqual(plain(outputs[:1]), plain(self.llm.generate(ids, params)))
        self.assertIn("What is a galley?", tokenizer.apply_chat_template(messages, tokenize=False))

    def test_an_answer_continues_the_last_message(self):
        messages = [
            {"role": "user", "content": "What is a galley?"},
            {"role": "assistant", "content": "A galley is"},
        ]
        tokenizer, params = self.llm.get_tokenizer(), SamplingParams(temperature=0, max_tokens=6)
        goes_on = self.llm.chat(messages, params, continue_final_message=True)[0]
        begins = self.llm.chat(messages, params)[0]
        self.assertTrue(tokenizer.decode(goes_on.prompt_token_ids).endswith("A galley is"))
        self.assertGreater(len(begins.prompt_token_ids), len(goes_on.prompt_token_ids))
        with self.assertRaises(galley.InvalidRequest):
            self.llm.chat(messages, params, continue_final_message=True, add_generation_prompt=True)

    def test_log_probabilities_may_be_switched_off_and_on(self):
        for asked, has_them in [(None, False), (False, False), (0, True), (True, True), (2, True)]:
            output = self.llm.generate("a", SamplingParams(logprobs=asked, max_tokens=3))[0].outputs[0]
            self.assertEqual(output.logprobs is not None, has_them, asked)
            self.assertEqual(output.cumulative_logprob is not None, has_them, asked)

    def test_a_call_waits_for_room_for_a_while(self):
        submit, refusals = Queue.submit, []

        def busy_at_first(*args):
            if len(refusals) < 3:
                refusals.append(galley.Busy("busy"))
                raise refusals[-1]
            submit(*args)

        with mock.patch.object(Queue, "submit", busy_at_first):
            self.assertEqual(len(self.llm.generate(["a", "b"], SamplingParams(max_tokens=3))), 2)
        with mock.patch.object(Queue, "submit", side_effect=galley.Busy("busy")), mock.patch("galley._llm.BUSY_S", 0.2):
            with self.assertRaises(galley.Busy):
                self.llm.generate(["a", "b"])

    def test_an_interrupt_after_a_wait_releases_the_events(self):
        queue = Queue(self.llm._handle.raw)
        body = {"prompt": "a", "max_tokens": 3, "ignore_eos": True}
        queue.submit(Answer(Request(body, None, "a"), None, []), 1)
        released = []

        class Interrupting:
            """The library, with an interrupt at the end of a wait."""

            def __getattr__(self, name):
                return getattr(library().lib, name)

            def galley_queue_wait(self, *args):
                library().check(library().lib.galley_queue_wait(*args))
                raise KeyboardInterrupt

            def galley_queue_release(self, *args):
                released.append(args[-1])
                return library().lib.galley_queue_release(*args)

        queue._library = copy.copy(library())
        queue._library.lib = Interrupting()
        with self.assertRaises(KeyboardInterrupt):
            queue.read(5000, lambda tag: None)
        self.assertEqual(len(released), 1)
        self.assertGreater(released[0], 0)
        queue.close()

    def test_text_survives_the_tokenizer(self):
        tokenizer = self.llm.get_tokenizer()
        for text in ["", "the galley", "Łódź °C \u2028 日本", "a\0b"]:
            self.assertEqual(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)), text)

    def test_an_answer_goes_on_as_if_never_interrupted(self):
        params = SamplingParams(temperature=0.9, presence_penalty=0.5, max_tokens=40, logprobs=1)
        whole = self.llm.generate("the galley", params)[0]
        first = params.clone()
        first.seed, first.max_tokens = whole.seed, 13
        cut = self.llm.generate("the galley", first)[0]
        again = params.clone()
        again.seed = cut.seed
        resume = {"generated": cut.outputs[0].token_ids, "fingerprint": cut.fingerprint}
        rest = self.llm.generate({"prompt_token_ids": cut.prompt_token_ids, "resume": resume}, again)[0]
        self.assertEqual(rest.resumed_text + rest.outputs[0].text, whole.outputs[0].text)
        self.assertEqual(rest.outputs[0].token_ids, whole.outputs[0].token_ids[13:])
        self.assertEqual(rest.outputs[0].logprobs, whole.outputs[0].logprobs[13:])
        resume["fingerprint"] = "another engine"
        with self.assertRaises(galley.InvalidRequest) as raised:
            self.llm.generate({"prompt_token_ids": cut.prompt_token_ids, "resume": resume}, again)
        self.assertEqual(raised.exception.field, "resume.fingerprint")

    def test_an_error_names_the_field_and_leaves_nothing_behind(self):
        params = [SamplingParams(max_tokens=180, ignore_eos=True)] * 3 + [SamplingParams(temperature=-1.0)]
        with self.assertRaises(galley.InvalidRequest) as raised:
            self.llm.generate(prompts(4), params)
        self.assertEqual(raised.exception.field, "temperature")
        self.assertIn("prompt 3", str(raised.exception))
        same = pickle.loads(pickle.dumps(raised.exception))
        self.assertEqual((type(same), same.field, same.code), (galley.InvalidRequest, "temperature", "invalid_request"))
        for number in [float("nan"), float("inf"), 1e300]:
            with self.assertRaises(galley.InvalidRequest):
                self.llm.generate("a", SamplingParams(temperature=number))
        self.assertTrue(wait_until(lambda: self.llm.stats()["kv_blocks"]["used"] == 0))

    def test_an_interrupt_ends_a_call_and_not_the_engine(self):
        params = SamplingParams(max_tokens=180, ignore_eos=True)
        since = interrupt_after(0.3)
        with self.assertRaises(KeyboardInterrupt):
            while True:
                self.llm.generate(prompts(400), params)
        self.assertLess(since(), 0.2)
        self.assertTrue(wait_until(lambda: self.llm.stats()["kv_blocks"]["used"] == 0))
        self.assertEqual(len(self.llm.generate("a", SamplingParams(max_tokens=3))), 1)

    def test_threads_share_an_engine(self):
        params = [SamplingParams(**settings_of(i)) for i in range(8)]
        expected = plain(self.llm.generate(prompts(8), params))
        results = {}

        def work(i):
            results[i] = plain(self.llm.generate(prompts(8), params))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([results[i] for i in range(8)], [expected] * 8)

    @unittest.skipUnless(hasattr(os, "fork"), "skipped: no fork")
    def test_a_forked_child_gets_an_error(self):
        code = (
            "import os, sys, galley\n"
            f"llm = galley.LLM({MODEL!r}, kv_cache_tokens=1024)\n"
            "if os.fork() == 0:\n"
            "    try: llm.generate('a')\n"
            "    except galley.Forked as error: print('child:', error, flush=True)\n"
            "    llm.close()\n"
            "    os._exit(0)\n"
            "os.wait()\n"
            "print('parent:', len(llm.generate('a')))\n"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        child, parent = done.stdout.splitlines()
        self.assertRegex(child, "^child: .*fork")
        self.assertEqual(parent, "parent: 1")

    def test_a_program_may_end_without_closing(self):
        code = (
            "import asyncio, galley\n"
            f"llm = galley.LLM({MODEL!r}, kv_cache_tokens=1024)\n"
            f"engine = galley.AsyncEngine({MODEL!r}, kv_cache_tokens=1024)\n"
            "async def main():\n"
            "    global stream\n"
            "    stream = engine.generate('a', galley.SamplingParams(max_tokens=180, ignore_eos=True))\n"
            "    await stream.__anext__()\n"
            "asyncio.run(main())\n"
            "print(len(llm.generate('a')))\n"
        )
        self.assertEqual(python(code), "1\n")


class Opening(unittest.TestCase):
    def test_progress_is_heard_in_the_callers_thread(self):
        heard = []
        LLM(
            MODEL, kv_cache_tokens=1024, on_progress=lambda p: heard.append((threading.get_ident(), p["stage"]))
        ).close()
        self.assertIn((threading.get_ident(), "load"), heard)

    def test_errors_say_what_is_wrong(self):
        with self.assertRaises(galley.ModelNotFound):
            LLM("no-such-model", download=False)
        with self.assertRaisesRegex(galley.InvalidSetting, "no-such-drafter"):
            LLM(MODEL, drafter="no-such-drafter")
        with self.assertRaises(galley.InvalidSetting) as raised:
            LLM(MODEL, max_modl_len=5)
        self.assertIn("max_model_len", str(raised.exception))
        with self.assertRaisesRegex(galley.InvalidSetting, "weights.*native, q8, q4"):
            LLM(MODEL, weights="bf16", dtype="f32")

    def test_weights_change_the_fingerprint(self):
        def fingerprint(weights):
            with LLM(MODEL, weights=weights, kv_cache_tokens=1024) as llm:
                return llm.info()["fingerprint"]

        self.assertEqual(fingerprint(None), fingerprint("bf16"))
        self.assertIn("-q8/", fingerprint("q8"))

    def test_settings_of_the_library_may_have_its_names(self):
        for drafters in [{"drafter": "ngram"}, {"drafters": ["ngram"]}]:
            for caching in [{"enable_prefix_caching": False}, {"prefix_caching": False}]:
                with LLM(MODEL, kv_cache_tokens=1024, **drafters, **caching) as llm:
                    info = llm.info()
                self.assertEqual((info["drafters"], info["prefix_caching"]), (["ngram"], False))
        with LLM(MODEL, kv_cache_tokens=1024, drafter="none") as llm:  # the control
            self.assertEqual((llm.info()["drafters"], llm.info()["prefix_caching"]), ([], True))
        with LLM(MODEL, kv_cache_tokens=1024) as llm:  # the engine chooses among Galley's own
            self.assertIn("ngram", llm.info()["drafters"])
        with self.assertRaisesRegex(TypeError, "'drafter' and 'drafters'"):
            LLM(MODEL, drafter="ngram", drafters=["ngram"])
        with self.assertRaisesRegex(TypeError, "'enable_prefix_caching' and 'prefix_caching'"):
            LLM(MODEL, enable_prefix_caching=False, prefix_caching=False)

    def test_a_closed_engine_says_so(self):
        llm = LLM(MODEL, kv_cache_tokens=1024)
        llm.close()
        llm.close()
        for call in [llm.stats, lambda: llm.generate("a"), lambda: llm.get_tokenizer().encode("a")]:
            with self.assertRaises(galley.Closed):
                call()

    def test_an_interrupt_ends_loading(self):
        with tempfile.TemporaryDirectory() as folder:
            # Loading waits until the pipe has a writer.
            pipe = os.path.join(folder, "model.gguf")
            os.mkfifo(pipe)
            since = interrupt_after(0.3)
            with self.assertRaises(KeyboardInterrupt):
                LLM(pipe)
            self.assertLess(since(), 0.2)
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))

    def test_a_program_that_interrupts_loading_ends_after_it(self):
        code = (
            "import atexit, os, sys, threading, time, galley\n"
            "pipe, case = sys.argv[1:]\n"
            "def interrupt():\n"
            "    while threading.active_count() < 3: time.sleep(0.001)\n"  # until the thread that loads is there
            "    os.kill(os.getpid(), 2)\n"
            "threading.Thread(target=interrupt, daemon=True).start()\n"
            "try: galley.LLM(pipe)\n"
            "except KeyboardInterrupt: print('interrupted', flush=True)\n"
            "if case == 'control': atexit.unregister(galley._engine._wait_for_openings)\n"
        )
        for case in ["once", "twice", "control"]:
            with tempfile.TemporaryDirectory() as folder:
                # Loading waits until the pipe has a writer.
                pipe = os.path.join(folder, "model.gguf")
                os.mkfifo(pipe)
                command = [sys.executable, "-I", "-c", code, pipe, case]
                with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
                    self.assertEqual(program.stdout.readline(), "interrupted\n")
                    if case == "control":
                        self.assertEqual(program.wait(10), 0)
                        continue
                    with self.assertRaises(subprocess.TimeoutExpired):
                        program.wait(0.5)
                    if case == "twice":
                        program.send_signal(signal.SIGINT)
                        self.assertEqual(program.wait(10), -signal.SIGINT)
                    else:
                        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
                        self.assertEqual(program.wait(10), 0)

    def test_every_shipped_drafter_is_found_and_changes_no_bit(self):
        features = galley.features()
        found = {drafter["name"]: os.path.realpath(drafter["path"]) for drafter in features["drafters"]}
        shipped = ["layer-skip", "ngram", "self-spec", "small-model", "snap-kv", "streaming-llm"]
        self.assertEqual([name for name in sorted(found) if found[name].startswith(os.path.realpath(TREE))], shipped)
        params = [SamplingParams(**{**settings_of(i), "n": 1}) for i in range(8)]
        with LLM(MODEL, kv_cache_tokens=4096) as llm:
            expected = plain(llm.generate(prompts(8), params))
        options = {"small-model": f"small-model,model={MODEL}"}
        for name in shipped:
            with LLM(MODEL, drafter=options.get(name, name), kv_cache_tokens=4096) as llm:
                outputs = llm.generate(prompts(8), params)
                self.assertEqual(plain(outputs), expected, name)
                drafted = [source for output in outputs for source in output.outputs[0].sources if source]
                self.assertEqual({source[0] for source in drafted} - {name}, set())
                if name == "small-model":  # a draft model equal to its target drafts right
                    self.assertTrue(drafted)
