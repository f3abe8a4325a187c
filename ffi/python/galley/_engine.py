"""An open engine: loading with progress, facts, statistics, texts."""

from __future__ import annotations

import atexit
import copy
import json
import os
import sys
import threading
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Union

from ._library import Handle, id_array, library, to_json
from ._prompts import Messages

#: Called while a model loads, with {"stage": "load", "done_layers", "total_layers"} or
#: {"stage": "download", "file", "done_bytes", "total_bytes"}.
Progress = Callable[[Mapping[str, Any]], None]

#: Waits last no longer, so that KeyboardInterrupt is raised soon.
SLICE_S = 0.1

#: Settings of the library that have another name here.
_OWN_NAMES = {"drafters": "drafter", "prefix_caching": "enable_prefix_caching"}


class Engine:
    """The part that ``LLM`` and ``AsyncEngine`` have in common.

    ``model`` is a known name, a hub id, a directory or a GGUF file; a model that is not here is fetched unless
    ``download`` is false. ``drafter`` is a name with options, such as ``"streaming-llm,budget=512"``, or a list of
    them; a drafter changes the speed of an answer and never its tokens. The other settings are those of
    ``galley_engine_open``; None leaves a setting to the engine. A setting that is given by two names, such as
    ``drafter`` and ``drafters``, is a ``TypeError``.

    ``on_progress`` is called in this thread while the model loads. Without it, a terminal on standard error gets a
    line.
    """

    def __init__(
        self,
        model: str,
        *,
        drafter: Union[None, str, Sequence[str]] = None,
        download: bool = True,
        device: Optional[str] = None,
        dtype: Optional[str] = None,
        weights: Optional[str] = None,
        threads: Optional[int] = None,
        max_model_len: Optional[int] = None,
        max_num_seqs: Optional[int] = None,
        max_num_batched_tokens: Optional[int] = None,
        enable_prefix_caching: Optional[bool] = None,
        on_progress: Optional[Progress] = None,
        **settings: Any,
    ):
        drafters = [drafter] if isinstance(drafter, str) else drafter
        named = dict(
            model=str(model),
            download=download,
            drafters=None if drafters is None else list(drafters),
            device=device,
            dtype=dtype,
            weights=weights,
            threads=threads,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            prefix_caching=enable_prefix_caching,
        )
        for name in settings:
            if named.get(name) is not None:
                raise TypeError(f"{_OWN_NAMES[name]!r} and {name!r} are one setting: give one of them")
        given = {key: value for key, value in {**named, **settings}.items() if value is not None}
        line = None if on_progress else _Line.of_terminal(str(model))
        try:
            self._handle = _Opening(given).wait(on_progress or (line.show if line else None))
        finally:
            if line:
                line.clear()
        self._info: Dict[str, Any] = json.loads(library().text(library().lib.galley_engine_info, self._handle.raw))

    def close(self) -> None:
        """Ends the engine and frees its memory. Requests that run elsewhere are finished first."""
        self._handle.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def info(self) -> Dict[str, Any]:
        """Facts of the engine: model, device, formats, fingerprint, drafters, limits."""
        return copy.deepcopy(self._info)

    def stats(self) -> Dict[str, Any]:
        """Statistics of the engine as of its last step."""
        stats: Dict[str, Any] = json.loads(library().text(library().lib.galley_engine_stats, self._handle.raw))
        return stats

    def get_tokenizer(self) -> "Tokenizer":
        """The model's tokenizer and chat template."""
        return Tokenizer(self._handle)

    def _drafters(self) -> List[str]:
        """Names of the drafters, by the number that an event has."""
        return list(self._info["drafters"])


class Tokenizer:
    """The tokenizer and the chat template of a model."""

    def __init__(self, handle: Handle):
        self._handle = handle

    def encode(self, text: str, add_special_tokens: bool = True) -> List[int]:
        """The token ids of a text, with the begin and end tokens that the model expects unless told otherwise."""
        lib, data = library().lib, text.encode("utf-8", "surrogatepass")
        flags = lib.GALLEY_ADD_SPECIAL if add_special_tokens else 0
        return library().ids(lib.galley_tokenize, self._handle.raw, data, len(data), flags)

    def decode(self, token_ids: Union[int, Sequence[int]], skip_special_tokens: bool = False) -> str:
        """The text of token ids. Bytes that are not UTF-8 become U+FFFD."""
        lib, ffi = library().lib, library().ffi
        ids = id_array([token_ids] if isinstance(token_ids, int) else token_ids)
        flags = lib.GALLEY_SKIP_SPECIAL if skip_special_tokens else 0
        pointer = ffi.from_buffer("uint32_t[]", ids) if ids else ffi.NULL
        return library().text(lib.galley_detokenize, self._handle.raw, pointer, len(ids), flags)

    def apply_chat_template(self, messages: Messages, tokenize: bool = True, **template: Any) -> Union[str, List[int]]:
        """The prompt that the chat template makes of messages: its token ids, or its text.

        ``template`` may have ``tools``, ``chat_template_kwargs``, ``add_generation_prompt`` (true without it) and
        ``continue_final_message``.
        """
        given = {key: value for key, value in template.items() if value is not None}
        body = to_json({"messages": list(messages), **given})
        text = library().text(library().lib.galley_chat_render, self._handle.raw, body, len(body))
        return self.encode(text, add_special_tokens=False) if tokenize else text


