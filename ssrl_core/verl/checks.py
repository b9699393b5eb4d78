"""Checks of a training run before it starts, and the plan by which a later start may resume it.

verl would report the same mistakes later, or not at all. ``stage`` is the training stage: ``"sft"``, the cold start, or
``"grpo"``. The parts of a mix's schedule are called schedule stages here.
"""

from __future__ import annotations

import importlib.util
import logging
import netrc
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import PluginFailed, RecipeError
from ..form import COMPLETION, DIRECT, Thinking, extract_answer, opens_thinking
from ..mix import Example, SplitName, few_images, load_mix
from ..mix.file import read_mix
from ..mix.schedule import stages
from ..models.loading import ModelError, check_folder, load_processor, no_model, written
from ..models.tokens import FAMILIES, estimate_tokens, family_of, token_ids
from ..models.vllm import check_processor, check_vllm, media_limits
from ..resume import ResumableFolder, plan_of_mix
from ..reward import VERIFIER_LIMIT, Key, fault_of, judged, right_completion
from .form import check_form, turn_of
from .recipe import SAMPLER, Stage
from .stopping import CHECKPOINTED, last_saved

logger = logging.getLogger(__name__)

SAMPLES_PER_LEVEL = 16
"""Training samples of each task and level from which the longest prompts are taken for the check of lengths."""


class Tokens(NamedTuple):
    """Lengths of the prompts of a run.

    Attributes:
        most: tokens of the longest prompt that was tried, in a cold start with its completion; None if unknown.
        how: ``"counted"``, ``"estimated for FAMILY"``, or why it is unknown.
    """

    most: int | None
    how: str


def check_run(
    stage: Stage, config: Mapping[str, Any], mix: Path, folder: Path, *, elsewhere: bool
) -> tuple[list[Example], Tokens]:
    """Examples of every task at every level, and the length of the longest prompt, after all checks of a run.

    Args:
        stage: of training.
        config: verl's composed configuration.
        mix: path of the mix file.
        folder: of the run.
        elsewhere: whether another machine will run it, which may have a model that is not here.

    Raises:
        SSRLError: a machine, model, mix, schedule, completion, prompt or folder that the run cannot use.
    """
    if folder / "mix.yaml" == mix:
        raise RecipeError(f"trainer.default_local_dir = {folder}: the run would overwrite {mix} with a copy")
    check_machine(config)
    check_checkpoint(stage, config, folder)
    processor = check_model(stage, config, elsewhere=elsewhere)
    check_wandb(config)
    check_schedule(stage, config, mix)
    check_images(mix)
    examples = try_everything(mix)
    check_forms(stage, config, mix, examples, processor)
    if stage == "grpo" and config["data"]["custom_cls"]["name"] == "AdaptiveMixDataset":
        from .adaptive import AdaptiveMixDataset

        if config["trainer"]["v1"]["sampler"]["custom_sampler"]["path"] != SAMPLER["path"]:
            raise RecipeError(
                "data.custom_cls.name = AdaptiveMixDataset needs the replay buffer of ssrl-core, but this run uses "
                "verl's. One of these settings is the cause: algorithm.filter_groups.enable, "
                "trainer.v1.sampler.sync_refill_failed_groups, or a trainer.v1.trainer_mode other than 'sync'. Reset "
                "it, or use MixDataset"
            )
        # Its constructor raises RecipeError for settings that it cannot use.
        AdaptiveMixDataset(str(mix), tokenizer=None, config=config["data"])
    tried = chain(examples, load_mix(mix).some_of_each(SAMPLES_PER_LEVEL))
    return examples, check_length(stage, config, mix, tried, processor)


def tell_vllm(config: Mapping[str, Any], examples: Sequence[Example]) -> None:
    """Set what vLLM must know of the mix, in place, where the recipe does not say it.

    Without it, vLLM reserves memory for videos and for the longest sequence that the model can read.

    Raises:
        RecipeError: max_model_len is shorter than the longest prompt and completion. verl would cut completions.
    """
    rollout, data = config["actor_rollout_ref"]["rollout"], config["data"]
    settings = rollout["engine_kwargs"]["vllm"]
    if not rollout.get("limit_images"):
        settings.setdefault("limit_mm_per_prompt", media_limits(examples))
    longest = data["max_prompt_length"] + data["max_response_length"]
    if rollout["max_model_len"] is None:
        rollout["max_model_len"] = longest
    elif rollout["name"] == "vllm" and rollout["max_model_len"] < longest:
        raise RecipeError(
            f"actor_rollout_ref.rollout.max_model_len = {rollout['max_model_len']} cuts completions short: "
            f"data.max_prompt_length + data.max_response_length = {longest}. Raise it, or set it to null"
        )


