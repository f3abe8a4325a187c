"""The answers: outputs of requests, in the shape of vLLM's."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Tuple, Union


@dataclasses.dataclass
class Logprob:
    """Log-probability of a token."""

    logprob: float
    #: 1 for the most likely token. None: not among the reported most likely tokens.
    rank: Optional[int] = None


@dataclasses.dataclass
class CompletionOutput:
    """One sequence of an answer. In a stream, its part since the last output."""

    #: Number of the sequence, below ``SamplingParams.n``.
    index: int
    #: Whole UTF-8 characters: the text of a character that spans tokens comes with its last token.
    text: str = ""
    token_ids: List[int] = dataclasses.field(default_factory=list)
    #: For each token, the token itself and the most likely tokens. None: not asked for.
    logprobs: Optional[List[Dict[int, Logprob]]] = None
    #: For each token, its drafter and its position in the draft. None: the target alone sampled it.
    sources: List[Optional[Tuple[str, int]]] = dataclasses.field(default_factory=list)
    #: "stop", "length" or "cancelled". None: not finished.
    finish_reason: Optional[str] = None
    #: The stop token or stop text that ended the output. None: an end token of the model, or no stop.
    stop_reason: Union[None, int, str] = None
    #: Token counts and times of the finished sequence, as the library reports them.
    usage: Optional[Dict[str, Any]] = None

    @property
    def cumulative_logprob(self) -> Optional[float]:
        """Sum of the tokens' log-probabilities. None: not asked for."""
        if self.logprobs is None:
            return None
        return sum(entry[token].logprob for token, entry in zip(self.token_ids, self.logprobs))

    def finished(self) -> bool:
        """Whether the sequence has ended."""
        return self.finish_reason is not None


@dataclasses.dataclass
class RequestOutput:
    """The answer to one prompt. In a stream, its part since the last output."""

    request_id: str
    #: The prompt as given, if it was a text.
    prompt: Optional[str]
    prompt_token_ids: List[int]
    outputs: List[CompletionOutput]
    #: Whether all sequences have ended.
    finished: bool
    #: Seed of the noise, given or drawn.
    seed: int
    #: The engine's fingerprint: engines with the same one give the same bytes.
    fingerprint: str
    #: Final text of the resumed tokens, which the text of ``outputs`` continues. Empty: nothing was resumed.
    resumed_text: str = ""
