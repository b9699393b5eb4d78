"""Every form in which a server can answer or fail: a completion with one pair of tags, or the true reason."""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ssrl_core.cli import app
from ssrl_core.form import extract_answer
from ssrl_core.mix import load_mix

pytest.importorskip("openai", reason="the 'eval' extra is not installed")

from ssrl_core.evaluate import EvaluationError, evaluate
from ssrl_core.evaluate.endpoint import Endpoint
from ssrl_core.evaluate.models import Failed, Written
from ssrl_core.evaluate.response import LONGEST_REASON, read_response, words_of

WHOLE = "<think>I look.</think>\\boxed{A}"


def chat(finish="stop", choice=None, **message):
    """The body of a response with one choice."""
    message = {"role": "assistant", **message}
    return json.dumps({"choices": [{"index": 0, "finish_reason": finish, "message": message, **(choice or {})}]})


def text(value):
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    "message",
    [
        {"content": WHOLE},
        {"content": "\\boxed{A}", "reasoning_content": "I look."},
        {"content": "\\boxed{A}", "reasoning": "I look."},
        {"content": "\\boxed{A}", "reasoning_content": None, "reasoning": "I look."},
        {"content": WHOLE, "reasoning_content": "I look."},
        {"content": "\n" + WHOLE, "reasoning_content": "<think>I look.</think>"},
        {"content": "\\boxed{A}", "reasoning_content": "<think>I look."},
        {"content": "\n\n\\boxed{A}", "reasoning_content": "<think>\nI look.\n</think>"},
        {"content": "</think>\\boxed{A}", "reasoning_content": "I look."},
        {"content": None, "reasoning_content": WHOLE},
        {"content": "", "reasoning_content": WHOLE},
        {"content": "\\boxed{A}", "reasoning": {"text": "I look."}},
        {"content": "\\boxed{A}", "reasoning_details": [{"type": "reasoning.text", "text": "I look."}]},
        {"content": "\\boxed{A}", "thinking": "I look."},
        {"content": [text(WHOLE)]},
        {"content": [text("<think>I look."), text("</think>\\boxed{A}")]},
        {"content": ["<think>I look.</think>", "\\boxed{A}"]},
        {"content": [{"type": "output_text", "text": WHOLE}]},
        {"content": [{"type": "thinking", "thinking": [text("I look.")]}, text("\\boxed{A}")]},
        {"content": [{"type": "thinking", "thinking": "I look."}, text("\\boxed{A}")]},
        {"content": [{"type": "reasoning", "text": "I look."}, text("\\boxed{A}")]},
        {"content": WHOLE, "refusal": None, "tool_calls": []},
    ],
)
def test_the_thinking_stands_once_in_tags_wherever_the_server_puts_it(message):
    written = read_response(chat(**message))
    assert isinstance(written, Written) and not written.cut and written.opened is None
    assert extract_answer(written.text) == "A"
    assert (written.text.count("<think>"), written.text.count("</think>")) == (1, 1)


def test_thinking_that_a_template_opened_is_kept_as_it_is():
    lone = "I look.\n</think>\n\n\\boxed{A}"
    for message in ({"content": lone}, {"content": lone, "reasoning_content": "I look."}):
        assert read_response(chat(**message), opened=True) == Written(lone, cut=False, opened=True)


@pytest.mark.parametrize("finish", ["length", "MAX_TOKENS", "model_length", "max_output_tokens"])
def test_a_completion_that_was_cut_is_known_as_such(finish):
    assert read_response(chat(finish, content="<think>I look")).cut
    unfinished = read_response(chat(finish, content=None, reasoning_content="I look at"))
    assert unfinished == Written("<think>I look at", cut=True)
    assert read_response(chat(finish, content="")) == Written("", cut=True)


@pytest.mark.parametrize("finish", ["stop", "eos", "end_turn", "COMPLETE", None])
def test_an_empty_completion_is_the_models_own(finish):
    assert read_response(chat(finish, content="")) == Written("", cut=False)


