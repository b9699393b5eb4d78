"""``ssrl eval`` and ``ssrl compare``, with a real server that has faults on demand."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ssrl_core.cli import app
from ssrl_core.cli.score import rescore
from ssrl_core.evaluate import EvaluationError, Sampling, Transformers, answers_of, compare, evaluate, rows
from ssrl_core.evaluate.confusion import NONE, OTHER, matrices
from ssrl_core.evaluate.endpoint import MOST_FAILURES, Endpoint
from ssrl_core.evaluate.folder import folder_of, plan_of
from ssrl_core.evaluate.heldout import check_heldout
from ssrl_core.evaluate.models import Written, version
from ssrl_core.evaluate.report import write_report
from ssrl_core.evaluate.serving import Served
from ssrl_core.mix import load_mix
from ssrl_core.mix.include import self_contained
from ssrl_core.models.tiny import build_tiny_model
from ssrl_core.sources import open_source

torch = pytest.importorskip("torch", reason="the 'train' extra is not installed")
pytest.importorskip("openai", reason="the 'eval' extra is not installed")

SERVER = Path(__file__).parent / "fixtures" / "chat_server.py"
MIX = """
source: "synthetic:?width=192&height=144"
size: 112
heldout: {samples: 30}
tasks: {flipped_patch: , cropped_patch: , shuffled_patches: {level: {1: 1, 2: 1}}}
"""
SHORT = Sampling(max_tokens=12)
pytestmark = pytest.mark.usefixtures("one_thread")  # as in the server


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a mix and a model that has learned the format of answers only."""
    folder = tmp_path_factory.mktemp("eval")
    (folder / "mix.yaml").write_text(MIX)
    mix = load_mix(folder / "mix.yaml")
    build_tiny_model(mix, folder / "model", texts=32, completion="<think>I look.</think>\\boxed{1}")
    teach(mix, folder / "model")
    return folder


def teach(mix, folder):
    """A few steps of supervised training on a dozen samples."""
    from transformers import AutoProcessor

    from ssrl_core.models.completions import load_model
    from ssrl_core.models.tokens import token_ids

    model, processor = load_model(str(folder)), AutoProcessor.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(0)
    examples = [mix[index] for index in range(12)]
    for _ in range(4):
        for example in examples:
            text = f"<think>I look.</think>\\boxed{{{example.sample.truth}}}<|im_end|>"
            prompt, answer = token_ids(processor, example), processor.tokenizer(text)["input_ids"]
            ids = torch.tensor([[*prompt, *answer]])
            inputs = dict(processor.image_processor(images=list(example.sample.images), return_tensors="pt"))
            inputs["mm_token_type_ids"] = (ids == processor.image_token_id).long()
            labels = torch.tensor([[-100] * len(prompt) + answer])
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, **inputs).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)


@pytest.fixture
def heldout(site):
    return load_mix(site / "mix.yaml", split="heldout")


