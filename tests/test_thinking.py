"""Modes of thinking, and chat templates that open or close the thinking: in mixes, rewards, data and evaluations."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ssrl_core.cli import app
from ssrl_core.cli.score import rescore
from ssrl_core.errors import MixError, RecipeError
from ssrl_core.evaluate import EvaluationError, answers_of, evaluate, finish
from ssrl_core.evaluate.models import Failed, Written
from ssrl_core.export.rows import row
from ssrl_core.form import INSTRUCTIONS
from ssrl_core.mix import load_mix
from ssrl_core.mix.file import read_mix
from ssrl_core.reward import Key, compute_score, right_completion, score

MODEL = Path(__file__).parents[1] / "examples" / "tiny_vlm" / "model"
MIX = 'source: "synthetic:?width=192&height=144"\nsize: 112\nheldout: {samples: 40}\ntasks: {cropped_patch: }\n'
MODES = ("required", "optional", "none")
OPENED, CLOSED = "<think>\n", "<think>\n\n</think>\n\n"
SMALL = (
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
    "trainer.n_gpus_per_node=1",
)


def ssrl(command, *words):
    """Run a command in this process."""
    return CliRunner().invoke(app([command]), [command, *map(str, words)])


@pytest.fixture
def model(tmp_path):
    """A function from what the chat template writes of a completion to the folder of a model."""

    def build(begun):
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        shutil.copytree(MODEL, folder)
        template = (folder / "chat_template.jinja").read_text().removesuffix("{% endif %}")
        (folder / "chat_template.jinja").write_text(template + f"{{{{ {json.dumps(begun)} }}}}" + "{% endif %}")
        return folder

    return build


def test_the_instruction_follows_the_mode_and_the_default_has_not_changed(write_mix):
    assert [read_mix(write_mix(f"{MIX}thinking: {mode}"))[0].instruction for mode in MODES] == list(
        INSTRUCTIONS.values()
    )
    assert read_mix(write_mix(MIX))[0] == read_mix(write_mix(f"{MIX}thinking: required"))[0]
    assert "<think>" not in INSTRUCTIONS["none"]
    assert load_mix(write_mix(MIX), thinking="none")[0].prompt.endswith(INSTRUCTIONS["none"])
    assert read_mix(write_mix(f"{MIX}thinking: none\ninstruction: Box it."))[0].instruction == "Box it."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("thinking: false", r"thinking: False: Input should be 'required', 'optional' or 'none'$"),
        ("thinking: never", r"thinking: 'never': Input should be"),
        ("thinking: none\ninstruction: Use <think>.", r"instruction: 'Use <think>\.'.*asks for thinking"),
    ],
)
def test_a_mode_that_is_none_or_contradicts_the_instruction_is_refused(write_mix, text, reason):
    with pytest.raises(MixError, match=reason):
        read_mix(write_mix(MIX + text))


def test_another_mode_does_not_keep_an_instruction_that_was_written_for_the_first(write_mix):
    path = write_mix(MIX + "instruction: Think, then box it.")
    with pytest.raises(MixError, match=r"mix\.yaml: instruction: written for another mode than 'none'"):
        read_mix(path, thinking="none")
    assert read_mix(path, thinking="required")[0].instruction == "Think, then box it."


DIRECT, THOUGHT, LONE = "It is \\boxed{A}.", "<think>I look.</think>\\boxed{A}", "I look.\n</think>\n\n\\boxed{A}"


@pytest.mark.parametrize(
    ("mode", "opened", "rewards"),
    [
        ("required", False, {DIRECT: 0, THOUGHT: 1, LONE: 0}),
        ("required", True, {DIRECT: 0, THOUGHT: 1, LONE: 1}),
        ("optional", False, {DIRECT: 1, THOUGHT: 1, LONE: 0}),
        ("optional", True, {DIRECT: 0, THOUGHT: 1, LONE: 1}),
        ("none", False, {DIRECT: 1, THOUGHT: 0, LONE: 0}),
        ("none", True, {DIRECT: 0, THOUGHT: 0, LONE: 0}),
        ("required", None, {DIRECT: 0, THOUGHT: 1, LONE: 1}),
        ("optional", None, {DIRECT: 1, THOUGHT: 1, LONE: 1}),
        ("none", None, {DIRECT: 1, THOUGHT: 0, LONE: 0}),
    ],
)
def test_the_key_carries_the_mode_and_what_the_template_wrote(mode, opened, rewards):
    key = Key("cropped_patch", "A", thinking=mode, opened=opened)
    again = Key.from_json(key.to_json())
    assert again == key
    assert {text: score(again, text)["score"] for text in rewards} == rewards


def test_a_key_that_an_earlier_version_wrote_still_requires_thinking():
    old = '{"format_weight":0.1,"level":"1","params":{},"task":"cropped_patch","truth":"A","wrappers":[]}'
    assert compute_score("x", DIRECT, old)["score"] == 0 and compute_score("x", THOUGHT, old)["score"] == 1
    assert Key.from_json(old) == Key("cropped_patch", "A", level="1")


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_an_export_carry_the_mode(write_mix, mode):
    mix = load_mix(write_mix(f"{MIX}thinking: {mode}"))
    made = row(mix, 0, mix[0], images=[])
    key = Key.from_json(made["reward_model"]["ground_truth"])
    assert key.thinking == mode and made["prompt"][0]["content"].endswith(INSTRUCTIONS[mode])
    assert score(key, right_completion(key.truth, thinking=mode))["score"] == 1


def test_dumps_of_verl_are_scored_by_the_prompt_that_the_model_saw(tmp_path):
    key = Key("cropped_patch", "A").to_json()
    lines = [{"input": f"user\nWhich?\nassistant\n{end}", "output": LONE, "gts": key} for end in ("", "<think>\n")]
    file = tmp_path / "1.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rescore([file], output=tmp_path / "new.jsonl")
    assert [json.loads(line)["score"] for line in (tmp_path / "new.jsonl").read_text().splitlines()] == [0, 1]


def test_saved_rollouts_are_judged_by_another_mode_on_demand(tmp_path):
    file = tmp_path / "rollouts.jsonl"
    lines = [{"task": "cropped_patch", "truth": "A", "completion": text} for text in (DIRECT, DIRECT, THOUGHT)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shares = {}
    for mode in MODES:
        done = ssrl("score", file, "--thinking", mode, "--json")
        shares[mode] = json.loads(done.stdout)["tasks"]["cropped_patch@?"]["acc"]
    assert shares == {"required": pytest.approx(1 / 3), "optional": 1.0, "none": pytest.approx(2 / 3)}
    assert rescore([file])["tasks"]["cropped_patch@?"]["acc"] == pytest.approx(1 / 3)


class Saying:
    """A model that says a function of truth and index."""

    facts = {"engine": "fixed", "model": "fixed"}  # noqa: RUF012

    def __init__(self, say, written=None):
        self.say, self.written = say, written

    def answer(self, examples, sampling):
        for index, example in examples:
            said = self.say(example.sample.truth, index)
            yield (index, example), said if isinstance(said, Written | Failed) else Written(said, cut=False)


@pytest.fixture
def heldout(write_mix):
    return lambda mode="required": load_mix(write_mix(f"{MIX}thinking: {mode}"), split="heldout")


@pytest.mark.parametrize("mode", MODES)
def test_an_evaluation_judges_by_the_mode_of_the_mix_and_scores_the_same_again(heldout, tmp_path, mode):
    done = evaluate(heldout(mode), Saying(lambda truth, index: f"\\boxed{{{truth}}}"), tmp_path / "out", samples=8)
    assert {answer.score for answer in done.answers} == {0.0 if mode == "required" else 1.0}
    assert {answer.thinking for answer in answers_of(tmp_path / "out")} == {mode}
    facts = rescore([tmp_path / "out" / "answers.jsonl"])["tasks"]["cropped_patch@1"]
    assert (facts["saved"], facts["differ"]) == (8, 0)


def test_most_completions_without_the_form_are_reported_at_once_with_an_example(heldout, tmp_path, caplog):
    asked = []

    def say(truth, index):
        asked.append(len(caplog.records))
        return f"<think>I look.</think>\\boxed{{{truth}}}" if index % 3 == 0 else f"I guess \\boxed{{{truth}}}"

    done = evaluate(heldout(), Saying(say), tmp_path / "out")
    assert asked[:20] == [0] * 20 and set(asked[20:]) == {1}  # said once, after the first 20 of 40
    (record,) = caplog.records
    assert "13 of the first 20 completions lack the required form" in record.message
    assert "13 x it has no <think>" in record.message and "sample 1: 'I guess \\\\boxed{" in record.message
    assert "--thinking" in record.message
    summary = finish(tmp_path / "out", done, notes=["A note."])
    assert summary["notes"][0] == "A note." and "13 of the first 20" in summary["notes"][1]
    assert "13 of the first 20" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "it is empty"),
        (Written("<think>I look at", cut=True), "it was cut at the maximum length"),
        (THOUGHT.replace("\\boxed{A}", "A"), "it has no \\boxed{}"),
        (Written(LONE, cut=False, opened=False), "it has </think> but no <think>"),
        ("<think>\\boxed{A}</think>A", "it has a \\boxed{} inside the thinking"),
    ],
)
def test_the_reason_that_is_reported_is_the_reason(heldout, tmp_path, caplog, said, reason):
    evaluate(heldout(), Saying(lambda truth, index: said), tmp_path / "out", samples=3)
    (record,) = caplog.records
    assert (
        f"3 of the first 3 completions lack the required form and earn nothing (thinking: required): 3 x {reason}."
        in (record.message)
    )


def test_half_of_the_completions_without_the_form_is_no_warning(heldout, tmp_path, caplog):
    evaluate(heldout(), Saying(lambda truth, index: THOUGHT if index % 2 else "A"), tmp_path / "out")
    assert not caplog.records


def test_completions_that_a_server_template_opened_are_judged_and_said(heldout, tmp_path, caplog):
    opened = Saying(lambda truth, index: Written(f"I look.</think>\\boxed{{{truth}}}", cut=False))
    done = evaluate(heldout(), opened, tmp_path / "out", samples=4)
    assert {answer.score for answer in done.answers} == {1.0}
    assert "4 completions have </think> but no <think>" in done.notes[0] and done.notes[0] in caplog.text
    assert rescore([tmp_path / "out" / "answers.jsonl"])["tasks"]["cropped_patch@1"]["differ"] == 0


@pytest.mark.parametrize(("mode", "begun"), [("required", CLOSED), ("none", OPENED)])
def test_an_evaluation_that_could_only_find_nothing_does_not_start(heldout, tmp_path, mode, begun):
    with pytest.raises(EvaluationError, match=f"ends the prompt with .*thinking: {mode}.*--thinking"):
        evaluate(heldout(mode), Saying(lambda truth, index: "x", written=begun), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_modes_are_compared_sample_by_sample_and_the_difference_is_said(heldout, write_mix, tmp_path):
    evaluate(heldout(), Saying(lambda truth, index: THOUGHT.replace("A", truth)), tmp_path / "1", samples=12)
    direct = load_mix(write_mix(MIX), split="heldout", thinking="none")
    evaluate(direct, Saying(lambda truth, index: "\\boxed{Z}"), tmp_path / "2", samples=12)
    done = ssrl("compare", tmp_path / "1", tmp_path / "2")
    assert "mix.thinking: 'required' -> 'none'" in done.stdout and "worse" in done.stdout


def test_an_error_of_the_model_is_not_told_as_a_folder_that_cannot_be_written(heldout, tmp_path):
    def fail(truth, index):
        raise FileNotFoundError(2, "No such file", "certificate.pem")

    with pytest.raises(FileNotFoundError, match=r"certificate\.pem"):
        evaluate(heldout(), Saying(fail), tmp_path / "out", samples=1)


@pytest.fixture
def verl():
    return pytest.importorskip("verl", reason="the 'train' extra is not installed")


@pytest.fixture
def datasets(verl, model, write_mix):
    """A function from mode and chat template to verl's two datasets, and the processor."""

    def build(mode, begun, **config):
        from ssrl_core.models.loading import load_processor
        from ssrl_core.verl.dataset import MixDataset, MixSFTDataset

        mix, processor = str(write_mix(f"{MIX}thinking: {mode}")), load_processor(str(model(begun)))
        config = {"max_length": 2000, **config}
        grpo = MixDataset(mix, processor.tokenizer, config, processor)
        return grpo, MixSFTDataset([mix], processor.tokenizer, config, processor), processor

    return build


