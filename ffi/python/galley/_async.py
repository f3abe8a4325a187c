"""``AsyncEngine``: answers as asynchronous iterators of their parts."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ._engine import Engine
from ._errors import Closed, GalleyError
from ._outputs import RequestOutput
from ._params import SamplingParams
from ._prompts import Messages, Prompt, Request
from ._queue import Answer, Queue


class AsyncEngine(Engine):
    """A model that streams answers to asyncio.

    All requests of an event loop share one queue and one file descriptor that wakes the loop: no thread waits. Several
    loops may use the engine, one after another or in several threads. Loading blocks: inside a running loop, use
    ``await asyncio.to_thread(AsyncEngine, model)``.
    """

    def __init__(self, model: str, **settings: Any):
        super().__init__(model, **settings)
        self._lock = threading.Lock()
        self._hubs: Dict[asyncio.AbstractEventLoop, "_Hub"] = {}
        self._running: Dict[str, "_Running"] = {}

    def generate(
        self, prompt: Prompt, sampling_params: Optional[SamplingParams] = None, request_id: Optional[str] = None
    ) -> "Stream":
        """Submits a prompt and returns an asynchronous iterator of the parts of its answer.

        Call it inside a running event loop. The request starts at once; an error in it, and ``Busy``, are raised here.
        A slow reader gets several tokens in one part.

        The request is cancelled at the end of ``async with engine.generate(...) as stream``, by ``stream.aclose()``,
        by the cancellation of the task that reads, and when no reference to the iterator is left. So ``break`` cancels
        it in ``async for part in engine.generate(...)``, and not while the iterator has a name.
        """
        return self._stream(Request.of_prompt(prompt, sampling_params or SamplingParams()), request_id)

    def chat(
        self,
        messages: Messages,
        sampling_params: Optional[SamplingParams] = None,
        request_id: Optional[str] = None,
        *,
        add_generation_prompt: Optional[bool] = None,
        continue_final_message: bool = False,
        tools: Optional[List[Dict[str, Any]]] = None,
        chat_template_kwargs: Optional[Mapping[str, Any]] = None,
    ) -> "Stream":
        """The same as :meth:`generate`, for an answer to messages: see ``LLM.chat``."""
        template = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message or None,
            "tools": tools,
            "chat_template_kwargs": chat_template_kwargs,
        }
        return self._stream(Request.of_chat(messages, sampling_params or SamplingParams(), template), request_id)

    def abort(self, request_id: str) -> bool:
        """Cancels a request: its iterator ends after an output with the reason "cancelled".

        May be called from any thread. Returns whether the request was running.
        """
        running = self._running.get(request_id)
        if running is None:
            return False
        running.hub.queue.cancel(running.id)
        return True

    def close(self) -> None:
        """Ends the engine, and cancels all requests. Their iterators raise ``Closed``."""
        with self._lock:
            hubs, self._hubs = list(self._hubs.values()), {}
        for hub in hubs:
            hub.close()
        super().close()

    def _stream(self, request: Request, request_id: Optional[str]) -> "Stream":
        if request_id in self._running:
            raise ValueError(f"request_id {request_id!r} is in use")
        hub = self._hub(asyncio.get_running_loop())
        running = _Running(hub, request, request_id, self._drafters())
        hub.start(running)
        return Stream(running)

    def _hub(self, loop: asyncio.AbstractEventLoop) -> "_Hub":
        """The hub of a loop. Hubs of closed loops end, and with them requests that cannot be read any more."""
        with self._lock:
            for other in [other for other in self._hubs if other.is_closed()]:
                self._hubs.pop(other).close()
            if loop not in self._hubs:
                self._hubs[loop] = _Hub(self._handle.raw, loop, self._running)
            return self._hubs[loop]


class Stream:
    """An asynchronous iterator of the parts of an answer, and a context that cancels the request at its end.

    The request is cancelled, too, when no reference to the iterator is left.
    """

    def __init__(self, running: "_Running"):
        self._running = running

    @property
    def request_id(self) -> str:
        """The name of the request, for ``AsyncEngine.abort``."""
        return self._running.request_id or ""

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> RequestOutput:
        running = self._running
        try:
            while not running.has_output:
                if running.error:
                    raise running.error
                if running.is_last:
                    raise StopAsyncIteration
                await running.wait()
        except asyncio.CancelledError:
            self._leave()
            raise
        return running.take()

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._leave()

    async def aclose(self) -> None:
        """Cancels the request, if it has not ended. The iterator is at its end then, without unread output."""
        self._leave()

    def __del__(self) -> None:
        self._leave()

    def _leave(self) -> None:
        running = self._running
        running.clear()
        if not running.is_last:
            running.is_last = True
            running.hub.cancel(running)
            running.wake()


class _Running(Answer):
    """The answer of a stream. The hub holds it, and not the iterator: an iterator without a reader must be freed."""

    def __init__(self, hub: "_Hub", request: Request, request_id: Optional[str], drafters: Sequence[str]):
        super().__init__(request, request_id, drafters)
        self.hub = hub
        #: The number that the events of the request carry.
        self.tag = 0
        self._waiter: Optional["asyncio.Future[None]"] = None

    async def wait(self) -> None:
        """Waits until the next :meth:`wake`."""
        if self._waiter is not None:
            raise RuntimeError("two tasks read one stream")
        self._waiter = self.hub.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Lets the reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Hub:
    """The queue of an event loop and the running requests whose events it delivers."""

    def __init__(self, engine: Any, loop: asyncio.AbstractEventLoop, by_id: Dict[str, _Running]):
        self.loop = loop
        self.queue = Queue(engine)
        self._fd = self.queue.fd()
        self._is_watching = False
        self._tags = itertools.count(1)
        self._running: Dict[int, _Running] = {}
        self._by_id = by_id

    def start(self, running: _Running) -> None:
        """Submits the request of ``running``."""
        running.tag = next(self._tags)
        self.queue.submit(running, running.tag)
        self._running[running.tag] = running
        self._by_id[running.request_id or ""] = running
        if not self._is_watching:
            self.loop.add_reader(self._fd, self._read)
            self._is_watching = True

    def cancel(self, running: _Running) -> None:
        """Cancels a request whose iterator has been left. Its last event wakes the loop once more."""
        self._forget(running)
        self.queue.cancel(running.id)

    def close(self) -> None:
        """Closes the queue; iterators that are waiting raise ``Closed``. May be called from any thread."""
        if self.loop.is_closed():
            self.queue.close()
        elif self.loop.is_running() and asyncio._get_running_loop() is not self.loop:
            self.loop.call_soon_threadsafe(self._close)
        else:
            self._close()

    def _close(self) -> None:
        self._stop_watching()
        self.queue.close()
        self._fail(Closed("the engine is closed"))

    def _read(self) -> None:
        try:
            touched, ended = self.queue.read(0, self._running.get)
        except GalleyError as error:
            self._stop_watching()
            self._fail(error)
            return
        for running in ended:
            self._forget(running)
        for running in touched:
            running.wake()
        if not self._running:
            # Without a request, neither the loop nor this hub holds the engine.
            self._stop_watching()

    def _fail(self, error: GalleyError) -> None:
        for running in list(self._running.values()):
            running.error, running.is_last = error, True
            self._forget(running)
            running.wake()

    def _forget(self, running: _Running) -> None:
        self._running.pop(running.tag, None)
        self._by_id.pop(running.request_id or "", None)

    def _stop_watching(self) -> None:
        if self._is_watching:
            self._is_watching = False
            self.loop.remove_reader(self._fd)
