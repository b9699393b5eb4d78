"""The same mix in TRL and in verifiers: their real packages, and the rewards of ``ssrl_core`` on the same completions.

`make test-trainers` runs these tests in an environment of their own; see requirements.txt.
"""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from ssrl_core import Key, Recipe, load_mix, render, score
from ssrl_core.reward import right_completion
from ssrl_core.trl import dataset, reward

DOCS = Path(__file__).parents[2] / "docs"
SERVER = Path(__file__).parents[1] / "fixtures" / "chat_server.py"
MIX = """
source: "synthetic:?width=192&height=144"
size: 112
heldout: {samples: 20}
tasks: {flipped_patch: , cropped_patch: }
"""
pytestmark = pytest.mark.usefixtures("one_thread")


def right(mix, index):
    return right_completion(mix[index].sample.truth, thinking=mix.config.thinking)


@pytest.fixture
def half_right(tiny_model):
    """A model whose every other completion is the right one, its processor, its mix and the mix file."""
    model, processor, mix, path = tiny_model(MIX)
    processor.tokenizer.padding_side = "left"  # as GRPOTrainer asks
    generate, answers = model.generate, iter(range(100))

    def scripted(input_ids, **settings):
        """The model's own completions, and the right one of each pair's first prompt."""
        said = generate(input_ids=input_ids, **settings)
        start = input_ids.shape[1]
        tokens = [list(row) for row in said[:, start:].tolist()]
        for row in range(0, len(tokens), 2):
            text = right(mix, next(answers)) + processor.tokenizer.eos_token
            tokens[row] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        longest = max(map(len, tokens))
        pad = processor.tokenizer.pad_token_id
        rest = torch.tensor([row + [pad] * (longest - len(row)) for row in tokens])
        return torch.cat([said[:, :start], rest], dim=1)

    model.generate = scripted
    yield model, processor, mix, path.parent / "mix.yaml"
    del model.generate


def test_two_steps_of_grpo_in_trl_reward_completions_as_we_do(half_right, tmp_path):
    model, processor, mix, path = half_right
    seen = []

    def watched(completions, key, **more):
        rewards = reward(completions, key, **more)
        seen.extend(zip(key, more["recipe"], [said[0]["content"] for said in completions], rewards, strict=True))
        return rewards

    settings = GRPOConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, num_generations=2, shuffle_dataset=False,
        max_completion_length=24, learning_rate=1e-3, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True,
        bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = GRPOTrainer(
        model, reward_funcs=watched, args=settings, train_dataset=dataset(path), processing_class=processor
    )
    trainer.train()
    steps = [log for log in trainer.state.log_history if "loss" in log]
    assert len(steps) == 2 and all(log["grad_norm"] > 0 for log in steps)
    assert any(not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    # Two steps of two prompts with two completions each, in the order of the mix.
    assert [json.loads(key)["truth"] for key, *_ in seen] == [mix[k].sample.truth for k in (0, 0, 1, 1, 2, 2, 3, 3)]
    for number, (key, recipe, completion, value) in enumerate(seen):
        assert value == score(Key.from_json(key), completion)["score"]
        assert render(Recipe.from_json(recipe)).truth == json.loads(key)["truth"]
        assert value == 1.0 or number % 2
    assert {log["flipped_patch@1/acc"] for log in steps} <= {0.5, 1.0}


def test_the_code_for_trl_in_the_documentation_makes_a_trainer(tiny_model, tmp_path, monkeypatch):
    model = tiny_model(MIX)[3]
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "trainers.md").read_text(), re.DOTALL)
    monkeypatch.chdir(model.parent)
    ran = []
    monkeypatch.setattr(GRPOTrainer, "train", lambda self: ran.append(self))
    for old, new in (('"Qwen/Qwen2.5-VL-3B-Instruct"', "model"), ('"run"', "run, bf16=False, report_to=[]")):
        assert old in code
        code = code.replace(old, new)
    exec(code, {"model": str(model), "run": str(tmp_path)})
    (trainer,) = ran
    assert len(trainer.train_dataset) == 10_000 and len(trainer.eval_dataset) == 20


def test_a_row_for_trl_has_a_place_for_each_image_and_is_made_when_it_is_read(tiny_model):
    _, _, _, path = tiny_model(MIX)
    rows = dataset(path.parent / "mix.yaml", split="heldout")
    assert len(rows) == 20 and rows[0].keys() == {"prompt", "images", "key", "recipe"}
    heldout = load_mix(path.parent / "mix.yaml", split="heldout")
    for index in (1, 0):
        row, example = rows[index], heldout[index]
        (message,) = row["prompt"]
        parts = [part.get("text", "<image>") for part in message["content"]]
        assert "".join(parts) == example.prompt
        assert [np.asarray(image).tobytes() for image in row["images"]] == [
            np.asarray(image).tobytes() for image in example.images
        ]


@contextmanager
def serving(model, faults):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, SERVER, model, "--port", str(port), "--faults", str(faults)])
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and server.poll() is None:
            with suppress(OSError):
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def test_ten_rollouts_of_verifiers_are_rewarded_as_ours(tiny_model, tmp_path):
    """`vf-eval` itself, and a server of the model that is made to say the right answer to every other request."""
    from verifiers.v1.cli.eval.main import main

    _, _, mix, model = tiny_model(MIX)
    reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "tiny"}
    faults = {}
    for number in range(0, 10, 2):
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": right(mix, number)}}
        faults[str(number)] = {"say": json.dumps(reply | {"choices": [choice]})}
    (tmp_path / "faults.json").write_text(json.dumps(faults))
    (shown,) = re.findall(r"^vf-eval (.*)$", (DOCS / "trainers.md").read_text(), re.MULTILINE)
    with serving(model, tmp_path / "faults.json") as url:
        given = {"mix.yaml": str(model.parent / "mix.yaml"), "MODEL": "tiny", "100": "10", "http://HOST:8000/v1": url}
        main([
            *(given.get(word, word) for word in shown.split()),
            *("-c", "1", "--sampling.max-tokens", "8", "--no-rich", "-o", str(tmp_path), "--run.name", "ten"),
        ])  # fmt: skip
    traces = [json.loads(line) for line in (tmp_path / "ten" / "traces.jsonl").read_text().splitlines()]
    assert len(traces) == 10
    found = {}
    for trace in traces:
        (trace,) = trace.get("traces", [trace])
        data = trace["task"]["data"]
        (said,) = [node["message"]["content"] for node in trace["nodes"] if node["message"]["role"] == "assistant"]
        verdict = score(Key.from_json(data["key"]), said)
        assert trace["rewards"]["reward"]["score"] == verdict["score"]
        assert all(trace["metrics"][name] == verdict[name] for name in ("acc", "format", "error"))
        assert render(Recipe.from_json(data["recipe"])).truth == json.loads(data["key"])["truth"]
        found[data["idx"]] = verdict["score"]
    assert all(found[number] == 1.0 for number in range(0, 10, 2)) and min(found.values()) == 0.0
    requests = [json.loads(line) for line in (tmp_path / "faults.json.log").read_text().splitlines()]
    assert requests[0]["prompt"] == mix[1].prompt  # with the images in their places
    assert requests[0]["sizes"] == [list(image.size) for image in mix[1].images]
