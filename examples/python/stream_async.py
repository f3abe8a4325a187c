#!/usr/bin/env python3
"""A writing service for the local machine: a connection sends the beginning of a text, and gets the rest as it comes.

    stream_async.py smollm2-135m-instruct --port 7070 &
    echo 'Once upon a time' | nc -N localhost 7070

All connections share one engine and one thread. A connection that is cut cancels its request, which frees its memory.
"""

import argparse
import asyncio
import sys

from galley import AsyncEngine, Busy, GalleyError, SamplingParams

MAX_PROMPT_BYTES = 65536


class Service:
    """Answers connections with one engine."""

    def __init__(self, engine, params):
        self.engine = engine
        self.params = params

    async def answer(self, reader, writer):
        """Serves one connection."""
        try:
            prompt = (await reader.readline()).decode("utf-8").rstrip("\n")
            async with self.engine.generate(prompt, self.params) as stream:
                async for output in stream:
                    writer.write(output.outputs[0].text.encode())
                    # Raises when the other side has gone: the block is left, and the request is cancelled.
                    await writer.drain()
            writer.write(b"\n")
        except Busy:
            writer.write(b"error: busy, try again later\n")
        except (GalleyError, ValueError) as error:
            writer.write(f"error: {error}\n".encode())
        except ConnectionError:
            pass
        finally:
            writer.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a known name, a hub id, a directory or a GGUF file")
    parser.add_argument("--port", type=int, default=7070, help="0: a free one")
    parser.add_argument("--drafter", help="such as ngram, or streaming-llm,budget=512")
    parser.add_argument("--max-tokens", type=int, default=200)
    args = parser.parse_args()

    engine = await asyncio.to_thread(AsyncEngine, args.model, drafter=args.drafter)
    with engine:
        service = Service(engine, SamplingParams(max_tokens=args.max_tokens, temperature=0.7))
        server = await asyncio.start_server(service.answer, "127.0.0.1", args.port, limit=MAX_PROMPT_BYTES)
        print(f"listening on port {server.sockets[0].getsockname()[1]}", file=sys.stderr, flush=True)
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
