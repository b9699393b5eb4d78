"""The quiz: what its page shows, how answers count, what the server refuses, what the file says."""

import contextlib
import http.client
import json
import re
import shutil
import sys
import threading
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("scipy", reason="scipy is not installed: pip install 'ssrl-core[eval]'")

from ssrl_core import cli
from ssrl_core.cli.quiz import NoAnswerError, Quiz, QuizServer, choose
from ssrl_core.mix import load_mix

MIX = 'source: "synthetic:?width=192&height=144"\nsize: 112\nseed: 3\n'
BOTH = MIX + "tasks: {cropped_patch: {level: {1: 1, 2: 1}}, shuffled_patches: }"


@pytest.fixture
def quiz_of(write_mix, tmp_path):
    """A function from the text of a mix to a quiz of its first samples."""

    def make(text=BOTH, count=4):
        mix = load_mix(write_mix(text))
        return Quiz(mix, [mix[index] for index in range(count)], tmp_path / "quiz.md")

    return make


@pytest.fixture
def served():
    """A function that serves a quiz. Returns its server, its thread, and ``ask``, which sends a request to it."""
    with contextlib.ExitStack() as stack:

        def serve(quiz):
            server = stack.enter_context(QuizServer(quiz, port=0))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            own = f"127.0.0.1:{server.server_port}"

            def ask(method="POST", path="/answer", body=None, **headers):
                connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
                known = {"Host": own} | ({"Origin": f"http://{own}"} if method == "POST" else {})
                sent = {name: value for name, value in (known | headers).items() if value is not None}
                connection.request(method, path, body if isinstance(body, str) else json.dumps(body), sent)
                response = connection.getresponse()
                return response.status, response.read().decode()

            def answer(number, text):
                status, reply = ask(body={"token": server.token, "number": number, "answer": text})
                return status, json.loads(reply)

            return SimpleNamespace(server=server, thread=thread, ask=ask, answer=answer)

        yield serve


def wrong(example):
    return next(letter for letter in "ABCD" if letter != example.sample.truth)


def test_a_page_has_the_prompt_and_the_pictures_but_depends_on_no_truth(quiz_of, served):
    quiz = quiz_of()
    pages = []
    for truth in ("A", "B"):
        examples = [replace(example, sample=replace(example.sample, truth=truth)) for example in quiz.examples]
        site = served(replace(quiz, examples=examples))
        site.server.token = "the token"
        pages.append(site.ask("GET", "/")[1])
    assert pages[0] == pages[1]
    assert pages[0].count("data:image/png;base64,") == 5
    assert "Which piece belongs in the square?" in pages[0] and "boxed" not in pages[0]


def test_few_answers_have_buttons_and_many_a_text_field(quiz_of):
    quiz = quiz_of()
    assert quiz.question()["buttons"] == [(letter, letter) for letter in "ABCD"]
    quiz.answer(0, "A")
    assert quiz.examples[1].recipe.task == "shuffled_patches" and quiz.question()["buttons"] == []
    longer = quiz_of(MIX + "tasks: {depth_ordering: }").question()["buttons"]
    assert longer[0] == ("a", "1-2-3") and len(longer) == 6  # a person who types 2-1-3 presses no button


def test_questions_have_every_task_and_level_equally_often(write_mix):
    text = MIX + "tasks: {cropped_patch: {weight: 3, level: {1: 1, 2: 1, 3: 8}}, shuffled_patches: {level: 1}}"
    mix = load_mix(write_mix(text))
    slots = [mix.slot(index) for index in choose(mix, 9)]
    counts = Counter((slot.task, slot.level) for slot in slots)
    assert sorted(counts.values()) == [2, 2, 2, 3] and len(set(choose(mix, 9))) == 9
    few = load_mix(write_mix(text + "\nsamples: 3"))
    assert choose(few, 9) == [0, 1, 2]


def test_a_quiz_counts_writes_its_file_after_every_answer_and_ends(quiz_of, served):
    quiz = quiz_of()
    site = served(quiz)
    status, reply = site.answer(0, f" ({quiz.examples[0].sample.truth.lower()}). ")  # as a model's answer is read
    assert (status, reply["right"], reply["truth"]) == (200, True, quiz.examples[0].sample.truth)
    assert "1 of 4 questions" in quiz.path.read_text()
    status, reply = site.answer(1, None)
    assert (status, reply["right"], reply["given_up"]) == (200, False, True)
    assert reply["counts"] == {"right": 1, "wrong": 0, "given_up": 1} and "report" not in reply
    assert "question 3 of 4" in site.ask("GET", "/")[1]
    status, reply = site.answer(2, wrong(quiz.examples[2]))
    assert (status, reply["right"]) == (200, False)
    status, reply = site.answer(3, quiz.examples[3].sample.truth)
    assert (status, reply["report"]) == (200, quiz.path.read_text())
    site.thread.join(timeout=30)
    assert not site.thread.is_alive()
    assert [path.name for path in quiz.path.parent.iterdir() if path.name.startswith((".quiz", "quiz"))] == ["quiz.md"]