def check_engine(config: Mapping[str, Any]) -> None:
    """Raise RecipeError if the rollouts need vLLM, and it cannot run on this machine."""
    if config["actor_rollout_ref"]["rollout"]["name"] == "vllm":
        check_vllm(gpu=config["trainer"]["device"] != "cpu", error=RecipeError)


def check_machine(config: Mapping[str, Any]) -> None:
    """Raise RecipeError for a run on several GPUs on a machine without any. Ray would wait for them forever."""
    trainer = config["trainer"]
    processes = trainer["n_gpus_per_node"] * trainer["nnodes"]
    if trainer["device"] == "cpu" and processes > 1:
        raise RecipeError(
            f"trainer.n_gpus_per_node x nnodes = {processes}, but torch finds no GPU on this machine. Use a machine "
            "with GPUs, or set both to 1 to train on the CPU. --device cuda checks the recipe for machines with GPUs"
        )


def check_checkpoint(stage: Stage, config: Mapping[str, Any], folder: Path) -> None:
    """Raise RecipeError for a checkpoint of another number of processes. verl would fail to load it on the cluster."""
    trainer = config["trainer"]
    checkpoint = folder / f"global_step_{last_saved(folder)}"
    if trainer["resume_mode"] == "resume_path":
        checkpoint = Path(trainer["resume_from_path"] or "")
    elif not has_checkpoints(config, folder):
        return
    shards = checkpoint / "actor" if stage == "grpo" else checkpoint
    processes = trainer["n_gpus_per_node"] * trainer["nnodes"]
    sizes = {int(path.name.split("_")[3]) for path in shards.glob("model_world_size_*_rank_0.pt")}
    if sizes and processes not in sizes:
        key = "model.path" if stage == "sft" else "actor_rollout_ref.model.path"
        model, make = shards / "huggingface", ""
        if not model.is_dir():
            make = f" (python -m verl.model_merger merge --backend fsdp --local_dir {shards} --target_dir {model})"
        raise RecipeError(
            f"trainer.nnodes x n_gpus_per_node = {processes}, but {checkpoint} was saved by {min(sizes)} process(es). "
            f"verl 0.9.1 loads it with {min(sizes)} only. Use as many, or start a new run from its weights, with a new "
            f"optimizer: {key}={model}{make}, and another folder in trainer.default_local_dir"
        )


def check_wandb(config: Mapping[str, Any]) -> None:
    """Raise RecipeError if the run logs to W&B and W&B is not installed, or would ask for a key."""
    if "wandb" not in config["trainer"]["logger"] or os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return
    if importlib.util.find_spec("wandb") is None:
        raise RecipeError("trainer.logger has wandb, which is not installed: pip install wandb")
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        known = server in netrc.netrc(os.environ.get("NETRC") or None).hosts
    except (OSError, netrc.NetrcParseError):
        known = False
    if not known and not os.environ.get("WANDB_API_KEY"):
        raise RecipeError(
            "trainer.logger has wandb, but there is no key for it: set WANDB_API_KEY, run `wandb login`, or set "
            "WANDB_MODE=offline"
        )


def check_images(mix: Path) -> None:
    """Log a warning for tasks with few held-out images, on which validation and `ssrl eval` measure."""
    heldout = load_mix(mix, split="validation")
    few = few_images({task: (n, heldout.shares[task] * len(heldout)) for task, n in heldout.images.items()})
    if few:
        logger.warning("%s: %s", mix, few)


def check_model(stage: Stage, config: Mapping[str, Any], *, elsewhere: bool = False) -> Any:
    """The processor of the model as verl loads it, or None if the model is not on this machine.

    Raises:
        RecipeError: the model's path is missing or contains no model, or the model cannot be used. With ``elsewhere``,
            a missing folder is only a warning.
    """
    model = config["model"] if stage == "sft" else config["actor_rollout_ref"]["model"]
    name: str = model["path"]
    path, key = Path(name), "model.path" if stage == "sft" else "actor_rollout_ref.model.path"
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise RecipeError(f"{key} = {name}: {no_model(path)}")
        check_processor(path, where=f"{key} = {name}", error=RecipeError)
    elif name.startswith("~"):  # only a warning, so that a dry run works with verl's default, which begins like this
        logger.warning("%s = %s: no such folder. If this is verl's default, set the path of your model", key, name)
    elif path.is_absolute() or name.startswith(".") or len(path.parts) > 2:  # a name on the hub is OWNER/NAME at most
        if not elsewhere:
            raise RecipeError(f"{key} = {name}: there is no such folder")
        logger.warning("%s = %s: there is no such folder on this machine", key, name)
    else:
        logger.warning("%s = %s: no such folder; verl will look for a model of this name on the hub", key, name)
    try:
        check_folder(name)
        trusted = bool(model.get("trust_remote_code"))
        processor = load_processor(model.get("tokenizer_path") or name, only_local=True, trust_remote_code=trusted)
    except ModelError as err:
        if path.is_dir():
            raise RecipeError(f"{key}: {err}") from err
        return None
    processor.chat_template = model.get("custom_chat_template") or processor.chat_template
    return processor


