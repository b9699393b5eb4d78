"""Benchmarks through a vLLM server: all miniatures, killed and resumed, and a video as one part of a request."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ssrl_core.benchmarks.data import check
from ssrl_core.benchmarks.installed import load
from ssrl_core.benchmarks.questions import Longest
from ssrl_core.cli import app
from ssrl_core.evaluate.serving import command_for, running

pytestmark = pytest.mark.timeout(480)

KEPT = str(Path(__file__).parents[2] / "examples" / "tiny_vlm" / "model")
TOKENS = 24
QUESTIONS = 6
"""Questions of each benchmark, from the first."""


@pytest.fixture(scope="module")
def server(miniatures, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a vLLM server with limits for all miniatures, and its log."""
    module, data = miniatures
    found = [(load(name)[0], data / name) for name in module.COUNTS]
    longest = [Longest.of(b, check(b, folder)[0], "standard", "none") for b, folder in found]
    command = *command_for(longest, KEPT, max_tokens=TOKENS, room=1.1), "--enforce-eager"
    log = tmp_path_factory.mktemp("server") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        with running(command, KEPT, log=log) as url:
            yield url, log


def results(folder: Path) -> dict[tuple[str, int], str]:
    """Benchmark and index -> completion. Fails if a question was answered twice."""
    files = {path.parent.name: path.read_text().splitlines() for path in folder.glob("*/answers.jsonl")}
    rows = [(name, json.loads(line)) for name, lines in files.items() for line in lines]
    found = {(name, row["index"]): row["completion"] for name, row in rows}
    assert len(found) == len(rows)
    return found


def ssrl(*words: str) -> str:
    result = CliRunner().invoke(app(), list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output[-4000:]
    return result.output


def test_a_killed_benchmark_resumes_and_answers_as_transformers_does(server, miniatures, tmp_path) -> None:
    module, data = miniatures
    url, log = server
    total, out = sum(min(count, QUESTIONS) for count in module.COUNTS.values()), tmp_path / "vllm"
    words = ["benchmark", *module.COUNTS, "--data", str(data), "--max-tokens", str(TOKENS), "-n", str(QUESTIONS)]
    asked = [*words, "--endpoint", url, "--name", KEPT, "-o", str(out)]
    before = log.read_text().count("POST /v1/chat/completions")
    with subprocess.Popen([sys.executable, "-m", "ssrl_core", *asked], stderr=subprocess.PIPE, text=True) as process:
        while not process.stderr.readline().startswith("Spatial457"):  # the third
            assert process.poll() is None
        while f" of {QUESTIONS} questions" not in process.stderr.readline():
            assert process.poll() is None
        process.kill()
    part = results(out)
    assert 2 * QUESTIONS < len(part) < total
    ssrl(*asked)
    whole = results(out)
    assert len(whole) == total and part.items() <= whole.items()
    again = log.read_text().count("POST /v1/chat/completions") - before - total
    assert again <= 16  # requests that waited for an answer when the process was killed

    ssrl(*words, "--model", KEPT, "-o", str(tmp_path / "transformers"))
    here = results(tmp_path / "transformers")
    equal = sum(here[key] == whole[key] for key in here)
    print(f"{equal} of {total} greedy completions are equal")
    assert here.keys() == whole.keys() and equal >= 0.9 * total  # where two tokens nearly tie, the last bits decide
    assert "McNemar" in ssrl("compare", str(out), str(tmp_path / "transformers"))


def test_a_video_is_sent_as_one_part(server, miniatures, tmp_path) -> None:
    _, data = miniatures
    url, _ = server
    words = ["benchmark", "vsibench", "--data", str(data), "--endpoint", url, "--name", KEPT, "--video", "part"]
    words += ["--max-tokens", str(TOKENS), "-n", "4", "-o", str(tmp_path)]
    refused = CliRunner().invoke(app(), words)
    said = str(refused.exception)
    assert "maximum context length" in said and "It had a video of 32 frames" in said
    # The processor of this model enlarges the frames of a video, unless it is told not to.
    size = {"size": {"shortest_edge": 784, "longest_edge": 200704}}
    ssrl(*words, "--body", json.dumps({"mm_processor_kwargs": size}))
    assert len(results(tmp_path)) == 4