@pytest.mark.parametrize(
    ("mode", "begun"),
    [(mode, "") for mode in MODES]
    + [("required", OPENED), ("optional", OPENED), ("optional", CLOSED), ("none", CLOSED)],
)
def test_a_cold_start_teaches_what_earns_the_whole_reward_after_the_prompt_of_a_rollout(datasets, mode, begun):
    from ssrl_core.models.tokens import token_ids

    grpo, sft, processor = datasets(mode, begun)
    assert grpo.opened == (begun == OPENED)
    for index in range(3):
        key, example, taught = grpo[index]["reward_model"]["ground_truth"], grpo.mix[index], sft[index]
        ids, mask = taught["input_ids"], taught["loss_mask"].bool()
        prompt = token_ids(processor, example)
        assert ids[: len(prompt)].tolist() == prompt and not mask[: len(prompt)].any()
        assert begun == "" or processor.tokenizer.decode(prompt).endswith(begun)
        said = processor.tokenizer.decode(ids[mask], skip_special_tokens=True)
        assert compute_score("x", said, key)["score"] == 1.0
        assert ("<think>" in said) == ((mode == "required" and not begun) or (mode == "optional" and not begun))


def test_the_rows_of_a_template_that_opens_nothing_are_those_of_verl(datasets):
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
    from verl.utils.tokenizer.chat_template import extract_system_prompt_and_generation

    sft = datasets("required", "")[1]
    ours = sft[0]
    sft.system_prompt, sft.generation_prompt = extract_system_prompt_and_generation(sft.tokenizer)
    sft._process_single_message = MultiTurnSFTDataset._process_single_message.__get__(sft)
    theirs = sft[0]
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    assert ours["loss_mask"].tolist() == theirs["loss_mask"].tolist()


