"""The quiz of ``ssrl preview --quiz``: a person answers samples in a browser, a file gets the share right by level.

The page comes from a server on this machine alone. It has prompt and pictures; a truth leaves the server only after its
question is answered. An answer is scored as the answer in a completion of a model.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import compare_digest, token_urlsafe
from threading import Lock
from typing import Any

from ..errors import SSRLError
from ..evaluate.accuracy import ALL, rows
from ..evaluate.folder import Answer
from ..evaluate.models import Written
from ..evaluate.run import judged
from ..files import written_whole
from ..mix import Example, Mix
from ..pages import page, question_of
from ..reward import right_completion

MOST_BUTTONS = 12
"""A level with more answers has a text field instead of buttons."""

KEYS = {False: "123456789", True: "abcdefghijkl"}
"""Keys of the buttons, by whether an answer has a digit: who types 2-1-3 must not press the second button."""

LONGEST_REQUEST = 10_000  # bytes

_PAGE = Path(__file__).with_name("quiz.html.jinja")
_HERE = re.compile(r"(localhost|127\.0\.0\.1)(:\d+)?")


def choose(mix: Mix, count: int) -> list[int]:
    """The indices of the first samples of a mix that have every task and level equally often, as far as possible."""
    seen: Counter[tuple[str, str]] = Counter()
    ordered = []
    for index in range(min(len(mix), 100 * count)):
        slot = mix.slot(index)
        ordered.append((seen[slot.task, slot.level], index))
        seen[slot.task, slot.level] += 1
    return [index for _, index in sorted(ordered)[:count]]


class NoAnswerError(ValueError):
    """A request that gives no answer to the question that is asked; the message is for the person."""


@dataclass
class Quiz:
    """Questions to a person, and the answers so far. Thread-safe.

    Attributes:
        mix: the mix of the examples.
        examples: examples of the mix, in the order of the questions.
        path: of the Markdown file, which is written after every answer.
        answers: to the first of the examples. That of a person who cannot tell has an empty completion.
    """

    mix: Mix
    examples: Sequence[Example]
    path: Path
    answers: list[Answer] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def ended(self) -> bool:
        """Whether every question is answered."""
        return len(self.answers) == len(self.examples)

    def question(self) -> dict[str, Any]:
        """The next question as the template shows it; without its truth. Only if the quiz has not ended."""
        number = len(self.answers)
        example = self.examples[number]
        task = self.mix.tasks[example.recipe.task]
        choices = task.info.levels[example.recipe.level].answers or ()
        buttons = choices if len(choices) <= MOST_BUTTONS else ()
        letters = len(buttons) > len(KEYS[False]) or any(map(str.isdigit, "".join(buttons)))
        keys = buttons if all(len(choice) == 1 for choice in buttons) else KEYS[letters]
        level = f"level {example.recipe.level}"
        return {
            "number": number,
            "level": level if len(self.mix.tasks) == 1 else f"{task.name}, {level}",
            # Without the mix's instruction on thinking and boxes, which a person need not follow.
            "asked": question_of(task.format_prompt(example.sample), example.sample.images, lossless=True),
            "buttons": list(zip(keys, buttons, strict=False)),
        }

    def counts(self) -> dict[str, int]:
        """The numbers of answers that are right, wrong, and given up."""
        right, given_up = sum(answer.acc == 1 for answer in self.answers), sum(map(_given_up, self.answers))
        return {"right": right, "wrong": len(self.answers) - right - given_up, "given_up": given_up}

    def answer(self, number: int, text: str | None) -> Answer:
        """The scored answer to question ``number``, counted from 0, after it is kept. None means: cannot tell.

        Raises:
            NoAnswerError: the question is not the next one, or the text is no answer. Nothing is kept.
            OSError: the file cannot be written. The answer is kept.
        """
        with self.lock:
            if number != len(self.answers) or self.ended:
                raise NoAnswerError("This question is answered already. Load the page again.")
            completion = "" if text is None else right_completion(text, thinking=self.mix.config.thinking)
            answer = judged(self.mix, number, self.examples[number], Written(completion, cut=False, opened=False))
            if text is not None and not answer.format and not answer.error:
                raise NoAnswerError("An answer needs a letter or a digit, and has no braces. This one does not count.")
            self.answers.append(answer)
            with written_whole(self.path) as file:
                file.write(self.report().encode())
            return answer

    def report(self) -> str:
        """The shares right as Markdown. At least one question must be answered."""
        table = [
            "| task | level | questions | right | 95% interval | chance | cannot tell |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows(self.answers):
            own = [a for a in self.answers if row.task in (ALL, a.task) and row.level in (ALL, a.level)]
            facts = f"{row.acc:.0%} | {row.low:.0%} to {row.high:.0%} | {_percent(row.chance)}"
            table.append(f"| {row.task} | {row.level} | {row.n} | {facts} | {sum(map(_given_up, own))} |")
        asked = self.examples[: len(self.answers)]
        made = {example.recipe.task: example.recipe for example in reversed(asked)}
        about = []
        for name, recipe in sorted(made.items()):
            plugin = self.mix.tasks[name].plugin
            line = f"- `{name}` version {recipe.task_version} ({plugin.distribution} {plugin.version}), "
            line += f"source `{recipe.source}`, size {recipe.size}, seed {recipe.seed}, split {recipe.split}"
            about.append(line + (f", options `{json.dumps(recipe.options)}`" if recipe.options else ""))
        missed = [_missed(answer, example) for answer, example in zip(self.answers, asked, strict=True)]
        lines = [
            f"A person saw what a model sees, and answered {len(self.answers)} of {len(self.examples)} questions of "
            '`ssrl preview --quiz`. The intervals are Wilson\'s. "Cannot tell" counts as wrong.',
            "",
            *table,
            "",
            *about,
        ]
        if any(missed):
            lines += ["", "Not right:", "", *filter(None, missed)]
        return "\n".join(lines) + "\n"


def _given_up(answer: Answer) -> bool:
    return not answer.completion


def _percent(share: float) -> str:
    """A chance in percent, with three digits: 25%, 4.35%, 0.000276%."""
    return f"{float(f'{100 * share:.3g}'):.10f}".rstrip("0").rstrip(".") + "%"


def _missed(answer: Answer, example: Example) -> str | None:
    """A line about an answer that is not right."""
    if answer.acc == 1:
        return None
    said = "cannot tell" if _given_up(answer) else f"`{answer.pred}`" if not answer.error else "the verifier failed"
    return f"- `{answer.task}` level {answer.level}, sample {example.recipe.index}: {said}, truth `{answer.truth}`"


class QuizServer(ThreadingHTTPServer):
    """Serves a quiz on 127.0.0.1. ``serve_forever`` returns after the last answer.

    Args:
        quiz: with at least one question.
        port: of the server; 0 takes a free one.

    Raises:
        SSRLError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, quiz: Quiz, *, port: int) -> None:
        self.quiz = quiz
        self.token = token_urlsafe(16)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as err:
            raise SSRLError(f"--port {port}: {err.strerror}. Use another port, or 0 for a free one") from err

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_port}/"

    def page(self) -> str:
        """The page with the next question."""
        quiz = self.quiz
        return page(
            _PAGE,
            title=f"Quiz: {quiz.mix.path.name}",
            token=self.token,
            total=len(quiz.examples),
            counts=quiz.counts(),
            file=str(quiz.path),
            **({"ended": True} if quiz.ended else quiz.question()),
        )

    def reply(self, request: Any) -> dict[str, Any]:
        """The reply to an answer of the page. Raises NoAnswerError."""
        match request:
            case {"number": int() as number, "answer": None | str() as text}:
                answer = self.quiz.answer(number, text)
            case _:
                raise NoAnswerError("The request has no number and answer.")
        reply = {
            "right": answer.acc == 1,
            "given_up": _given_up(answer),
            "answer": answer.pred,
            "truth": answer.truth,
            "note": "The verifier failed on this answer. " * bool(answer.error),
            "counts": self.quiz.counts(),
        }
        return reply | ({"report": self.quiz.report()} if self.quiz.ended else {})


