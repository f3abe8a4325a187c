"""The shared library: loading, errors, texts and handles."""

from __future__ import annotations

import array
import functools
import json
import os
import weakref
from typing import Any, Iterable, List

from . import _errors

#: The packed files: bin, and lib with the drafters below it.
TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_tree")


@functools.lru_cache(maxsize=None)
def library() -> "Library":
    """The library, which the first call loads."""
    return Library()


class Library:
    """The functions of galley.h. A failed one raises an exception."""

    def __init__(self) -> None:
        from . import _cffi  # here, because an import of this package should load no shared library

        self.ffi = _cffi.ffi
        self.lib = self.ffi.dlopen(os.path.join(TREE, "lib", "libgalley.so.0"))
        version = self.lib.galley_abi_version()
        if version != self.lib.GALLEY_ABI_VERSION:
            raise ImportError(
                f"libgalley has ABI version {version}, and this package was built for another: install it anew"
            )
        self._codes = {
            getattr(self.lib, "GALLEY_" + code.upper(), None): code for code in (*_errors.CLASSES, "invalid_handle")
        }

    def check(self, error: Any) -> None:
        """Raises the error that a function returned, if it is one."""
        if error == self.ffi.NULL:
            return
        code = self._codes.get(self.lib.galley_error_code(error), "failed")
        message = self.ffi.string(self.lib.galley_error_message(error)).decode("utf-8", "replace")
        field = self.lib.galley_error_field(error)
        name = None if field == self.ffi.NULL else self.ffi.string(field).decode("utf-8", "replace")
        self.lib.galley_error_free(error)
        raise _errors.error(code, message, name)

    def ignore(self, error: Any) -> None:
        """Frees the error of a function whose failure does not matter."""
        self.lib.galley_error_free(error)

    def text(self, function: Any, *args: Any) -> str:
        """The text that a function writes to its last argument."""
        out = self.ffi.new("galley_string *")
        try:
            # Inside, so that an interrupt right after the call frees the text.
            self.check(function(*args, out))
            return str(self.ffi.unpack(out.ptr, out.len), "utf-8")
        finally:
            self.lib.galley_string_free(out)

    def ids(self, function: Any, *args: Any) -> List[int]:
        """The token ids that a function writes to its last argument."""
        out = self.ffi.new("galley_tokens *")
        try:
            self.check(function(*args, out))
            return self.ffi.unpack(out.ptr, out.len) if out.len else []
        finally:
            self.lib.galley_tokens_free(out)


def id_array(ids: Iterable[int]) -> "array.array[int]":
    """Token ids in the form that the library reads."""
    try:
        return array.array("I", ids)
    except (OverflowError, TypeError):
        raise _errors.InvalidRequest("token ids are integers from 0 to 4294967295", field="prompt") from None


def to_json(value: Any) -> bytes:
    """The value as JSON. Numbers that JSON cannot express reach the library, which refuses them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def features() -> Any:
    """The abilities of this build on this machine: version, backends, instruction sets, drafters and their folders."""
    return json.loads(library().text(library().lib.galley_features))


class Handle:
    """A handle of the library, closed by :meth:`close` or when no reference is left."""

    def __init__(self, handle: Any, close: Any):
        self.raw = handle
        self._finalizer = weakref.finalize(self, _close, close, handle)
        # At exit the process ends with all that the library holds.
        self._finalizer.atexit = False

    def close(self) -> None:
        """Closes the handle; a closed one is left alone."""
        self._finalizer()

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` has been called."""
        return not self._finalizer.alive


def _close(close: Any, handle: Any) -> None:
    library().ignore(close(handle))