class _Opening:
    """Opens an engine on a thread of its own, so that KeyboardInterrupt reaches the caller while the library works."""

    def __init__(self, settings: Mapping[str, Any]):
        self._settings = to_json(settings)
        self._lock = threading.Lock()
        self._is_abandoned = False
        self._handle: Optional[Handle] = None
        self._error: Optional[BaseException] = None
        self._progress: Optional[bytes] = None
        #: Set when the library has returned. An interrupted ``Thread.join`` may mark a running thread as ended.
        self.has_ended = threading.Event()

    def wait(self, on_progress: Optional[Progress]) -> Handle:
        """Opens, calls ``on_progress`` in this thread, and returns the handle."""
        thread = threading.Thread(target=self._open, name="galley-open", daemon=True)
        try:
            thread.start()
            while not self.has_ended.wait(SLICE_S):
                self._report(on_progress)
            self._report(on_progress)
        except BaseException:
            # The library cannot stop loading: the thread closes the engine as soon as it is open. A program that ends
            # before waits for the thread.
            with self._lock:
                self._is_abandoned = True
                handle, self._handle = self._handle, None
            if handle:
                handle.close()
            raise
        if self._error:
            raise self._error
        assert self._handle is not None, "the thread has ended with a handle or an error"
        return self._handle

    def _report(self, on_progress: Optional[Progress]) -> None:
        progress, self._progress = self._progress, None
        if progress and on_progress:
            on_progress(json.loads(progress))

    def _open(self) -> None:
        _OPENINGS.add(self)
        try:
            handle = self._open_engine()
            with self._lock:
                if not self._is_abandoned:
                    self._handle = handle
                    return
            handle.close()
        except BaseException as error:  # raised again in the caller's thread
            self._error = error
        finally:
            _OPENINGS.discard(self)
            self.has_ended.set()

    def _open_engine(self) -> Handle:
        ffi, lib = library().ffi, library().lib

        def hear(_user: Any, text: Any, n_bytes: int) -> None:
            self._progress = ffi.unpack(text, n_bytes)

        callback = ffi.callback("galley_progress_fn", hear)
        out = ffi.new("galley_engine **")
        library().check(lib.galley_engine_open(self._settings, len(self._settings), callback, ffi.NULL, out))
        return Handle(out[0], lib.galley_engine_close)


#: The openings in progress. Their threads do not exist in a forked process.
_OPENINGS: Set[_Opening] = set()
os.register_at_fork(after_in_child=_OPENINGS.clear)


@atexit.register
def _wait_for_openings() -> None:
    """Waits until no engine is being opened. An interrupt meanwhile ends the process.

    The library calls ``hear`` while it loads. In an interpreter that is ending, the call would end the thread with
    frames of the library on its stack, which aborts the process.
    """
    openings = list(_OPENINGS)
    if not openings:
        return
    import signal

    handler = signal.getsignal(signal.SIGINT)
    # As an exception, the interrupt would end the wait and not the process.
    is_replaced = handler is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if is_replaced:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for opening in openings:
        opening.has_ended.wait()
    if is_replaced:
        signal.signal(signal.SIGINT, handler)


class _Line:
    """One line on a terminal, which grows while a model loads and then vanishes."""

    def __init__(self, model: str):
        self._model = model

    @classmethod
    def of_terminal(cls, model: str) -> Optional["_Line"]:
        """A line on standard error, if that is a terminal."""
        return cls(model) if sys.stderr is not None and sys.stderr.isatty() else None

    def show(self, progress: Mapping[str, Any]) -> None:
        """Shows a progress in place of an earlier one."""
        if progress["stage"] == "download":
            total = progress.get("total_bytes")
            of = f" of {total / 1e6:.0f}" if total else ""
            text = f"downloading {progress['file']}: {progress['done_bytes'] / 1e6:.0f}{of} MB"
        else:
            text = f"loading {self._model}: {progress['done_layers']} of {progress['total_layers']} layers"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Removes the line."""
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