class _Handler(BaseHTTPRequestHandler):
    server: QuizServer
    timeout = 60  # seconds that a client may take to send its request

    def do_GET(self) -> None:
        if self._from_elsewhere():
            return
        if self.path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page())

    def do_POST(self) -> None:
        if self._from_elsewhere():
            return
        length = int(text) if (text := self.headers.get("Content-Length", "")).isascii() and text.isdigit() else -1
        if self.path != "/answer" or not 0 <= length <= LONGEST_REQUEST:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        try:
            request = json.loads(self.rfile.read(length))
            token = request.pop("token")
            known = compare_digest(token.encode(), self.server.token.encode())
        except (ValueError, KeyError, TypeError, AttributeError):
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        if not known:
            self.send_error(HTTPStatus.FORBIDDEN, "not a request of the page of this quiz")
            return
        try:
            status, reply = HTTPStatus.OK, self.server.reply(request)
        except NoAnswerError as err:
            status, reply = HTTPStatus.CONFLICT, {"error": str(err)}
        except OSError as err:
            status, reply = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{self.server.quiz.path}: {err.strerror}"}
        self._send(status, "application/json", json.dumps(reply))
        if self.server.quiz.ended:
            self.server.shutdown()

    def _from_elsewhere(self) -> bool:
        """Whether a request comes from the page of another server, or by a name that is not this machine's.

        Such a request is refused. A browser names the host that it asks, and with a POST the origin of the page. Other
        ports are possible: a tunnel has its own.
        """
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        own = _HERE.fullmatch(host) and origin in (None, f"http://{host}")
        if not own or (self.command == "POST" and origin is None):
            self.send_error(HTTPStatus.FORBIDDEN, "not a request of the page of this quiz")
            return True
        return False

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print no line for each request."""