def check_forms(
    stage: Stage, config: Mapping[str, Any], mix: Path, examples: Sequence[Example], processor: Any
) -> None:
    """Raise RecipeError if a right completion would not earn the whole reward.

    Where the model is not on this machine, the datasets check this in verl's process, before the first step.
    """
    mix_config = read_mix(mix)[0]
    completion = config["data"]["completion"] if stage == "sft" else None
    settings = config["data"].get("apply_chat_template_kwargs")
    try:
        begun = "" if processor is None else written(processor, settings=settings)
        if stage == "sft":
            check_completion(completion, examples, thinking=mix_config.thinking, written=begun)
            if processor is not None:
                turn_of(processor, settings)
    except ModelError as err:
        raise RecipeError(str(err)) from err
    if processor is None:
        return
    if opens_thinking(begun):
        logger.warning(
            "the model's chat template ends the prompt with %r: it counts as the <think> of the completion", begun
        )
    for example in examples:
        check_form(example, mix_config, processor, begun, completion=completion)


def try_everything(mix_path: Path) -> list[Example]:
    """One example of every task of a mix at every level, of both splits that training uses.

    Checks that each example can be made, and that the verifier gives its truth the score 1.0.

    Raises:
        MixError, PluginError, SourceError: a check fails.
    """
    examples = []
    splits: tuple[SplitName, ...] = ("train", "validation")
    for split in splits:
        mix = load_mix(mix_path, split=split)
        for example in mix.some_of_each():
            task, sample = mix.tasks[example.recipe.task], example.sample
            score = task.verify_answer(sample.truth, truth=sample.truth, params=sample.params, limit=VERIFIER_LIMIT)
            if score != 1.0:
                raise PluginFailed(
                    f"plugin {task.plugin}: the verifier gives the truth {sample.truth!r} a score of {score}, not 1.0 "
                    f"(level {example.recipe.level!r})"
                )
            examples.append(example)
    return examples


def check_schedule(stage: Stage, config: Mapping[str, Any], mix: Path) -> None:
    """Raise RecipeError for a run that would go through the schedule of a mix out of order, or more than once.

    Log a warning for a run that ends before the last schedule stage.
    """
    mix_config, composed = read_mix(mix)
    planned = stages(mix_config, split="train", where=composed.where)
    if len(planned) == 1:  # no schedule
        return
    data, trainer = config["data"], config["trainer"]
    if stage == "grpo" and data["shuffle"]:
        raise RecipeError(f"data.shuffle = {data['shuffle']}: must be false, because {mix} has a schedule")
    samples, batch = mix_config.samples, data["train_batch_size"]
    per_epoch = steps_per_epoch(config, samples)
    steps = min(per_epoch * trainer["total_epochs"], trainer["total_training_steps"] or sys.maxsize)
    if steps > per_epoch:
        raise RecipeError(
            f"{steps} steps of {batch} prompts are more than the {samples} samples of {mix}, so its schedule would "
            f"start again. Set 'samples' in the mix to {steps * batch}, or trainer.total_epochs=1, or "
            f"trainer.total_training_steps={per_epoch} at most"
        )
    if steps * batch <= planned[-1].start:
        reached = sum(part.start < steps * batch for part in planned)
        logger.warning(
            "the run ends after %d steps of %d prompts, in stage %d of %d of the schedule of %s, and never reaches the "
            "later ones; the schedule covers %d samples",
            *(steps, batch, reached, len(planned), mix, samples),
        )


def steps_per_epoch(config: Mapping[str, Any], samples: int) -> int:
    """Number of steps in which a run goes through the samples of a mix once."""
    limit = config["data"].get("train_max_samples") or -1  # in verl, -1 means no limit
    return (min(samples, limit) if limit > 0 else samples) // int(config["data"]["train_batch_size"])


