"""``LLM``: many prompts at once, answered when all are done."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from ._engine import SLICE_S, Engine
from ._errors import Busy, GalleyError
from ._outputs import RequestOutput
from ._params import SamplingParams
from ._prompts import Messages, Prompt, Request, params_for, prompts_of
from ._queue import Answer, Queue

#: Requests that are submitted between two looks at the queue, which would fill up meanwhile.
SUBMIT_BATCH = 64
#: Time that a call without running requests waits for room in a busy engine. Requests of a call that has been
#: interrupted leave within a step; the requests of another thread may take longer.
BUSY_S = 5.0

Params = Union[None, SamplingParams, Sequence[SamplingParams]]


class LLM(Engine):
    """A model that answers prompts.

    The same request gives the same output alone, in any batch, and with any drafter. Methods may be called from
    several threads at the same time. After a KeyboardInterrupt the requests of the call are cancelled, and the ``LLM``
    works on.
    """

    def generate(self, prompts: Union[Prompt, Sequence[Prompt]], sampling_params: Params = None) -> List[RequestOutput]:
        """Answers prompts, all in one batch, and returns the answers in the order of the prompts.

        A prompt is a text, a list of token ids, or a dict with ``prompt`` or ``prompt_token_ids``. A dict may have
        ``resume``: ``{"generated": token_ids, "fingerprint": fingerprint}`` continues an earlier answer as if it had
        never been interrupted, if its seed is in the parameters.

        ``sampling_params`` are for all prompts, or a list of one for each.
        """
        listed = prompts_of(prompts)
        params = params_for(len(listed), sampling_params)
        return self._run([Request.of_prompt(prompt, own) for prompt, own in zip(listed, params)])

    def chat(
        self,
        messages: Union[Messages, Sequence[Messages]],
        sampling_params: Params = None,
        *,
        add_generation_prompt: Optional[bool] = None,
        continue_final_message: bool = False,
        tools: Optional[List[Dict[str, Any]]] = None,
        chat_template_kwargs: Optional[Mapping[str, Any]] = None,
    ) -> List[RequestOutput]:
        """Answers one chat, or each chat of a list. The model's chat template makes the prompts.

        With ``continue_final_message``, the answer continues the last message. ``add_generation_prompt`` says whether
        the prompt ends with the beginning of the assistant's message: by default it does, unless the last one goes on.
        """
        chats: Any = [messages] if messages and isinstance(messages[0], Mapping) else list(messages)
        template = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message or None,
            "tools": tools,
            "chat_template_kwargs": chat_template_kwargs,
        }
        params = params_for(len(chats), sampling_params)
        return self._run([Request.of_chat(chat, own, template) for chat, own in zip(chats, params)])

    def _run(self, requests: Sequence[Request]) -> List[RequestOutput]:
        drafters = self._drafters()
        answers = [Answer(request, None, drafters) for request in requests]
        queue = Queue(self._handle.raw)
        try:
            n_submitted, n_done, last_s = 0, 0, time.monotonic()
            while n_done < len(answers):
                if n_submitted > n_done:
                    last_s = time.monotonic()
                is_patient = time.monotonic() < last_s + BUSY_S
                n_new = _submit(queue, answers, n_submitted, is_patient)
                n_submitted += n_new
                # With more to submit, the queue is read without a wait, unless the engine is busy.
                has_more = n_new == SUBMIT_BATCH and n_submitted < len(answers)
                _, ended = queue.read(0 if has_more else int(SLICE_S * 1000), answers.__getitem__)
                for answer in ended:
                    if answer.error:
                        raise answer.error
                n_done += len(ended)
        finally:
            queue.close()
        return [answer.take() for answer in answers]


def _submit(queue: Queue, answers: Sequence[Answer], first: int, is_patient: bool) -> int:
    """Submits the next requests, until the engine is busy. Returns their number.

    Raises ``Busy`` in place of 0 if the caller is not patient.
    """
    last = min(first + SUBMIT_BATCH, len(answers))
    for at in range(first, last):
        try:
            queue.submit(answers[at], at)
        except Busy:
            if at == first and not is_patient:
                raise
            return at - first
        except GalleyError as error:
            if len(answers) > 1:
                error.args = (f"prompt {at}: {error.message}",)
            raise
    return last - first