@pytest.mark.parametrize(
    ("body", "reason", "again"),
    [
        (chat("error", content=""), "finish_reason 'error'", True),
        (chat("abort", content="<think>I"), "finish_reason 'abort'", True),
        (chat("ERROR", {"error": {"code": 502, "message": "upstream"}}, content=""), "an error 502.*upstream", True),
        (chat("content_filter", content=None), "withheld the answer: finish_reason 'content_filter'", False),
        (chat("SAFETY", content=""), "withheld the answer", False),
        (chat("stop", content=None, refusal="I cannot help"), "refused: I cannot help", False),
        (chat("tool_calls", content=None, tool_calls=[{"id": "1"}]), "a tool call", False),
        (chat("stop", content=None), "no content", False),
        (chat("stop", content={"text": "A"}), "its content is dict", False),
        (chat("stop", content=[{"type": "image_url"}]), "a part of type 'image_url'", False),
        ('{"error": {"message": "Rate limit exceeded", "code": 429}}', "an error 429.*Rate limit exceeded", True),
        ('{"error": {"message": "no images", "code": "400"}}', "an error 400.*no images", False),
        ('{"error": "overloaded"}', "overloaded", True),
        ('{"error": {"message": "x", "code": 500}, "choices": []}', "an error 500", True),
        ('{"object": "error", "message": "At most 1 image", "code": 400}', "At most 1 image", False),
        ('{"detail": "not ready"}', "not ready", True),
        ("<html><head><title>Log in</title></head></html>", "not JSON: Log in", False),
        ('data: {"choices": []}\n\ndata: [DONE]', "a stream of events", False),
        ('{"choices": [{"index": 0, "mess', "not JSON", False),
        ("", "an empty body", False),
        ("null", "no chat completion", False),
        ('{"choices": []}', "no message", False),
        ('{"choices": [{"text": "A"}]}', "no message", False),
    ],
)  # fmt: skip
def test_a_response_without_a_completion_is_no_answer_with_the_true_reason(body, reason, again):
    failed = read_response(body)
    assert isinstance(failed, Failed)
    assert re.search(reason, failed.reason), failed.reason
    assert failed.again == again


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("model does not support images", "model does not support images"),
        ({"message": "no", "type": "x"}, "no"),
        ({"error": {"message": "no"}}, "no"),
        ({"detail": "At most 1 image(s)"}, "At most 1 image(s)"),
        ({"detail": [{"loc": ["body", "max_tokens"], "msg": "too large"}]}, "body.max_tokens: too large"),
        ({"errors": [{"message": "a"}, {"message": "b"}]}, "a; b"),
        ("<html><head><title>413 Request Entity Too Large</title></head></html>", "413 Request Entity Too Large"),
        ("<h1>Bad\n gateway</h1>", "Bad gateway"),
        ({"message": "Provider returned error", "metadata": {"raw": "busy"}}, "Provider returned error: busy"),
        (None, ""),
    ],
)
def test_the_words_of_a_server_are_found_in_any_form_of_its_error(body, words):
    assert words_of(body) == words


def values(texts):
    """JSON values that have the keys of responses."""
    keys = st.sampled_from(
        ["choices", "message", "content", "reasoning_content", "reasoning", "finish_reason", "error", "text", "type",
         "thinking", "refusal", "tool_calls", "code", "detail", "loc", "metadata", "raw", "object"]
    )  # fmt: skip
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
    return st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=5), max_leaves=15)


TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "\\boxed{A}", "I look.", "\n", " ", "error", "text", "stop", "length"]),
    max_size=6,
).map("".join)


@given(values(TEXTS | st.text(max_size=20)))
def test_any_json_is_a_completion_or_a_reason(body):
    outcome = read_response(json.dumps(body))
    if isinstance(outcome, Failed):
        assert 0 < len(outcome.reason) <= LONGEST_REASON + 100 and "\n" not in outcome.reason
    else:
        assert isinstance(outcome.text, str)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_body_is_a_completion_or_a_reason(body):
    assert isinstance(read_response(body), Failed | Written)


@given(content=TEXTS | st.none() | st.lists(TEXTS.map(text), max_size=3), thought=TEXTS | st.none())
def test_no_server_makes_a_formless_completion_out_of_a_whole_one_nor_doubles_its_tags(content, thought):
    message = {"content": content, "reasoning_content": thought}
    outcome = read_response(chat(**message))
    if isinstance(outcome, Failed):
        assert not content and not (thought or "").replace("<think>", "").replace("</think>", "").strip()
        return
    said = "".join(part["text"] for part in content) if isinstance(content, list) else content or ""
    for tag in ("<think>", "</think>"):
        assert outcome.text.count(tag) <= max(
            said.count(tag) + bool(said.count("</think>")), (thought or "").count(tag), 1
        )
    if extract_answer(said) is not None:
        assert extract_answer(outcome.text) == extract_answer(said)


