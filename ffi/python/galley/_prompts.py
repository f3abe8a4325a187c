"""Prompts in all their forms, and the requests that they become."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from ._params import SamplingParams, refuse_unknown

#: One prompt: a text, token ids, or a dict with "prompt" or "prompt_token_ids", and perhaps "resume".
Prompt = Union[str, Sequence[int], Mapping[str, Any]]
#: Messages of a chat.
Messages = Sequence[Mapping[str, Any]]

_KEYS = ("prompt", "prompt_token_ids", "resume")


@dataclasses.dataclass
class Request:
    """A request as the library takes it."""

    #: The JSON, without the prompt's ids.
    body: Dict[str, Any]
    #: Ids of the prompt, if it was given so.
    ids: Optional[Sequence[int]]
    #: Text of the prompt, if it was given so.
    text: Optional[str]

    @classmethod
    def of_prompt(cls, prompt: Prompt, params: SamplingParams) -> "Request":
        """The request for one prompt."""
        body = params.to_request()
        _refuse_bytes(prompt)
        if isinstance(prompt, str):
            return cls({**body, "prompt": prompt}, None, prompt)
        if not isinstance(prompt, Mapping):
            return cls(body, prompt, None)
        refuse_unknown("prompt", list(prompt), _KEYS)
        if ("prompt" in prompt) == ("prompt_token_ids" in prompt):
            raise TypeError('a prompt has either "prompt", a text, or "prompt_token_ids"')
        for key in ("prompt", "prompt_token_ids"):
            _refuse_bytes(prompt.get(key))
        if prompt.get("resume") is not None:
            body["resume"] = prompt["resume"]
        if "prompt" in prompt:
            return cls({**body, "prompt": prompt["prompt"]}, None, prompt["prompt"])
        return cls(body, prompt["prompt_token_ids"], None)

    @classmethod
    def of_chat(cls, messages: Messages, params: SamplingParams, template: Mapping[str, Any]) -> "Request":
        """The request for an answer to messages; ``template`` has the keys for the chat template."""
        given = {key: value for key, value in template.items() if value is not None}
        return cls({**params.to_request(), "messages": list(messages), **given}, None, None)


def prompts_of(prompts: Union[Prompt, Sequence[Prompt]]) -> List[Prompt]:
    """The prompts of an argument that may be one prompt or several."""
    if isinstance(prompts, (str, Mapping)):
        return [prompts]
    _refuse_bytes(prompts)
    if not isinstance(prompts, Sequence) and not hasattr(prompts, "__array__"):
        raise TypeError(f"prompts are texts, lists of token ids or dicts, not {type(prompts).__name__}")
    listed: List[Any] = list(prompts)
    if listed and hasattr(listed[0], "__index__"):
        return [listed]
    for prompt in listed:
        if not isinstance(prompt, (str, Mapping, Sequence)) and not hasattr(prompt, "__array__"):
            raise TypeError(f"a prompt is a text, a list of token ids or a dict, not {type(prompt).__name__}")
    return listed


def _refuse_bytes(prompt: Any) -> None:
    """Raises a TypeError for bytes, which Python takes for a list of numbers."""
    if isinstance(prompt, (bytes, bytearray)):
        kind = type(prompt).__name__
        raise TypeError(f"a prompt is a text, a list of token ids or a dict, not {kind}: decode it first")


def params_for(n_prompts: int, params: Union[None, SamplingParams, Sequence[SamplingParams]]) -> List[SamplingParams]:
    """The parameters of each prompt."""
    if params is None:
        params = SamplingParams()
    if isinstance(params, SamplingParams):
        return [params] * n_prompts
    params = list(params)
    if len(params) != n_prompts:
        raise ValueError(f"{n_prompts} prompts and {len(params)} SamplingParams: give one, or one for each prompt")
    return params
