"""The exceptions of this package: one class for each error code of the library."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple, Type


class GalleyError(Exception):
    """An error of the library. The text of the exception is the library's sentence.

    ``code`` is the library's name for the kind of error; every known code has a subclass.
    """

    code = "failed"

    def __init__(self, message: str, *, code: Optional[str] = None, field: Optional[str] = None):
        super().__init__(message)
        self.message = message
        #: The key of the request or of the settings that the error is about, such as ``"temperature"``.
        self.field = field
        if code is not None:
            self.code = code

    def __reduce__(self) -> Tuple[Any, ...]:
        return _restored, (type(self), self.message, self.code, self.field)


def _restored(kind: Type[GalleyError], message: str, code: str, field: Optional[str]) -> GalleyError:
    return kind(message, code=code, field=field)


class InvalidRequest(GalleyError, ValueError):
    """A request is not allowed. ``field`` names its key."""

    code = "invalid_request"


class InvalidSetting(GalleyError, ValueError):
    """A setting of the engine is not allowed. ``field`` names its key."""

    code = "invalid_setting"


class InvalidArgument(GalleyError, ValueError):
    """An argument of a call is out of its range or no Unicode text."""

    code = "invalid_argument"


class ModelNotFound(GalleyError):
    """The model is not on this machine, or could not be fetched."""

    code = "model_not_found"


class LoadFailed(GalleyError):
    """The model or a drafter cannot be loaded here: its files or the memory of the machine do not allow it."""

    code = "load_failed"


class Busy(GalleyError):
    """As many requests wait as ``max_waiting`` allows. Submit again when some have ended.

    ``LLM`` does so by itself while requests of the same call run, and for 5 seconds otherwise.
    """

    code = "busy"


class Stopped(GalleyError):
    """The engine accepts no requests any more."""

    code = "stopped"


class Closed(GalleyError):
    """The engine is closed."""

    code = "closed"


class Forked(GalleyError):
    """This process was forked after its parent had opened an engine: fork first, or use the start method "spawn"."""

    code = "forked"


class Unsupported(GalleyError):
    """This build, system or model cannot do it."""

    code = "unsupported"


class Failed(GalleyError):
    """The operation began and could not be finished."""

    code = "failed"


class LibraryBug(GalleyError):
    """A fault of Galley. The engine may be used further; please report the message."""

    code = "bug"


#: The class of each code. The constant of galley.h is the code in capitals after GALLEY_.
CLASSES: Dict[str, Type[GalleyError]] = {kind.code: kind for kind in GalleyError.__subclasses__()}


def error(code: str, message: str, field: Optional[str] = None) -> GalleyError:
    """The exception for an error of the library."""
    return CLASSES.get(code, GalleyError)(message, code=code, field=field or None)