def check_completion(
    template: str | None, examples: Sequence[Example], *, thinking: Thinking = "required", written: str = ""
) -> None:
    """Raise RecipeError if the answer in a cold-start completion differs from the truth that was put into it.

    See ``reward.right_completion`` for the arguments.
    """
    for example in {example.sample.truth: example for example in examples}.values():
        truth = example.sample.truth
        key = Key.of(example, format_weight=0.0, thinking=thinking, opened=opens_thinking(written))
        try:
            completion = right_completion(truth, thinking=thinking, written=written, template=template)
            answer = extract_answer(judged(key, completion), thinking=thinking)
            fault = f"gives the answer {answer!r} for the truth {truth!r}; they must be equal"
            if answer is None:
                fault = f"has not the form that the mix asks for (thinking: {thinking}): {fault_of(key, completion)}"
        except (KeyError, IndexError, ValueError) as err:
            answer, fault = None, f"cannot be formatted: {type(err).__name__}: {err}"
        if answer != truth:
            raise RecipeError(
                f"data.completion: {template!r} {fault}.\n  Write {{truth}} where the answer goes, and every other "
                f"brace twice, as in {DIRECT if thinking == 'none' else COMPLETION}"
            )


def check_length(
    stage: Stage, config: Mapping[str, Any], mix: Path, examples: Iterable[Example], processor: Any
) -> Tokens:
    """Raise RecipeError for prompts that are longer than the configuration allows. Returns the longest length.

    GRPO would fail on the rollouts of such a prompt and go on without them; a cold start would end. In a cold start the
    completion counts as well. Images of one mix have one longer side but different shapes, and so different numbers of
    tokens; several examples are checked for this reason. Without a processor, the model is not on this machine, and the
    tokens of a prompt are estimated for its family.
    """
    key, what = ("max_length", "a prompt and completion") if stage == "sft" else ("max_prompt_length", "a prompt")
    name = (config["model"] if stage == "sft" else config["actor_rollout_ref"]["model"])["path"]
    family = family_of(name)
    if processor is None and family is None:
        return Tokens(None, "the model is not on this machine, and its family is unknown")
    how = "counted" if family is None or processor is not None else f"estimated for {family.name}"
    data, thinking = config["data"], read_mix(mix)[0].thinking
    limit, settings = data[key], data.get("apply_chat_template_kwargs")
    # Tokenizing images takes time, so only the longest prompt of each task, level and set of image sizes is tokenized.
    longest: dict[tuple[Any, ...], Example] = {}
    for example in examples:
        alike = (example.recipe.task, example.recipe.level, *(image.size for image in example.sample.images))
        longest[alike] = max(longest.get(alike, example), example, key=lambda one: len(one.prompt))
    most = 0
    for example in longest.values():
        if processor is None:
            length = estimate_tokens(example, family or FAMILIES[0])
        else:
            length = len(token_ids(processor, example, settings=settings))
        if processor is not None and stage == "sft":
            turn, truth = turn_of(processor, settings), example.sample.truth
            right = right_completion(truth, thinking=thinking, written=turn.written, template=data["completion"])
            length += len(processor.tokenizer(right + turn.end, add_special_tokens=False)["input_ids"])
        most = max(most, length)
        if length > limit:
            recipe = example.recipe
            raise RecipeError(
                f"data.{key} = {limit} is too small: {what} of {recipe.task!r}, level {recipe.level!r}, has {length} "
                f"tokens with this model ({how}). Raise data.{key}, or lower 'size' in the mix, now {recipe.size} "
                "pixels"
            )
    return Tokens(most, how)


def folder_of(path: Path) -> ResumableFolder:
    """The folder of a training run."""
    return ResumableFolder(path, "training run", RecipeError)


def plan_of(stage: Stage, config: Mapping[str, Any], mix: Path) -> dict[str, Any]:
    """Everything that the samples and updates of a run depend on, in plain JSON types.

    verl's sections ``trainer`` and ``ray_kwargs`` are left out, so that a run can be extended, use other checkpoint
    intervals, and continue on another cluster. The path of the mix is left out too; what the mix says is part of the
    plan.
    """
    settings = {key: value for key, value in config.items() if key not in ("trainer", "ray_kwargs")}
    files = {key: value for key, value in config["data"].items() if key in ("train_files", "val_files")}
    files = {key: f.replace(str(mix), "mix.yaml") if isinstance(f, str) else f for key, f in files.items()}
    return {"stage": stage, **plan_of_mix(load_mix(mix)), "config": settings | {"data": config["data"] | files}}


def has_checkpoints(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether verl would continue from the last checkpoint of this folder."""
    return config["trainer"]["resume_mode"] == "auto" and (folder / CHECKPOINTED).exists()


def settle(plan: Mapping[str, Any], folder: Path, *, continues: bool) -> None:
    """Write the plan of a new run to its folder; compare the plan of a run that continues with the plan there.

    Raises:
        RecipeError: the run continues from checkpoints that another plan made.
    """
    try:
        folder_of(folder).settle(plan, started=continues)
    except RecipeError as err:
        raise RecipeError(
            f"{err}\nSet trainer.default_local_dir to another folder, or trainer.resume_mode=disable to start again in "
            "this one"
        ) from err
