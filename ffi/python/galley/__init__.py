"""Galley: LLM inference in this process, with the same bytes under any load and with any drafter.

    from galley import LLM, SamplingParams

    with LLM("smollm2-135m-instruct", drafter="ngram") as llm:
        outputs = llm.generate(["Once upon a time", "The capital of France is"], SamplingParams(temperature=0))
        for output in outputs:
            print(output.outputs[0].text)

``AsyncEngine`` streams answers to asyncio. ``python -m galley`` is the program ``galley``. The import loads neither the
shared library nor asyncio: the first use does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List

from ._errors import (
    Busy,
    Closed,
    Failed,
    Forked,
    GalleyError,
    InvalidArgument,
    InvalidRequest,
    InvalidSetting,
    LibraryBug,
    LoadFailed,
    ModelNotFound,
    Stopped,
    Unsupported,
)
from ._library import features
from ._llm import LLM
from ._outputs import CompletionOutput, Logprob, RequestOutput
from ._params import SamplingParams
from ._version import __version__

if TYPE_CHECKING:
    from ._async import AsyncEngine

__all__ = [
    "AsyncEngine",
    "Busy",
    "Closed",
    "CompletionOutput",
    "Failed",
    "Forked",
    "GalleyError",
    "InvalidArgument",
    "InvalidRequest",
    "InvalidSetting",
    "LLM",
    "LibraryBug",
    "LoadFailed",
    "Logprob",
    "ModelNotFound",
    "RequestOutput",
    "SamplingParams",
    "Stopped",
    "Unsupported",
    "__version__",
    "features",
]


def __getattr__(name: str) -> Any:
    if name == "AsyncEngine":
        from ._async import AsyncEngine

        return AsyncEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> List[str]:
    return sorted(__all__)
