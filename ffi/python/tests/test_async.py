"""``AsyncEngine``: streams, cancellation, event loops."""

import asyncio
import gc
import random
import unittest

import galley
from galley import LLM, AsyncEngine, SamplingParams
from support import MODEL, SIZES, plain, prompts, settings_of, wait_until

ENDLESS = SamplingParams(max_tokens=180, ignore_eos=True)


async def whole(stream):
    """The parts of a stream as one answer."""
    whole = None
    async for output in stream:
        if whole is None:
            whole = output
            continue
        for part in output.outputs:
            known = next((other for other in whole.outputs if other.index == part.index), None)
            if known is None:
                whole.outputs.append(part)
                continue
            known.text += part.text
            known.token_ids += part.token_ids
            known.sources += part.sources
            if part.logprobs is not None:
                known.logprobs += part.logprobs
            known.finish_reason, known.stop_reason, known.usage = part.finish_reason, part.stop_reason, part.usage
        whole.finished = output.finished
    whole.outputs.sort(key=lambda part: part.index)
    return whole


class Streams(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.engine = AsyncEngine(MODEL, **SIZES)

    @classmethod
    def tearDownClass(cls):
        cls.engine.close()

    async def pool_is_empty(self):
        for _ in range(500):
            if self.engine.stats()["kv_blocks"]["used"] == 0:
                return True
            await asyncio.sleep(0.01)
        return False

    def test_streams_give_the_bytes_of_a_batch(self):
        params = [SamplingParams(**settings_of(i)) for i in range(64)]

        async def main():
            streams = [self.engine.generate(text, own) for text, own in zip(prompts(64), params)]
            return await asyncio.gather(*(whole(stream) for stream in streams))

        outputs = asyncio.run(main())
        self.assertTrue(all(output.finished for output in outputs))
        with LLM(MODEL, **SIZES) as llm:
            self.assertEqual(plain(outputs), plain(llm.generate(prompts(64), params)))

    def test_64_streams_with_random_cancellations_leave_an_empty_pool(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", end=" ", flush=True)
        rng = random.Random(seed)

        async def read(text, kind, after):
            n_tokens = 0
            stream = self.engine.generate(text, ENDLESS)
            async for output in stream:
                n_tokens += len(output.outputs[0].token_ids)
                if n_tokens < after:
                    continue
                if kind == "break":
                    break
                if kind == "raise":
                    raise RuntimeError("enough")
                if kind == "abort":
                    self.engine.abort(stream.request_id)
                if kind == "close":
                    await stream.aclose()
            return n_tokens

        async def main():
            kinds = [rng.choice(["break", "raise", "abort", "close", "cancel", "end"]) for _ in range(64)]
            reads = [read(text, kind, rng.randrange(1, 60)) for text, kind in zip(prompts(64), kinds)]
            tasks = [asyncio.ensure_future(own) for own in reads]
            for task, kind in zip(tasks, kinds):
                if kind == "cancel":
                    asyncio.get_running_loop().call_later(rng.random() * 0.1, task.cancel)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for kind, result in zip(kinds, results):
                if kind == "end":
                    self.assertEqual(result, ENDLESS.max_tokens)
                if kind == "raise":
                    self.assertIsInstance(result, RuntimeError)
            self.assertTrue(await self.pool_is_empty())

        asyncio.run(main())
        self.assertEqual(self.engine._running, {})

    def test_streams_hold_blocks_until_they_are_left(self):
        params = ENDLESS.clone()
        params.n = 4

        async def main():
            streams = [self.engine.generate(text, params) for text in prompts(64)]
            self.assertTrue(wait_until(lambda: self.engine.stats()["kv_blocks"]["used"] > 0))
            del streams
            gc.collect()
            self.assertEqual(self.engine._running, {})
            self.assertTrue(await self.pool_is_empty())

        asyncio.run(main())

    def test_event_loops_one_after_another(self):
        async def main():
            return await whole(self.engine.generate("the galley", SamplingParams(temperature=0, max_tokens=9)))

        first = asyncio.run(main())
        self.assertEqual(plain([first]), plain([asyncio.run(main())]))
        # The loop of this stream ends while it runs.
        loop = asyncio.new_event_loop()

        async def begin():
            stream = self.engine.generate("the galley", ENDLESS)
            await stream.__anext__()
            return stream

        stream = loop.run_until_complete(begin())
        loop.close()
        self.assertEqual(plain([first]), plain([asyncio.run(main())]))
        del stream
        self.assertTrue(asyncio.run(self.pool_is_empty()))

    def test_abort_ends_a_stream_with_its_reason(self):
        params = ENDLESS.clone()
        params.n = 64  # more events than the queue holds: the engine cannot have ended the request unseen

        async def main():
            stream = self.engine.generate("the galley", params, request_id="mine")
            await stream.__anext__()
            with self.assertRaises(ValueError):
                self.engine.generate("the galley", ENDLESS, request_id="mine")
            self.assertTrue(self.engine.abort("mine"))
            output = await whole(stream)
            reasons = {part.finish_reason for part in output.outputs}
            self.assertEqual((output.request_id, reasons), ("mine", {"cancelled"}))
            self.assertFalse(self.engine.abort("mine"))

        asyncio.run(main())

    def test_a_context_cancels_its_stream_at_its_end(self):
        params = ENDLESS.clone()
        params.n = 64

        async def main():
            named = self.engine.generate("the galley", params)
            async for _ in named:
                break
            self.assertEqual(list(self.engine._running), [named.request_id])  # a name keeps a stream
            async with named as stream:
                async for _ in stream:
                    break
            self.assertEqual(self.engine._running, {})
            self.assertTrue(await self.pool_is_empty())

        asyncio.run(main())

    def test_a_stream_that_is_closed_is_at_its_end(self):
        params = ENDLESS.clone()
        params.n = 64

        async def main():
            stream = self.engine.generate("the galley", params)
            while not stream._running.has_output:
                await asyncio.sleep(0.001)
            await stream.aclose()
            self.assertEqual([output async for output in stream], [])
            # A task that waits for a part learns of the end, too.
            stream = self.engine.generate("the galley", ENDLESS)
            reader = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0)
            await stream.aclose()
            with self.assertRaises(StopAsyncIteration):
                await asyncio.wait_for(reader, 5)

        asyncio.run(main())

    def test_a_cut_answer_is_not_finished(self):
        params = ENDLESS.clone()
        params.n = 64

        async def main():
            engine = AsyncEngine(MODEL, **SIZES)
            stream = engine.generate("the galley", params)
            while not stream._running.has_output:
                await asyncio.sleep(0.001)
            engine.close()
            outputs = []
            with self.assertRaises(galley.Closed):
                async for output in stream:
                    outputs.append(output)
            self.assertEqual([output.finished for output in outputs], [False])

        asyncio.run(main())

    def test_errors_are_raised_where_they_are_made(self):
        async def main():
            with self.assertRaises(galley.InvalidRequest):
                self.engine.generate("the galley", SamplingParams(top_p=2.0))
            engine = AsyncEngine(MODEL, kv_cache_tokens=1024, max_num_seqs=1, max_waiting=2)
            streams = []
            with self.assertRaises(galley.Busy):
                for _ in range(100):
                    streams.append(engine.generate("the galley", ENDLESS))
            engine.close()
            with self.assertRaises(galley.Closed):
                await whole(streams[-1])
            with self.assertRaises(galley.Closed):
                engine.generate("the galley", ENDLESS)

        asyncio.run(main())
        with self.assertRaises(RuntimeError):  # no event loop runs
            self.engine.generate("the galley", ENDLESS)