def test_a_question_counts_once_and_what_is_no_answer_does_not_count(quiz_of, served):
    quiz = quiz_of()
    site = served(quiz)
    assert site.answer(0, "?!") == (
        409,
        {"error": "An answer needs a letter or a digit, and has no braces. This one does not count."},
    )
    assert not quiz.path.exists()
    assert site.answer(0, "B")[0] == 200
    status, reply = site.answer(0, "A")
    assert status == 409 and "answered already" in reply["error"]
    assert site.answer(2, "A")[0] == 409
    assert [answer.pred for answer in quiz.answers] == ["B"]


@pytest.mark.parametrize(
    ("method", "path", "change", "headers", "status"),
    [
        ("POST", "/answer", {}, {"Origin": "http://example.org"}, 403),
        ("POST", "/answer", {}, {"Origin": "http://localhost:9"}, 403),
        ("POST", "/answer", {}, {"Origin": "null"}, 403),
        ("POST", "/answer", {}, {"Origin": None}, 403),
        ("POST", "/answer", {}, {"Host": "example.org", "Origin": "http://example.org"}, 403),
        ("POST", "/answer", {}, {"Host": "localhost.example.org", "Origin": "http://localhost.example.org"}, 403),
        ("POST", "/answer", {"token": "x"}, {}, 403),
        ("POST", "/answer", {"token": "ü"}, {}, 403),
        ("POST", "/answer", {"token": None}, {}, 400),
        ("POST", "/answer", {"answer": ["A"]}, {}, 409),
        ("POST", "/answer", {"number": "0"}, {}, 409),
        ("POST", "/answer", {"answer": "A" * 20_000}, {}, 400),
        ("POST", "/answer", "[]", {}, 400),
        ("POST", "/answer", "{", {}, 400),
        ("POST", "/", {}, {}, 400),
        ("GET", "/", {}, {"Host": "example.org"}, 403),
        ("GET", "/", {}, {"Origin": "http://example.org"}, 403),
        ("GET", "/answer", {}, {}, 404),
        ("PUT", "/answer", {}, {}, 501),
    ],
)
def test_a_request_that_the_page_does_not_make_is_refused_and_changes_nothing(
    quiz_of, served, method, path, change, headers, status
):
    quiz = quiz_of(count=1)
    site = served(quiz)
    good = {"token": site.server.token, "number": 0, "answer": "A"}
    body = change if isinstance(change, str) else good | change
    assert site.ask(method, path, body, **headers)[0] == status
    assert not quiz.answers and not quiz.path.exists() and site.thread.is_alive()


def test_a_tunnel_with_another_port_may_be_used(quiz_of, served):
    site = served(quiz_of())
    body = {"token": site.server.token, "number": 0, "answer": "A"}
    host = "localhost:8000"
    assert site.ask("GET", "/", Host=host)[0] == 200
    assert site.ask(body=body, Host=host, Origin=f"http://{host}")[0] == 200


def test_the_file_has_shares_right_with_intervals_and_what_the_samples_depend_on(quiz_of):
    quiz = quiz_of(BOTH.replace("{level: {1: 1, 2: 1}}", "{options: {prompt: plain 2}}"), count=8)
    for number, example in enumerate(quiz.examples):
        truth = example.sample.truth
        quiz.answer(number, truth if example.recipe.task == "shuffled_patches" else wrong(example) if number else None)
    lines = quiz.path.read_text().splitlines()
    assert lines[2:7] == [
        "| task | level | questions | right | 95% interval | chance | cannot tell |",
        "|---|---|---|---|---|---|---|",
        "| cropped_patch | 1 | 4 | 0% | 0% to 49% | 25% | 1 |",
        "| shuffled_patches | 1 | 4 | 100% | 51% to 100% | 4.35% | 0 |",
        "| all | all | 8 | 50% | 22% to 78% | 14.7% | 1 |",
    ]
    assert re.search(
        r"- `cropped_patch` version \d+ \(ssrl-plugin-cropped-patch .*\), source `synthetic:.*`, size 112, seed 3, "
        r'split train, options `{"prompt": "plain 2"}`',
        lines[8],
    )
    missed = [line for line in lines if line.startswith("- `cropped_patch` level 1, sample")]
    assert len(missed) == 4 and missed[0].endswith(f"cannot tell, truth `{quiz.examples[0].sample.truth}`")


