"""The queue that delivers the events of requests, and the answers that grow from the events."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

from ._errors import GalleyError, error
from ._library import Handle, id_array, library, to_json
from ._outputs import CompletionOutput, Logprob, RequestOutput
from ._prompts import Request

#: Unread events of a queue, beyond which the library pauses its requests.
CAPACITY = 4096
#: Events that one call reads.
BATCH = 256


class Answer:
    """The output of one request, from its events."""

    def __init__(self, request: Request, request_id: Optional[str], drafters: Sequence[str]):
        self.request = request
        self.request_id = request_id
        #: The library's number of the request, once it is submitted.
        self.id = 0
        self.error: Optional[GalleyError] = None
        self.is_last = False
        self._drafters = drafters
        self._started: Dict[str, Any] = {}
        logprobs = request.body.get("logprobs")
        self._has_logprobs = logprobs is not None and logprobs is not False  # 0 is a number of alternatives
        self._parts: Dict[int, CompletionOutput] = {}
        self._texts: Dict[int, List[str]] = {}

    def start(self, started: Dict[str, Any]) -> None:
        """Takes over the library's report about the accepted request."""
        self._started = started
        self.id = started["id"]
        if self.request_id is None:
            self.request_id = f"request-{self.id}"

    @property
    def has_output(self) -> bool:
        """Whether :meth:`take` has something to return."""
        return bool(self._parts)

    def add_token(self, index: int, token: int, text: bytes, source: Tuple[int, int]) -> Optional[Dict[int, Logprob]]:
        """Adds a token. Returns the place of its log-probabilities, if the request asks for them."""
        part = self._parts.get(index) or self._new_part(index)
        part.token_ids.append(token)
        if text:
            self._texts[index].append(text.decode("utf-8"))
        part.sources.append((self._drafters[source[0]], source[1]) if source[0] >= 0 else None)
        if part.logprobs is None:
            return None
        part.logprobs.append({})
        return part.logprobs[-1]

    def finish(self, end: Dict[str, Any]) -> None:
        """Adds the end of a sequence."""
        index = end["index"]
        part = self._parts.get(index) or self._new_part(index)
        part.finish_reason = end["finish_reason"]
        part.stop_reason = end.get("stop_reason")
        part.usage = end.get("usage")

    def _new_part(self, index: int) -> CompletionOutput:
        part = CompletionOutput(index, logprobs=[] if self._has_logprobs else None)
        self._parts[index] = part
        self._texts[index] = []
        return part

    def clear(self) -> None:
        """Forgets the output since the last :meth:`take`."""
        self._parts, self._texts = {}, {}

    def take(self) -> RequestOutput:
        """All output since the last call."""
        parts, texts = self._parts, self._texts
        self.clear()
        for index, part in parts.items():
            part.text = "".join(texts[index])
        return RequestOutput(
            request_id=self.request_id or "",
            prompt=self.request.text,
            prompt_token_ids=self._started["prompt_token_ids"],
            outputs=[parts[index] for index in sorted(parts)],
            finished=self.is_last and self.error is None,
            seed=self._started["seed"],
            fingerprint=self._started["fingerprint"],
            resumed_text=self._started.get("resumed_text", ""),
        )


A = TypeVar("A", bound=Answer)


class Queue(Handle):
    """A queue of an engine."""

    def __init__(self, engine: Any):
        self._library = library()
        out = self._library.ffi.new("galley_queue **")
        self._library.check(self._library.lib.galley_queue_open(engine, CAPACITY, out))
        super().__init__(out[0], self._library.lib.galley_queue_close)
        self._events = self._library.ffi.new("galley_event[]", BATCH)
        self._n = self._library.ffi.new("size_t *")
        self._event_bytes = self._library.ffi.sizeof("galley_event")

    def fd(self) -> int:
        """The file descriptor that is readable while events are unread."""
        out = self._library.ffi.new("int32_t *")
        self._library.check(self._library.lib.galley_queue_fd(self.raw, out))
        return int(out[0])

    def submit(self, answer: Answer, tag: int) -> None:
        """Submits the request of an answer. Its events carry ``tag``."""
        lib, ffi = self._library.lib, self._library.ffi
        body = to_json(answer.request.body)
        ids = answer.request.ids
        pointer, n_ids = ffi.NULL, 0
        if ids is not None:
            # An empty prompt, too, has an address: NULL would mean that the prompt is in the JSON.
            numbers = id_array(ids)
            n_ids = len(numbers)
            pointer = ffi.from_buffer("uint32_t[]", numbers) if n_ids else ffi.new("uint32_t[1]")
        started = self._library.text(lib.galley_submit, self.raw, body, len(body), pointer, n_ids, tag, ffi.NULL)
        answer.start(json.loads(started))

    def cancel(self, request: int) -> None:
        """Ends the sequences of a request."""
        if not self.is_closed:
            self._library.ignore(self._library.lib.galley_cancel(self.raw, request))

    def read(self, timeout_ms: int, answer_of: Callable[[int], Optional[A]]) -> Tuple[List[A], List[A]]:
        """Waits for events and adds them to the answers of their tags.

        Returns the answers that have new events, and of these the ones that have ended.
        """
        lib, events = self._library.lib, self._events
        touched: Dict[int, A] = {}
        ended: List[A] = []
        self._n[0] = 0
        try:
            # Inside, so that an interrupt right after the call releases the events.
            self._library.check(lib.galley_queue_wait(self.raw, timeout_ms, events, self._event_bytes, BATCH, self._n))
            for i in range(self._n[0]):
                event = events[i]
                tag = event.tag
                answer = touched.get(tag) or answer_of(tag)
                if answer is None:
                    continue
                touched[tag] = answer
                self._add(answer, event)
                if answer.is_last:
                    ended.append(answer)
        finally:
            if self._n[0]:
                self._library.ignore(lib.galley_queue_release(self.raw, events, self._event_bytes, self._n[0]))
        return list(touched.values()), ended

    def _add(self, answer: Answer, event: Any) -> None:
        lib, ffi = self._library.lib, self._library.ffi
        kind, flags = event.kind, event.flags
        if kind == lib.GALLEY_TOKEN:
            token, n_bytes = event.token, event.text_len
            text = ffi.unpack(event.text, n_bytes) if n_bytes else b""
            logprobs = answer.add_token(event.index, token, text, (event.drafter, event.position))
            if logprobs is not None and flags & lib.GALLEY_HAS_LOGPROB:
                logprobs[token] = Logprob(event.logprob)
                for rank in range(event.n_top):
                    top = event.top[rank]
                    logprobs[top.token] = Logprob(top.logprob, rank + 1)
        elif kind == lib.GALLEY_FINISHED:
            answer.finish(json.loads(ffi.unpack(event.json, event.json_len)))
        elif kind == lib.GALLEY_ERROR:
            reason = json.loads(ffi.unpack(event.json, event.json_len))["error"]
            answer.error = error(reason["code"], reason["message"], reason.get("field"))
        if flags & lib.GALLEY_IS_LAST:
            answer.is_last = True
