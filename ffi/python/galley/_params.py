"""Sampling parameters: the settings of a request beside its prompt."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any, Dict, List, Optional, Sequence, Union


def refuse_unknown(owner: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raises a TypeError that names the nearest known name, if one of ``names`` is not known."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise TypeError(f"{owner}() has no parameter {name!r}{hint}")


@dataclasses.dataclass(init=False)
class SamplingParams:
    """The settings of a request. Names and defaults are vLLM's where the meaning is the same.

    All parameters are keywords. The library checks the values when a request is submitted, and an
    ``InvalidRequest`` names the parameter.
    """

    #: Sequences that answer one prompt.
    n: int = 1
    #: Tokens to generate, at most. None: until the model ends or the context is full.
    max_tokens: Optional[int] = 16
    #: Tokens before which no stop condition applies.
    min_tokens: int = 0
    #: 0 takes the most likely token always.
    temperature: float = 1.0
    #: Probability of the tokens to sample from. 1: all.
    top_p: float = 1.0
    #: Number of tokens to sample from. 0 and -1: all.
    top_k: int = 0
    #: Least probability of a token to sample, as a share of the largest.
    min_p: float = 0.0
    #: Divides or multiplies logits of tokens in the prompt or the output. 1: off.
    repetition_penalty: float = 1.0
    #: Subtracted from logits of tokens in the output.
    presence_penalty: float = 0.0
    #: Subtracted from logits of tokens in the output, for each occurrence.
    frequency_penalty: float = 0.0
    #: Token id to the number that is added to its logit.
    logit_bias: Optional[Dict[int, float]] = None
    #: Number of the most likely tokens to report with each token. 0 and True: the token's own log-probability alone.
    #: None and False: no log-probabilities.
    logprobs: Union[None, bool, int] = None
    #: Seed of the noise. None: drawn by the engine, and reported as ``RequestOutput.seed``.
    seed: Optional[int] = None
    #: Texts that end the output.
    stop: Union[None, str, List[str]] = None
    #: Tokens that end the output.
    stop_token_ids: Optional[List[int]] = None
    #: Whether the output contains the text of ``stop`` that ended it.
    include_stop_str_in_output: bool = False
    #: Whether to go on after the model's end token.
    ignore_eos: bool = False
    #: Requests of a lower number are admitted first.
    priority: int = 0
    #: Requests of different salts share no cached prefix, and no earlier output in which a drafter looks.
    cache_salt: Union[None, int, str] = None
    #: Name of the drafter, or "off". None: the engine's first drafter.
    drafter: Optional[str] = None
    #: Draft tokens per round. None: the engine's setting.
    draft_length: Optional[int] = None
    #: Tokens of KV that a draft may read. None: the engine's setting.
    kv_budget: Optional[int] = None
    #: How drafts are verified: "equality" (the same bytes as without drafts) or "rejection" (the same distribution).
    verify: Optional[str] = None

    def __init__(self, **parameters: Any):
        fields = dataclasses.fields(self)
        refuse_unknown(type(self).__name__, list(parameters), [field.name for field in fields])
        for field in fields:
            setattr(self, field.name, parameters.get(field.name, field.default))

    def clone(self) -> "SamplingParams":
        """A copy that can be changed without a change of this one."""
        return dataclasses.replace(self)

    def to_request(self) -> Dict[str, Any]:
        """The parameters that differ from the library's defaults, as keys of a request."""
        fields = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {
            field.name: value
            for field, value in fields
            if value is not None and (value != field.default or field.name in _ALWAYS)
        }


#: Parameters whose default here may be another than that of the library.
_ALWAYS = ("max_tokens",)