@pytest.mark.parametrize(("mode", "begun"), [("required", CLOSED), ("none", OPENED)])
def test_a_run_that_could_only_earn_nothing_is_refused_with_the_remedy(datasets, mode, begun):
    with pytest.raises(RecipeError, match=rf"would earn 0 instead of 1.*thinking: {mode}.*enable_thinking"):
        datasets(mode, begun)


def test_tags_that_are_special_tokens_would_be_lost_on_the_way_and_are_refused(verl, write_mix, model):
    from ssrl_core.models.loading import load_processor
    from ssrl_core.verl.dataset import MixDataset

    processor = load_processor(str(model("")))
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    for mode, reason in (("required", "verl decodes it as"), ("none", None)):
        path = write_mix(f"{MIX}thinking: {mode}")
        if reason is None:
            assert len(MixDataset(str(path), processor.tokenizer, {}, processor)) > 0
        else:
            with pytest.raises(RecipeError, match=reason):
                MixDataset(str(path), processor.tokenizer, {}, processor)


def test_the_switch_of_a_template_is_passed_on(verl, write_mix, model):
    from ssrl_core.models.loading import load_processor
    from ssrl_core.verl.dataset import MixDataset

    folder = model("")
    switch = "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}{% endif %}"
    template = (folder / "chat_template.jinja").read_text().removesuffix("{% endif %}")
    (folder / "chat_template.jinja").write_text(template + switch)
    processor, mix = load_processor(str(folder)), str(write_mix(f"{MIX}thinking: none"))
    off = {"apply_chat_template_kwargs": {"enable_thinking": False}}
    assert not MixDataset(mix, processor.tokenizer, off, processor).opened
    with pytest.raises(RecipeError, match="enable_thinking"):
        MixDataset(mix, processor.tokenizer, {}, processor)


def test_a_dry_run_says_that_the_template_opens_the_thinking_or_refuses(verl, write_mix, model, tmp_path, caplog):
    def dry_run(stage, mode, begun, *more):
        path = write_mix(f"{MIX}thinking: {mode}")
        model_key = "model.path" if stage == "sft" else "actor_rollout_ref.model.path"
        (tmp_path / "recipe.yaml").write_text(f"mix: {path}\n")
        small = () if stage == "sft" else SMALL
        return ssrl(stage, tmp_path / "recipe.yaml", f"{model_key}={model(begun)}", *small, *more, "--dry-run")

    with caplog.at_level(logging.WARNING):
        done = dry_run("train", "required", OPENED)
    assert done.exit_code == 0, done.exception
    assert "ends the prompt with '<think>\\n': it counts as the <think> of the completion" in caplog.text
    done = dry_run("train", "required", CLOSED)
    assert isinstance(done.exception, RecipeError) and "would earn 0" in str(done.exception)
    assert dry_run("sft", "none", "").exit_code == 0
    done = dry_run("sft", "none", "", "data.completion='<think>I look.</think>\\\\boxed{{{{{{truth}}}}}}'")
    assert isinstance(done.exception, RecipeError) and "data.completion" in str(done.exception)