@contextmanager
def serving(model, *options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, SERVER, model, "--port", str(port), *map(str, options)])
    try:
        until(lambda: answers(port) or server.poll() is not None)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def answers(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except OSError:
        return False


def until(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def faults(site):
    return site / "faults.json"


@pytest.fixture(scope="module")
def server(site, faults):
    """The URL of a server of the model, with the faults in the file ``faults``."""
    faults.write_text("{}")
    with serving(site / "model", "--faults", faults) as url:
        yield url


@pytest.fixture(autouse=True)
def no_faults(request):
    yield
    if "faults" in request.fixturenames:
        request.getfixturevalue("faults").write_text("{}")


def requests(faults):
    """The requests that the server has answered so far."""
    log = Path(f"{faults}.log")
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def order(server, faults, plan):
    """Give the next requests faults: number of the request from here -> fault; ``*``: all others."""
    count = json.loads(urllib.request.urlopen(f"{server}/count").read())
    faults.write_text(json.dumps({key if key == "*" else str(count + key): fault for key, fault in plan.items()}))


def ssrl(command, *words):
    """Run a command in this process."""
    return CliRunner().invoke(app([command]), [command, *map(str, words)])


def test_transformers_and_a_server_of_the_same_model_give_the_same_completions(site, server, faults, heldout, tmp_path):
    here = evaluate(heldout, Transformers(str(site / "model"), batch=7), tmp_path / "here", sampling=SHORT)
    asked = len(requests(faults))
    there = evaluate(heldout, Endpoint(server, "tiny", concurrency=4), tmp_path / "there", sampling=SHORT)
    assert [answer.completion for answer in there.answers] == [answer.completion for answer in here.answers]
    assert [replace(answer) for answer in there.answers] == here.answers
    assert sum(answer.format for answer in here.answers) > 15  # else the comparison would mean little
    assert {row.verdict for row in rows(here.answers)} <= {"", "below"}
    shown = sorted((request["prompt"], request["sizes"]) for request in requests(faults)[asked:])
    examples = (heldout[index] for index in range(30))
    assert shown == sorted((e.prompt, [list(image.size) for image in e.sample.images]) for e in examples)


def test_an_evaluation_that_was_killed_resumes_and_no_answer_is_lost_or_doubled(site, server, faults, tmp_path):
    words = ["eval", site / "mix.yaml", "--endpoint", server, "--name", "tiny", "--max-tokens", "12", "-o"]
    out, lines = tmp_path / "out", tmp_path / "out" / "answers.jsonl"
    order(server, faults, {**dict.fromkeys(range(11)), "*": "hang"})
    asked = len(requests(faults))
    command = [sys.executable, "-m", "ssrl_core", *map(str, words), str(out), "--concurrency", "4"]
    process = subprocess.Popen(command)
    until(lambda: lines.exists() and lines.read_bytes().count(b"\n") == 11)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = lines.read_bytes()
    lines.write_bytes(before + b'{"index": 29, "tas')  # as a kill in the middle of a line leaves it
    faults.write_text("{}")
    done = ssrl(*words, out, "--json")
    assert done.exit_code == 0, done.output
    assert lines.read_bytes().startswith(before)
    assert sorted(json.loads(line)["index"] for line in lines.read_text().splitlines()) == list(range(30))
    assert len(requests(faults)) - asked == 30
    assert json.loads(done.stdout)["answers"] == 30
    assert ssrl(*words, tmp_path / "whole").exit_code == 0
    assert answers_of(tmp_path / "whole") == answers_of(out)
    assert (tmp_path / "whole/report.html").read_bytes() == (out / "report.html").read_bytes()


def test_a_request_that_fails_is_asked_again(server, faults, heldout, tmp_path):
    order(server, faults, {0: 429, 1: 500, 2: "drop", 3: 503})
    done = evaluate(heldout, Endpoint(server, "tiny", concurrency=2), tmp_path, samples=6, sampling=SHORT)
    assert len(done.answers) == 6 and not done.failed


def test_a_request_that_fails_for_good_does_not_count_as_wrong_and_is_asked_again_at_the_next_start(
    site, server, faults, tmp_path
):
    words = ["eval", site / "mix.yaml", "--endpoint", server, "--name", "tiny", "--max-tokens", 12, "-n", 8, "--json"]
    words += ["-o", tmp_path / "out"]
    order(server, faults, {2: 500, 5: 400})
    done = ssrl(*words, "--retries", 0, "--concurrency", 1)
    assert done.exit_code == 1
    assert json.loads(done.stdout)["answers"] == 6
    assert "1 x InternalServerError" in done.stderr and "1 x BadRequestError" in done.stderr
    assert "1 samples have no answer" in (tmp_path / "out/report.html").read_text()
    done = ssrl(*words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["answers"] == 8


def test_an_answer_of_another_form_is_a_failure_of_its_request(server, faults, heldout, tmp_path):
    bodies = ['{"choices": null}', '{"choices": []}', "{", "[]", "null", '{"choices": [{"message": null}]}']
    order(server, faults, {number: {"say": body} for number, body in enumerate(bodies)})
    done = evaluate(heldout, Endpoint(server, "tiny", concurrency=1), tmp_path, samples=8, sampling=SHORT)
    assert len(done.answers) == 2 and sum(done.failed.values()) == 6
    assert all(reason.startswith("an answer that is no chat completion") for reason in done.failed)


def test_a_page_is_no_server(heldout, tmp_path):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

    with HTTPServer(("127.0.0.1", 0), Page) as pages:
        Thread(target=pages.serve_forever, daemon=True).start()
        with pytest.raises(EvaluationError, match="no server of chat completions"):
            evaluate(heldout, Endpoint(f"http://127.0.0.1:{pages.server_port}", "tiny"), tmp_path, sampling=SHORT)
        pages.shutdown()


def test_an_evaluation_stops_where_every_request_fails(server, faults, heldout, tmp_path):
    faults.write_text('{"*": 500}')
    with pytest.raises(EvaluationError, match=f"{MOST_FAILURES} requests in a row failed.*InternalServerError"):
        evaluate(heldout, Endpoint(server, "tiny", retries=0), tmp_path, sampling=SHORT)
    assert not answers_of(tmp_path)


def test_a_server_that_is_missing_wants_a_key_or_lacks_the_model_is_explained(server, faults, heldout, tmp_path):
    with pytest.raises(EvaluationError, match="no server answers"):
        evaluate(heldout, Endpoint("http://127.0.0.1:9/v1", "tiny"), tmp_path / "1", sampling=SHORT)
    with pytest.raises(EvaluationError, match=r"tinny.*It has tiny. Did you mean 'tiny'\?"):
        evaluate(heldout, Endpoint(server, "tinny"), tmp_path / "2", sampling=SHORT)
    faults.write_text('{"key": "secret"}')
    with pytest.raises(EvaluationError, match=r"wants a key \(401\)\. Set OPENAI_API_KEY"):
        evaluate(heldout, Endpoint(server, "tiny"), tmp_path / "3", sampling=SHORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "secret")
        assert evaluate(heldout, Endpoint(server, "tiny"), tmp_path / "3", samples=1, sampling=SHORT).answers


# A server without a model. The first requests of /health fail.
FAKE = r"""
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

COMPLETION = {"message": {"role": "assistant", "content": "<think>I look.</think>\\boxed{1}"}, "finish_reason": "stop"}

class Handler(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        Handler.asked += 1
        self.answer(503 if Handler.asked < 3 else 200, {"object": "list", "data": []})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(200, {"choices": [COMPLETION]})

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

print(os.getpid(), flush=True)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_in_a_subprocess_runs_for_the_evaluation_only(site, heldout, tmp_path):
    command = (sys.executable, "-c", FAKE.replace("{", "{{").replace("}", "}}"), "{port}", "{model}")
    with Served(str(site / "model"), log=tmp_path / "log", command=command, concurrency=1) as model:
        done = evaluate(heldout, model, tmp_path / "out", samples=3, sampling=SHORT)
        again = evaluate(heldout, model, tmp_path / "more", samples=1, sampling=SHORT)
        process = int((tmp_path / "log").read_text().split()[0])
        os.kill(process, 0)  # it still runs, and a second one would have emptied the log
        assert (tmp_path / "log").read_text().count("GET /v1/models") == 2
    assert len(again.answers) == 1
    assert [answer.completion for answer in done.answers] == ["<think>I look.</think>\\boxed{1}"] * 3
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    broken = Served(str(site / "model"), log=tmp_path / "log", command=(sys.executable, "-c", "exit('no GPU')"))
    with broken, pytest.raises(EvaluationError, match=r"ended with code 1.*\n.*no GPU"):
        evaluate(heldout, broken, tmp_path / "out2", samples=3, sampling=SHORT)


class Fixed:
    """A model whose answers are a function of truth and index."""

    facts = {"engine": "fixed", "model": "fixed"}  # noqa: RUF012

    def __init__(self, say):
        self.say = say

    def answer(self, examples, sampling):
        for index, example in examples:
            text = f"<think>I look.</think>\\boxed{{{self.say(example.sample.truth, index)}}}"
            yield (index, example), Written(text, cut=False)


@pytest.fixture
def mix(write_mix):
    return load_mix(write_mix(MIX.replace("30", "20")), split="heldout")


def right_answers(mix, folder, **settings):
    return evaluate(mix, Fixed(lambda truth, index: truth), folder, **settings).answers


def test_another_evaluation_in_the_same_folder_is_refused_with_the_difference(mix, write_mix, tmp_path):
    right_answers(mix, tmp_path / "out", samples=3)
    with pytest.raises(EvaluationError, match=r"sampling\.temperature: 0\.0 -> 1.0"):
        right_answers(mix, tmp_path / "out", samples=3, sampling=Sampling(temperature=1.0))
    other = load_mix(write_mix(MIX + "seed: 8", "other.yaml"), split="heldout")
    with pytest.raises(EvaluationError, match=r"mix\.seed: 0 -> 8"):
        right_answers(other, tmp_path / "out", samples=3)
    with pytest.raises(EvaluationError, match=r"split: 'heldout' -> 'validation'"):
        right_answers(load_mix(mix.path, split="validation"), tmp_path / "out", samples=3)


@pytest.fixture
def photo_mix(install_toy, pictures, write_mix):
    """A function that loads a mix of the task ``toy`` on pictures, as a new process does."""
    install_toy()

    text = f"source: 'folder:{pictures}'\nheldout: {{fraction: 0.5, samples: 20}}\ntasks: {{toy: }}\n"

    def load(more="", name="mix.yaml"):
        open_source.cache_clear()
        return load_mix(write_mix(text + more, name), split="heldout")

    return load


def test_an_evaluation_is_not_resumed_after_an_image_or_a_version_changed(photo_mix, install_toy, pictures, tmp_path):
    right_answers(photo_mix(), tmp_path / "out", samples=3)
    before = (tmp_path / "out" / "answers.jsonl").read_bytes()
    saved = (pictures / "07 é.png").read_bytes()
    shutil.copy(pictures / "00 é.png", pictures / "07 é.png")
    with pytest.raises(EvaluationError, match=r"sources\.folder:.*\.digest: '\w+' -> '\w+'"):
        right_answers(photo_mix(), tmp_path / "out", samples=6)
    (pictures / "07 é.png").write_bytes(saved)
    install_toy(version="0.2")
    with pytest.raises(EvaluationError, match=r"versions\.ssrl-plugin-toy: '0.1' -> '0.2'"):
        right_answers(photo_mix(), tmp_path / "out", samples=6)
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == before


def test_an_evaluation_is_resumed_with_a_comment_in_the_mix_at_another_path_and_other_times_of_images(
    photo_mix, pictures, tmp_path
):
    first = right_answers(photo_mix(), tmp_path / "out", samples=3)
    for path in pictures.iterdir():
        os.utime(path, (0, 0))
    again = right_answers(photo_mix("# a comment\nseed: 0", "moved.yaml"), tmp_path / "out", samples=6)
    assert again[:3] == first and len(again) == 6


def test_a_completion_that_is_no_valid_text_is_kept(mix, tmp_path):
    done = evaluate(mix, Fixed(lambda truth, index: truth + " \ud800"), tmp_path / "out", samples=2)
    assert [answer.completion[-2] for answer in done.answers] == ["?", "?"]


def test_a_report_can_be_written_when_images_have_gone(write_mix, pictures, tmp_path):
    mix = load_mix(
        write_mix(f'source: "folder:{pictures}"\nsize: 96\nheldout: {{fraction: 0.5}}\ntasks: {{flipped_patch: }}'),
        split="heldout",
    )
    done = evaluate(mix, Fixed(lambda truth, index: "7-vertical"), tmp_path / "out", samples=4)
    for path in pictures.iterdir():
        path.unlink()
    write_report(tmp_path / "report.html", plan_of(mix, Fixed.facts, {}), done.answers, rows(done.answers), notes=[])
    page = (tmp_path / "report.html").read_text()
    assert page.count("7-vertical") >= 4 and "<img" not in page


def test_an_evaluation_can_be_made_longer(mix, tmp_path):
    first = right_answers(mix, tmp_path / "out", samples=3)
    longer = right_answers(mix, tmp_path / "out", samples=7)
    assert longer[:3] == first and len(longer) == 7
    with pytest.raises(EvaluationError, match=r"it has 20\. Raise heldout.samples"):
        right_answers(mix, tmp_path / "out", samples=21)


def test_saved_answers_score_the_same_again(mix, tmp_path):
    evaluate(mix, Fixed(lambda truth, index: truth if index % 2 else "1"), tmp_path / "out")
    facts = rescore([tmp_path / "out" / "answers.jsonl"])
    assert not facts["skipped"]
    assert sum(task["saved"] for task in facts["tasks"].values()) == 20
    assert all(task["differ"] == 0 for task in facts["tasks"].values())


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """96 right answers."""
    folder = tmp_path_factory.mktemp("right")
    (folder / "mix.yaml").write_text(MIX.replace("30", "96"))
    mix = load_mix(folder / "mix.yaml", split="heldout")
    return right_answers(mix, folder / "out")


def said(answers, text):
    """The answers with other predictions: a function of truth and index."""
    changed = [(answer, text(answer.truth, answer.index)) for answer in answers]
    return [replace(answer, pred=pred, acc=float(pred == answer.truth)) for answer, pred in changed]


def test_rows_tell_seeing_from_guessing(right):
    seeing = rows(said(right, lambda truth, index: truth if index % 4 else "Z"))
    names = [(row.task, row.level) for row in seeing]
    puzzles = [("shuffled_patches", level) for level in ("1", "2", "all")]
    assert names == [("cropped_patch", "1"), ("flipped_patch", "1"), *puzzles, ("all", "all")]
    assert seeing[-1].acc == 0.75 and seeing[-1].verdict == "above" and seeing[-1].low > seeing[-1].chance
    guessing = rows(said(right, lambda truth, index: "ABCD"[index // 3 % 4]))
    assert guessing[0].verdict == "" and guessing[0].low < 0.25 < guessing[0].high


def test_intervals_cover_the_true_share_in_95_of_100_runs(right):
    rng = np.random.default_rng(0)
    covered = significant = 0
    for _ in range(600):
        (row,) = rows([replace(right[0], acc=float(one), chance=0.25) for one in rng.random(60) < 0.25])
        covered += row.low <= 0.25 <= row.high
        significant += bool(row.verdict)
    assert covered / 600 > 0.92 and significant / 600 < 0.07


def test_two_evaluations_are_compared_on_the_same_samples(right):
    first = said(right, lambda truth, index: truth if index % 2 else "Z")
    second = said(right[:90], lambda truth, index: truth if index % 6 else "Z")
    *_, total = compare(first, second)
    assert (total.n, total.lost, total.won) == (90, 0, 30)
    assert total.verdict == "better" and total.low > 0.2 and total.difference == pytest.approx(1 / 3)
    assert compare(second, first)[-1].verdict == "worse"
    assert {row.verdict for row in compare(first, first)} == {""}
    with pytest.raises(EvaluationError, match="no sample in common"):
        compare(first, [replace(answer, recipe=answer.recipe + " ") for answer in second])


def test_no_difference_is_significant_between_two_models_of_the_same_skill(right):
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        one, other = ([replace(a, acc=float(rng.random() < 0.5)) for a in right] for _ in range(2))
        found += any(row.verdict for row in compare(one, other))
    assert found / 300 < 0.08


def test_the_command_compares_and_says_how_the_evaluations_differ(mix, tmp_path):
    evaluate(mix, Fixed(lambda truth, index: truth), tmp_path / "1", samples=12)
    hotter = Sampling(temperature=1.0)
    evaluate(mix, Fixed(lambda truth, index: "Z"), tmp_path / "2", samples=12, sampling=hotter)
    done = ssrl("compare", tmp_path / "1", tmp_path / "2")
    assert done.exit_code == 0, done.output
    assert "sampling.temperature: 0.0 -> 1.0" in done.stdout and "worse" in done.stdout
    *_, total = json.loads(ssrl("compare", tmp_path / "1", tmp_path / "2", "--json").stdout)["rows"]
    assert (total["task"], total["before"], total["after"], total["lost"]) == ("all", 1.0, 0.0, 12)


def test_confusion_is_counted_for_whole_answers_or_for_each_position(right):
    (whole,) = matrices([a for a in said(right, lambda truth, index: "(b)") if a.task == "cropped_patch"])
    assert whole.truths == ["A", "B", "C", "D"] and whole.predictions == ["A", "B", "C", "D", OTHER, NONE]
    assert all(counts[1] == sum(counts) for counts in whole.counts)
    puzzles = [a for a in right if (a.task, a.level) == ("shuffled_patches", "2")]
    positions = matrices(said(puzzles, lambda truth, index: truth[::-1]))
    assert [matrix.position for matrix in positions] == [1, 2, 3, 4, 5, 6]
    for at, matrix in enumerate(positions):
        assert sum(map(sum, matrix.counts)) == len(puzzles)
        last = [a.truth.split("-")[5 - at] for a in puzzles]
        columns = [sum(counts[column] for counts in matrix.counts) for column in range(len(matrix.truths))]
        assert columns == [last.count(name) for name in matrix.truths]


def test_images_that_training_has_seen_are_refused(write_mix, tmp_path):
    run = tmp_path / "run"
    (run / "global_step_1" / "huggingface").mkdir(parents=True)
    (run / "command.txt").touch()
    mix = load_mix(write_mix(MIX), split="heldout")
    (run / "mix.yaml").write_text(MIX.replace("{samples: 30}", "{fraction: 0.05}"))
    with pytest.raises(EvaluationError, match=r"holds out 0.05 of synthetic:.*mix.yaml holds out 0.1"):
        check_heldout(mix, model=str(run / "global_step_1" / "huggingface"))
    (run / "mix.yaml").write_text(MIX)
    assert "drew none of them" in " ".join(check_heldout(mix, model=str(run / "global_step_1" / "huggingface")))
    # The mix of an earlier run in the folder, with paths that are relative to another folder.
    photos = 'source: "folder:photos"\nheldout: {fraction: 0.05}\ntasks: {flipped_patch: }'
    (run / "mix-2.yaml").write_bytes(self_contained(write_mix(photos, "photos.yaml")))
    write_mix(photos.replace("0.05", "0.1"), "photos.yaml")
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (72, 96, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    with pytest.raises(EvaluationError, match=r"mix-2.yaml holds out 0.05 of folder:"):
        check_heldout(load_mix(tmp_path / "photos.yaml", split="heldout"), model=str(run / "global_step_1"))
    assert "is not known" in " ".join(check_heldout(mix, model=str(tmp_path)))


def test_a_model_that_does_not_exist_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EvaluationError, match=r"neither a folder with a config\.json nor a reachable name"):
        version(str(tmp_path))


def test_only_one_process_writes_into_a_folder(mix, tmp_path):
    right_answers(mix, tmp_path / "out", samples=1)
    with (
        folder_of(tmp_path / "out").locked(),
        pytest.raises(EvaluationError, match=f"process {os.getpid()} on .* is working"),
    ):
        right_answers(mix, tmp_path / "out", samples=2)
    assert len(right_answers(mix, tmp_path / "out", samples=2)) == 2


def test_a_folder_with_other_files_is_refused(mix, tmp_path):
    with pytest.raises(EvaluationError, match=r"is not empty \(mix.yaml\) and holds no evaluation"):
        right_answers(mix, tmp_path, samples=1)