def test_a_file_that_cannot_be_written_loses_no_answer(quiz_of, served):
    quiz = quiz_of(count=2)
    quiz.path.mkdir()
    site = served(quiz)
    status, reply = site.answer(0, "A")
    assert status == 500 and str(quiz.path) in reply["error"]
    quiz.path.rmdir()
    with pytest.raises(NoAnswerError):
        quiz.answer(0, "A")
    assert site.answer(1, None)[0] == 200 and "2 of 2 questions" in quiz.path.read_text()


# The command


@pytest.fixture
def ssrl(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SSRL_DEBUG", "0")
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ssrl", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return SimpleNamespace(code=end.value.code, **capsys.readouterr()._asdict())

    return run


def test_ctrl_c_ends_a_quiz_with_the_answers_so_far(ssrl, monkeypatch, tmp_path):
    def serve(server):
        example = server.quiz.examples[0]
        assert (example.recipe.size, example.recipe.seed) == (128, 5)
        server.quiz.answer(0, None)
        raise KeyboardInterrupt

    monkeypatch.setattr(QuizServer, "serve_forever", serve)
    done = ssrl("preview", "flipped_patch", "--quiz", 3, "--size", 128, "--seed", 5)
    assert done.code == 0 and re.search(r"open http://127\.0\.0\.1:\d+/ in a browser", done.out)
    text = (tmp_path / "quiz-flipped_patch.md").read_text()
    assert "1 of 3 questions" in text and text in done.out
    again = ssrl("preview", "flipped_patch", "--quiz", 3)
    assert again.code == 2 and "quiz-flipped_patch.md exists" in again.err
    assert (tmp_path / "quiz-flipped_patch.md").read_text() == text


def test_a_quiz_without_an_answer_writes_no_file(ssrl, monkeypatch, write_mix, tmp_path):
    def serve(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(QuizServer, "serve_forever", serve)
    done = ssrl("preview", write_mix(BOTH), "--quiz", 2)
    assert done.code == 0 and "no file was written" in done.out
    assert [path.name for path in tmp_path.iterdir()] == ["mix.yaml"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--port", 0), "add --quiz N"),
        (("--quiz", 3, "-n", 3), "leave out -n"),
        (("--quiz", 3, "-o", "nowhere/quiz.md"), "there is no folder nowhere"),
    ],
)
def test_a_mistake_is_explained_before_a_sample_is_made(ssrl, tmp_path, words, complaint):
    done = ssrl("preview", "flipped_patch", *words)
    assert done.code == 2 and complaint in " ".join(done.err.split())
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_named(quiz_of):
    with QuizServer(quiz_of(), port=0) as server, pytest.raises(cli.SSRLError, match=f"--port {server.server_port}: "):
        QuizServer(quiz_of(), port=server.server_port)


# A browser


@pytest.fixture
def browser(tmp_path):
    """A headless browser."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", f"user-data-dir={tmp_path / 'browser'}"),
    ):
        options.add_argument(f"--{word}")
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.implicitly_wait(20)
    yield opened
    opened.quit()


def test_a_person_answers_with_clicks_and_keys_in_a_browser(quiz_of, served, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    quiz = quiz_of()
    site = served(quiz)
    truths = [example.sample.truth for example in quiz.examples]
    patience = WebDriverWait(browser, 30)

    def press(*keys):
        browser.switch_to.active_element.send_keys(*keys)

    def said(words):
        patience.until(lambda browser: words in browser.find_element(By.ID, "said").text)

    def at(number):
        patience.until(lambda browser: f"question {number} of 4" in browser.find_element(By.TAG_NAME, "header").text)

    browser.get(site.server.url)
    sizes = [image.get_property("naturalWidth") for image in browser.find_elements(By.TAG_NAME, "img")]
    assert sizes == [image.width for image in quiz.examples[0].sample.images]
    browser.find_element(By.CSS_SELECTOR, f"[data-answer={truths[0]}]").click()
    said(f"Right. The answer is {truths[0]}.")
    press(Keys.ENTER)
    at(2)
    press(truths[1], Keys.ENTER)
    said("Right.")
    press(Keys.ENTER)
    at(3)
    press(wrong(quiz.examples[2]).lower())
    said("Wrong. You answered")
    press(Keys.ENTER)
    at(4)
    press(Keys.ESCAPE)
    said("Not counted as right.")
    press(Keys.ENTER)
    patience.until(
        lambda browser: browser.find_element(By.TAG_NAME, "pre").text.strip() == quiz.path.read_text().strip()
    )
    assert quiz.counts() == {"right": 2, "wrong": 1, "given_up": 1}
