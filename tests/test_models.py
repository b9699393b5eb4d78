"""Every form in which the folder of a model can be broken is told as what is wrong with the model."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ssrl_core.cli import app

pytest.importorskip("transformers", reason="the 'train' extra is not installed")

from safetensors.torch import load_file, save_file

from ssrl_core.models.loading import ModelError, check_folder, load_model, load_processor, written

MODEL = Path(__file__).parents[1] / "examples" / "tiny_vlm" / "model"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 79\n"
WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path):
    """A copy of the small model that may be broken."""
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def remove(*patterns):
    return lambda model: [file.unlink() for pattern in patterns for file in model.glob(pattern)]


def write(name, text):
    return lambda model: (model / name).write_text(text)


def change(name, **values):
    return lambda model: (model / name).write_text(json.dumps(json.loads((model / name).read_text()) | values))


def cut(model):
    (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes()[:-100])


def only_an_adapter(model):
    (model / WEIGHTS).rename(model / "adapter_model.safetensors")


SHARDS = json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}})


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (remove("config.json"), "contains no model: it has no config.json"),
        (write("config.json", "{"), r"config\.json: not readable as JSON"),
        (write("config.json", ""), r"config\.json: the file is empty"),
        (write("config.json", "[]"), r"config\.json: it names no model_type"),
        (write("config.json", POINTER), r"config\.json: a pointer of Git LFS"),
        (write("tokenizer.json", POINTER), r"tokenizer\.json: a pointer of Git LFS"),
        (write(WEIGHTS, POINTER), r"model\.safetensors: a pointer of Git LFS.*git lfs pull"),
        (write(WEIGHTS, ""), r"model\.safetensors: the file is empty"),
        (write(WEIGHTS, "x" * 1000), "no header of safetensors"),
        (cut, r"damaged: [\d,]+ bytes, but its header states [\d,]+"),
        (remove(WEIGHTS), "this model has no weights.*Download"),
        (only_an_adapter, "this model has no weights.*Merge the adapter"),
        (write("model.safetensors.index.json", SHARDS), "lists 2 files, of which 2 are missing: model-1-of-2"),
        (write("model.safetensors.index.json", "{}"), "it has no weight_map"),
    ],
)
def test_files_that_are_missing_or_damaged_are_named(model, harm, reason):
    check_folder(str(model))
    harm(model)
    with pytest.raises(ModelError, match=reason):
        check_folder(str(model))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (remove("tokenizer*"), "its tokenizer knows no words"),
        (remove("tokenizer.json"), "cannot load the processor"),
        (write("tokenizer.json", "{}"), "cannot load the processor"),
        (remove("processor_config.json"), "cannot load the processor.*image processor"),
        (remove("chat_template.jinja"), "it has no chat template"),
        (write("chat_template.jinja", "{% for"), "its chat template fails.*TemplateSyntaxError"),
        (write("chat_template.jinja", "{{ raise_exception('no') }}"), "its chat template fails.*no"),
        (write("chat_template.jinja", "{{ 'x' + messages[0].content }}"), "its chat template fails on a message"),
    ],
)
def test_a_processor_that_cannot_be_used_is_explained(model, harm, reason):
    harm(model)
    with pytest.raises(ModelError, match=reason):
        load_processor(str(model))


def test_the_template_of_the_tokenizer_serves_where_the_processor_has_none(model):
    template = (model / "chat_template.jinja").read_text()
    remove("chat_template.jinja")(model)
    change("tokenizer_config.json", chat_template=template)(model)
    assert load_processor(str(model)).chat_template == template


def test_weights_that_do_not_fit_the_configuration_are_not_replaced_by_random_numbers(model):
    weights = load_file(model / WEIGHTS)
    name = next(name for name in weights if name.endswith("layers.0.mlp.down_proj.weight"))
    kept = weights.pop(name)
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors that its config\.json describes, e\.g\. .*down_proj"):
        load_model(str(model))
    save_file(weights | {name: kept[:, :8].contiguous()}, model / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"other shapes than config\.json describes"):
        load_model(str(model))


def test_an_unknown_kind_of_model_is_explained(model):
    change("config.json", model_type="qwen99")(model)
    with pytest.raises(ModelError, match=r"cannot load the weights.*qwen99"):
        load_model(str(model))


@pytest.mark.parametrize("command", ["eval", "mix", "train"])
def test_the_commands_tell_what_is_wrong_with_the_model(model, tmp_path, write_mix, command):
    mix = write_mix('source: "synthetic:?width=192&height=144"\nsize: 112\ntasks: {cropped_patch: }')
    write("chat_template.jinja", POINTER)(model)
    (tmp_path / "grpo.yaml").write_text(f"mix: {mix}\nactor_rollout_ref: {{model: {{path: {model}}}}}")
    words = {
        "eval": [mix, "--model", model, "-n", 1, "-o", tmp_path / "out"],
        "mix": [mix, "-n", 1, "--model", model],
        "train": [tmp_path / "grpo.yaml", "--dry-run", *_SMALL],
    }
    done = CliRunner().invoke(app([command]), [command, *map(str, words[command])])
    assert "a pointer of Git LFS" in str(done.exception), done.exception


_SMALL = (
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
    "trainer.n_gpus_per_node=1",
)


@pytest.mark.parametrize(
    ("end", "begun"),
    [
        ("", ""),
        ("<think>", "<think>"),
        ("<think>\n", "<think>\n"),
        ("<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
        ("Think inside <think> </think>. ", ""),
        ("<think> first", ""),
    ],
)
def test_what_a_chat_template_writes_of_the_completion_is_found_by_rendering_it(model, end, begun):
    template = (model / "chat_template.jinja").read_text()
    assert template.endswith("assistant\n{% endif %}")
    ending = template.removesuffix("{% endif %}") + "{{ end }}" + "{% endif %}"
    (model / "chat_template.jinja").write_text("{%- set end = " + json.dumps(end) + " -%}" + ending)
    assert written(load_processor(str(model))) == begun


def test_a_switch_of_the_template_is_an_argument_of_its_rendering(model):
    template = (model / "chat_template.jinja").read_text().removesuffix("{% endif %}")
    switch = "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}{% endif %}"
    (model / "chat_template.jinja").write_text(template + switch)
    processor = load_processor(str(model))
    assert written(processor) == "<think>\n" and written(processor, settings={"enable_thinking": False}) == ""
