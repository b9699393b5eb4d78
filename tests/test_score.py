"""Scoring saved rollouts again with the installed verifiers."""

import json
import sys

import pytest
from typer.testing import CliRunner

from ssrl_core.cli import app
from ssrl_core.cli.score import rescore, text_of_scores
from ssrl_core.errors import SSRLError, UnknownPlugin
from ssrl_core.mix import load_mix
from ssrl_core.reward import Key, score

RIGHT, WRONG, FORMLESS = "<think>I look.</think>\\boxed{A}", "<think>I look.</think>\\boxed{B}", "A"


def write_lines(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def plain(completion, **more):
    return {"task": "toy", "truth": "A", "completion": completion} | more


@pytest.fixture
def toy(install_toy):
    install_toy()


def test_the_rollouts_of_each_task_and_level_are_scored(toy, tmp_path):
    file = write_lines(
        tmp_path / "rollouts.jsonl",
        *(plain(text, level="1", params={"side": 2}) for text in (RIGHT, RIGHT, WRONG, FORMLESS)),
        plain(RIGHT, level="2"),
    )
    tasks = rescore([file])["tasks"]
    assert tasks["toy@1"] == {
        "n": 4, "score": pytest.approx(0.525), "acc": 0.5, "format": 0.75, "error": 0, "saved": 0, "differ": 0,
    }  # fmt: skip
    assert tasks["toy@2"]["n"] == 1 and tasks["toy@2"]["score"] == 1.0


def test_a_completion_that_is_no_text_is_scored_and_written(toy, tmp_path):
    file = write_lines(tmp_path / "rollouts.jsonl", plain(RIGHT + "\ud800"))
    rescore([file], output=tmp_path / "new.jsonl")
    assert json.loads((tmp_path / "new.jsonl").read_text())["completion"] == RIGHT + "?"


def test_the_form_is_worth_what_it_was_worth_in_the_mix(toy, tmp_path):
    file = write_lines(tmp_path / "rollouts.jsonl", plain(WRONG, format_weight=0.4))
    assert rescore([file])["tasks"]["toy@?"]["score"] == pytest.approx(0.4)


def test_the_form_can_be_given_another_worth(toy, tmp_path):
    file = write_lines(tmp_path / "rollouts.jsonl", plain(WRONG, format_weight=0.4, score=0.4), plain(RIGHT, score=1.0))
    result = CliRunner().invoke(
        app(), ["score", str(file), "--format-weight", "0.25", "-o", str(tmp_path / "new"), "--json"]
    )
    facts = json.loads(result.output)["tasks"]["toy@?"]
    assert (facts["score"], facts["differ"]) == (pytest.approx((0.25 + 1) / 2), 1)
    assert [json.loads(line)["score"] for line in (tmp_path / "new").read_text().splitlines()] == [0.25, 1.0]
    again = rescore([tmp_path / "new"])["tasks"]["toy@?"]
    assert again["differ"] == 0
    assert CliRunner().invoke(app(), ["score", str(file), "--format-weight", "1.5"]).exit_code == 2


def test_scores_that_a_changed_verifier_gives_otherwise_are_counted(install_toy, tmp_path):
    install_toy()
    lines = [plain(text) | score(Key("toy", "A"), text) for text in (RIGHT, WRONG, WRONG, FORMLESS)]
    # As a trainer keeps them, in 32 bits; and one without a score.
    lines[1]["score"] = 0.10000000149011612
    file = write_lines(tmp_path / "rollouts.jsonl", *lines, plain(RIGHT))
    before = rescore([file])["tasks"]["toy@?"]
    assert (before["saved"], before["differ"]) == (4, 0)
    install_toy(("float(answer == truth)", "0.5"), version="0.2")
    sys.modules.pop("ssrl_plugin_toy")
    facts = rescore([file])
    assert (facts["tasks"]["toy@?"]["saved"], facts["tasks"]["toy@?"]["differ"]) == (4, 3)
    assert "3 of 4" in text_of_scores(facts)


def test_the_key_of_every_task_survives_the_way_through_a_file_and_scores_its_truth(write_mix):
    mix = load_mix(
        write_mix(
            'source: "synthetic:?width=192&height=144"\nsize: 112\nformat_weight: 0.2\ntasks: {shuffled_patches: , '
            "flipped_patch: , cropped_patch: , depth_ordering: {options: {partial_credit: true}}, relative_position: }"
        )
    )
    for example in mix.some_of_each():
        key = Key.of(example, format_weight=mix.config.format_weight)
        again = Key.from_json(key.to_json())
        assert again == key and "\n" not in key.to_json()
        assert score(again, f"<think>x</think>\\boxed{{{example.sample.truth}}}")["score"] == 1.0
        assert score(again, "<think>x</think>\\boxed{neither}")["score"] == pytest.approx(0.2)


def test_the_dumps_of_verl_are_scored(toy, tmp_path):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    key = Key("toy", "A", level="1", format_weight=0.1).to_json()
    PPOTrainer._write_generations(
        inputs=["user\nA or B?"] * 3,
        outputs=[RIGHT, WRONG, FORMLESS],
        gts=[key] * 3,
        scores=[1.0, 0.5, 0.0],
        reward_extra_infos_dict={"uid": ["a_0_0", "a_1_0", "a_2_0"]},
        dump_path=str(tmp_path),
        global_steps=7,
    )
    tasks = rescore([tmp_path / "7.jsonl"], output=tmp_path / "again.jsonl")["tasks"]
    assert (tasks["toy@1"]["n"], tasks["toy@1"]["acc"], tasks["toy@1"]["differ"]) == (3, pytest.approx(1 / 3), 1)
    again = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert [line["score"] for line in again] == pytest.approx([1.0, 0.1, 0.0])
    assert [line["uid"] for line in again] == ["a_0_0", "a_1_0", "a_2_0"]
    assert all(line["step"] == 7 and line["gts"] == key for line in again)


def test_lines_that_cannot_be_scored_are_counted_with_the_reason(toy, tmp_path):
    file = write_lines(
        tmp_path / "rollouts.jsonl",
        plain(RIGHT),
        {"output": RIGHT, "gts": "A", "score": 1.0},
        {"output": RIGHT, "gts": None},
        plain(RIGHT, level=["1"]),
        plain(RIGHT, params="side"),
        plain(RIGHT, wrappers="loud"),
        plain(RIGHT, format_weight=2),
        ["a list"],
    )
    with open(file, "ab") as out:
        out.write(b'\n{"task": "toy", "tr')
    facts = rescore([file])
    assert facts["tasks"]["toy@?"]["n"] == 1
    assert sum(facts["skipped"].values()) == 8
    assert facts["skipped"]["not JSON"] == 1
    assert facts["skipped"]["its gts is not the key that ssrl writes into reward_model.ground_truth"] == 1
    assert "skipped 1: not JSON" in text_of_scores(facts)


def test_a_verifier_that_fails_costs_that_rollout_its_score(install_toy, tmp_path):
    install_toy(("return float(answer == truth)", "return {'A': 1.0}[answer]"))
    file = write_lines(tmp_path / "rollouts.jsonl", plain(RIGHT), plain(WRONG))
    facts = rescore([file])["tasks"]["toy@?"]
    assert (facts["n"], facts["error"], facts["acc"]) == (2, 1, 0.5)


def test_files_that_cannot_be_scored_at_all_are_an_explanation(toy, tmp_path):
    with pytest.raises(SSRLError, match=r"cannot read or write .*nothing\.jsonl: No such file"):
        rescore([tmp_path / "nothing.jsonl"])
    empty = write_lines(tmp_path / "empty.jsonl")
    with pytest.raises(SSRLError, match=r"no rollout to score in .*empty\.jsonl: they are empty"):
        rescore([empty], output=tmp_path / "again.jsonl")
    assert not (tmp_path / "again.jsonl").exists()
    with pytest.raises(UnknownPlugin, match="Did you mean 'toy'"):
        rescore([write_lines(tmp_path / "other.jsonl", plain(RIGHT, task="tpy"))])


def test_a_file_can_be_replaced_by_its_new_scores(toy, tmp_path):
    file = write_lines(tmp_path / "rollouts.jsonl", *[plain(RIGHT, score=0.0, note="ü")] * 3)
    assert rescore([file], output=file)["tasks"]["toy@?"]["differ"] == 3
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["score"] for line in lines] == [1.0] * 3 and lines[0]["note"] == "ü"
    assert rescore([file])["tasks"]["toy@?"]["differ"] == 0


def test_the_command_prints_a_table_or_json(tmp_path):
    key = {"task": "flipped_patch", "level": "1", "truth": "3-vertical", "params": {"side": 2}}
    completions = "<think>x</think>\\boxed{3 - vertical}", "<think>x</think>\\boxed{3-horizontal}"
    file = write_lines(tmp_path / "r.jsonl", *(key | {"completion": text, "score": 1.0} for text in completions))

    def ssrl(*arguments):
        return CliRunner().invoke(app(["score"]), ["score", *map(str, arguments)])

    facts = json.loads(ssrl(file, "--json").output)["tasks"]["flipped_patch@1"]
    assert (facts["n"], facts["acc"], facts["format"], facts["differ"]) == (2, 0.5, 1.0, 1)
    assert "flipped_patch@1" in ssrl(file).output and "1 of 2" in ssrl(file).output
    assert isinstance(ssrl(tmp_path / "nothing.jsonl").exception, SSRLError)
