"""``ssrl eval`` with real processes, a real server, and faults in it."""

import fcntl
import json
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

from ssrl_core.evaluate import EvaluationError, Sampling, Transformers, answers_of, compare, evaluate, rows
from ssrl_core.evaluate.confusion import NONE, OTHER, matrices
from ssrl_core.evaluate.endpoint import MOST_FAILURES, Endpoint
from ssrl_core.evaluate.folder import plan_of
from ssrl_core.evaluate.heldout import check_heldout
from ssrl_core.evaluate.models import Written, version
from ssrl_core.evaluate.report import write_report
from ssrl_core.evaluate.serving import Served
from ssrl_core.mix import load_mix
from ssrl_core.mix.include import self_contained
from ssrl_core.models.tiny import build_tiny_model
from ssrl_core.cli.score import rescore

torch = pytest.importorskip("torch", reason="the 'train' extra is not installed")
pytest.importorskip("openai", reason="the 'eval' extra is not installed")

SERVER = Path(__file__).parent / "fixtures" / "chat_server.py"
SSRL = [sys.executable, "-m", "ssrl_core"]
MIX = """
source: "synthetic:?width=192&height=144"
size: 112
heldout: {samples: 30}
tasks: {flipped_patch: , cropped_patch: , shuffled_patches: {level: {1: 1, 2: 1}}}
"""
SHORT = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a mix and a model that has learned to answer, though not to see."""
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
    for _ in range(8):
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
    """The URL of a server of the model, which does what stands in ``faults``."""
    faults.write_text("{}")
    with serving(site / "model", "--faults", faults) as url:
        yield url


@pytest.fixture(autouse=True)
def no_faults(request):
    yield
    if "faults" in request.fixturenames:
        request.getfixturevalue("faults").write_text("{}")


def requests(faults):
    """What the server was asked so far."""
    log = Path(f"{faults}.log")
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def order(server, faults, plan):
    """Let the next requests go wrong: position from here -> fault; ``*`` is every other one."""
    count = json.loads(urllib.request.urlopen(f"{server}/count").read())
    faults.write_text(json.dumps({key if key == "*" else str(count + key): fault for key, fault in plan.items()}))


def ssrl(*words, cwd):
    return subprocess.run([*SSRL, *map(str, words)], capture_output=True, text=True, cwd=cwd)


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


def test_an_evaluation_that_was_killed_goes_on_and_nothing_is_lost_or_doubled(site, server, faults, tmp_path):
    words = ["eval", site / "mix.yaml", "--endpoint", server, "--name", "tiny", "-o", "out", "--max-tokens", "12"]
    lines = tmp_path / "out" / "answers.jsonl"
    order(server, faults, {**dict.fromkeys(range(11)), "*": "hang"})
    asked = len(requests(faults))
    process = subprocess.Popen([*SSRL, *map(str, words), "--concurrency", "4"], cwd=tmp_path)
    until(lambda: lines.exists() and lines.read_bytes().count(b"\n") == 11)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = lines.read_bytes()
    lines.write_bytes(before + b'{"index": 29, "tas')  # as a kill in the middle of a line leaves it
    faults.write_text("{}")
    done = ssrl(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert lines.read_bytes().startswith(before)
    assert sorted(json.loads(line)["index"] for line in lines.read_text().splitlines()) == list(range(30))
    assert len(requests(faults)) - asked == 30
    assert json.loads(done.stdout)["answers"] == 30
    uninterrupted = ssrl(*words[:6], "-o", "whole", "--max-tokens", "12", cwd=tmp_path)
    assert uninterrupted.returncode == 0, uninterrupted.stderr
    assert answers_of(tmp_path / "whole") == answers_of(tmp_path / "out")
    assert (tmp_path / "whole/report.html").read_bytes() == (tmp_path / "out/report.html").read_bytes()


def test_a_request_that_fails_is_asked_again(server, faults, heldout, tmp_path):
    order(server, faults, {0: 429, 1: 500, 2: "drop", 3: 503})
    done = evaluate(heldout, Endpoint(server, "tiny", concurrency=2), tmp_path, samples=6, sampling=SHORT)
    assert len(done.answers) == 6 and not done.failed


def test_a_request_that_fails_for_good_is_no_wrong_answer_and_is_asked_again_at_the_next_start(
    site, server, faults, tmp_path
):
    words = [
        "eval",
        site / "mix.yaml",
        "--endpoint",
        server,
        "--name",
        "tiny",
        "-o",
        "out",
        "--max-tokens",
        "12",
        "-n",
        8,
    ]
    order(server, faults, {2: 500, 5: 400})
    done = ssrl(*words, "--retries", 0, "--concurrency", 1, "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["answers"] == 6
    assert "1 x InternalServerError" in done.stderr and "1 x BadRequestError" in done.stderr
    assert "1 samples have no answer" in (tmp_path / "out/report.html").read_text()
    done = ssrl(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
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


def test_a_server_that_is_not_there_lets_nobody_in_or_lacks_the_model_is_an_error_that_says_so(
    site, server, heldout, tmp_path
):
    with pytest.raises(EvaluationError, match="no server answers"):
        evaluate(heldout, Endpoint("http://127.0.0.1:9/v1", "tiny"), tmp_path / "1", sampling=SHORT)
    with pytest.raises(EvaluationError, match=r"tinny.*It has tiny. Did you mean 'tiny'\?"):
        evaluate(heldout, Endpoint(server, "tinny"), tmp_path / "2", sampling=SHORT)
    with serving(site / "model", "--key", "secret") as guarded:
        with pytest.raises(EvaluationError, match=r"wants a key \(401\)\. Set OPENAI_API_KEY"):
            evaluate(heldout, Endpoint(guarded, "tiny"), tmp_path / "3", sampling=SHORT)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", "secret")
            assert evaluate(heldout, Endpoint(guarded, "tiny"), tmp_path / "3", samples=1, sampling=SHORT).answers


def test_a_server_of_our_own_is_up_for_the_evaluation_only(site, heldout, tmp_path):
    command = (sys.executable, str(SERVER), "{model}", "--port", "{port}", "--name", "{model}")
    model = Served(str(site / "model"), log=tmp_path / "log", command=command)
    assert len(evaluate(heldout, model, tmp_path / "out", samples=3, sampling=SHORT).answers) == 3
    broken = Served(str(site / "model"), log=tmp_path / "log", command=(sys.executable, "-c", "exit('no GPU')"))
    with pytest.raises(EvaluationError, match=r"ended with code 1.*\n.*no GPU"):
        evaluate(heldout, broken, tmp_path / "out2", samples=3, sampling=SHORT)


class Fixed:
    """A model that says what a function makes of the truth."""

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


def test_what_another_evaluation_has_begun_is_not_continued(mix, write_mix, tmp_path):
    model = Fixed(lambda truth, index: truth)
    evaluate(mix, model, tmp_path / "out", samples=3)
    with pytest.raises(EvaluationError, match=r"sampling\.temperature: 0\.0 -> 1.0"):
        evaluate(mix, model, tmp_path / "out", samples=3, sampling=Sampling(temperature=1.0))
    other = load_mix(write_mix(MIX + "seed: 8", "other.yaml"), split="heldout")
    with pytest.raises(EvaluationError, match=r"mix\.seed: 0 -> 8"):
        evaluate(other, model, tmp_path / "out", samples=3)


def test_what_is_no_text_is_kept_all_the_same(mix, tmp_path):
    done = evaluate(mix, Fixed(lambda truth, index: truth + " \ud800"), tmp_path, samples=2)
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
    model = Fixed(lambda truth, index: truth)
    first = evaluate(mix, model, tmp_path, samples=3)
    longer = evaluate(mix, model, tmp_path, samples=7)
    assert longer.answers[:3] == first.answers and len(longer.answers) == 7
    with pytest.raises(EvaluationError, match=r"it has 20\. Raise heldout.samples"):
        evaluate(mix, model, tmp_path, samples=21)


def test_saved_answers_score_the_same_again(mix, tmp_path):
    evaluate(mix, Fixed(lambda truth, index: truth if index % 2 else "1"), tmp_path)
    facts = rescore([tmp_path / "answers.jsonl"])
    assert not facts["skipped"]
    assert sum(task["saved"] for task in facts["tasks"].values()) == 20
    assert all(task["differ"] == 0 for task in facts["tasks"].values())


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """96 right answers."""
    folder = tmp_path_factory.mktemp("right")
    (folder / "mix.yaml").write_text(MIX.replace("30", "96"))
    mix = load_mix(folder / "mix.yaml", split="heldout")
    return evaluate(mix, Fixed(lambda truth, index: truth), folder / "out").answers


def said(answers, text):
    """The answers as if the model had said what a function makes of the truth and the index."""
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
    done = ssrl("compare", "1", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sampling.temperature: 0.0 -> 1.0" in done.stdout and "worse" in done.stdout
    *_, total = json.loads(ssrl("compare", "1", "2", "--json", cwd=tmp_path).stdout)["rows"]
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
    # Of earlier runs in the folder, and with paths that were relative to another place.
    photos = 'source: "folder:photos"\nheldout: {fraction: 0.05}\ntasks: {flipped_patch: }'
    (run / "mix-2.yaml").write_bytes(self_contained(write_mix(photos, "photos.yaml")))
    write_mix(photos.replace("0.05", "0.1"), "photos.yaml")
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (72, 96, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    with pytest.raises(EvaluationError, match=r"mix-2.yaml holds out 0.05 of folder:"):
        check_heldout(load_mix(tmp_path / "photos.yaml", split="heldout"), model=str(run / "global_step_1"))
    assert "No record" in " ".join(check_heldout(mix, model=str(tmp_path)))


def test_a_model_that_is_not_there_is_an_error_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EvaluationError, match=r"neither a folder with a config\.json nor a name on the hub"):
        version(str(tmp_path))


def test_one_folder_is_written_by_one_process(mix, tmp_path):
    model = Fixed(lambda truth, index: truth)
    evaluate(mix, model, tmp_path, samples=1)
    with open(tmp_path / "answers.jsonl") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(EvaluationError, match="another process writes"):
            evaluate(mix, model, tmp_path, samples=2)
    assert len(evaluate(mix, model, tmp_path, samples=2).answers) == 2