@pytest.fixture
def talk(write_mix, tmp_path):
    """A function that evaluates a server that gives scripted replies, and returns the evaluation and the requests.

    A reply is a status, a body, and optionally headers; the last one is repeated.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.reply(200, '{"object": "list", "data": [{"id": "m"}]}')

        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.reply(*server.replies[min(len(asked), len(server.replies)) - 1])

        def reply(self, status, body, headers=()):
            self.send_response(status)
            for name, value in (("content-type", "application/json"), ("content-length", len(body)), *headers):
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    mix = write_mix('source: "synthetic:?width=192&height=144"\nsize: 112\ntasks: {cropped_patch: }')

    def evaluate_it(*replies, samples=2, command=False):
        server.replies = replies
        url, out = f"http://127.0.0.1:{server.server_port}/v1", tmp_path / "out"
        if command:
            words = [
                mix,
                "--endpoint",
                url,
                "--name",
                "m",
                "-n",
                samples,
                "--retries",
                1,
                "--concurrency",
                1,
                "-o",
                out,
            ]
            return CliRunner().invoke(app(["eval"]), ["eval", *map(str, words)]), asked
        model = Endpoint(url, "m", concurrency=1, retries=2)
        return evaluate(load_mix(mix, split="heldout"), model, out, samples=samples), asked

    yield evaluate_it
    server.shutdown()
    server.server_close()


GOOD = 200, chat(content=WHOLE)


@pytest.mark.parametrize(
    "failure",
    [
        (200, '{"error": {"message": "Rate limit exceeded", "code": 429}}'),
        (200, chat("error", {"error": {"code": 502, "message": "busy"}}, content="")),
        (200, chat("abort", content="<think>I")),
        (429, '{"error": {"message": "slow down"}}', [("retry-after", "0.01")]),
        (503, "<html><title>503 Service Unavailable</title></html>"),
    ],
)
def test_a_failure_that_passes_is_asked_again_at_once(talk, failure):
    done, asked = talk(failure, GOOD)
    assert len(done.answers) == 2 and not done.failed and len(asked) == 3
    assert asked[0] == asked[1] != asked[2]


@pytest.mark.parametrize(
    ("failure", "reason", "requests"),
    [
        ((200, '{"error": {"message": "Rate limit", "code": 429}}'), "an error 429 .*: Rate limit", 4),
        ((200, chat("content_filter", content=None)), "withheld the answer", 2),
        ((200, chat(content=None, refusal="I cannot help")), "the model refused: I cannot help", 2),
        ((400, '{"error": "model does not support images"}'), "BadRequestError 400: model does not support images", 2),
        (
            (422, '{"detail": [{"loc": ["body", "seed"], "msg": "no"}]}'),
            "UnprocessableEntityError 422: body.seed: no",
            2,
        ),
        ((413, "<html><head><title>413 Too Large</title></head></html>"), "APIStatusError 413: 413 Too Large", 2),
        ((400, "context length exceeded"), "BadRequestError 400: context length exceeded", 2),
        ((403, '{"error": {"message": "flagged"}}'), "PermissionDeniedError 403: flagged", 2),
        ((429, '{"message": "daily limit"}', [("retry-after", "900")]), r"429 \(retry-after: 900\): daily limit", 2),
    ],
)
def test_a_failure_that_stays_is_no_answer_with_the_words_of_the_server_and_exit_code_1(
    talk, failure, reason, requests
):
    done, asked = talk(failure, command=True)
    assert done.exit_code == 1 and len(asked) == requests
    assert re.search(f"no sample was answered; the same command retries them: 2 x .*{reason}", done.stderr), done.stderr
    done, _ = talk(GOOD, command=True)
    assert done.exit_code == 0, done.output


def test_a_server_that_names_the_limit_of_tokens_otherwise_gets_it_by_that_name(talk):
    refusal = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    done, asked = talk((400, json.dumps({"error": {"message": refusal}})), GOOD, samples=3)
    assert len(done.answers) == 3 and len(asked) == 4
    assert asked[0]["max_tokens"] == 2048
    assert all(request["max_completion_tokens"] == 2048 and "max_tokens" not in request for request in asked[1:])


@pytest.mark.parametrize(
    ("name", "value"), [("SSL_CERT_FILE", "/nonexistent.pem"), ("HTTPS_PROXY", "nonsense://x"), ("ALL_PROXY", "x:y:z")]
)
def test_an_environment_that_allows_no_connection_is_named(talk, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(EvaluationError, match=f"no connection to .* can be made: .*environment variables .*{name}"):
        talk(GOOD)


def test_a_key_that_no_request_can_carry_is_named_and_a_line_break_after_it_forgiven(talk, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-“1”")
    with pytest.raises(EvaluationError, match="OPENAI_API_KEY has characters"):
        talk(GOOD)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1\n")
    assert len(talk(GOOD)[0].answers) == 2
