"""Many questions at once, and an end to the waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any


def side_by_side(questions: Mapping[str, tuple[Callable[[], Any], Any]], seconds: float) -> dict[str, Any]:
    """Ask each in a thread of its own. questions: name → (what to call, the answer where none comes in time).

    A thread that is late is left behind and does not keep the program alive. What a question raises is raised here.
    """
    answers: dict[str, Any] = {}
    errors: list[BaseException] = []

    def run(name: str, question: Callable[[], Any]) -> None:
        try:
            answers[name] = question()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(name, question), daemon=True) for name, (question, _) in questions.items()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if errors:
        raise errors[0]
    in_time = dict(answers)
    return {name: in_time.get(name, if_late) for name, (_, if_late) in questions.items()}
