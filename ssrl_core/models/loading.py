"""Loading a model's processor and weights, and what is wrong with a model that cannot be loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..errors import SSRLError
from ..form import CLOSING, OPENING

_LFS = b"version https://git-lfs.github.com/spec/"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_NEEDED = ("*config*.json", "*token*.json", "vocab.*", "merges.txt", "*.model", "chat_template.*", "*.index.json")
_WRITTEN = re.compile(rf"{OPENING}\s*(?:{CLOSING}\s*)?$")


class ModelError(SSRLError):
    """A model is missing, damaged, or not a vision-language model with a chat template."""


def load_processor(path: str, *, only_local: bool = False, trust_remote_code: bool = False) -> Any:
    """The processor of a model, with a chat template.

    Args:
        path: a local folder, or a name on the Hugging Face hub.
        only_local: do not download anything.
        trust_remote_code: allow a processor that is code in the model's folder.

    Raises:
        ModelError: there is no processor; or it has no chat template, or one that fails.
    """
    from transformers import AutoProcessor

    check_folder(path, weights=False)
    settings = {"local_files_only": only_local, "trust_remote_code": trust_remote_code}
    given = {name: True for name, wanted in settings.items() if wanted}
    processor: Any = _loaded(AutoProcessor, path, "the processor", **given)
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        raise ModelError(f"model {path}: its processor takes no images: this is no vision-language model")
    if not tokenizer("Hello", add_special_tokens=False)["input_ids"]:  # transformers makes one without any files
        raise ModelError(
            f"model {path}: its tokenizer knows no words: tokenizer.json, or the files of its kind, are missing"
        )
    if not getattr(processor, "chat_template", None):  # base models may keep it with the tokenizer only
        processor.chat_template = getattr(tokenizer, "chat_template", None)
    if not processor.chat_template:
        raise ModelError(
            f"model {path}: it has no chat template, so no prompt can be written. Copy chat_template.jinja from the "
            "instruct model of its family, or choose that model"
        )
    written(processor, name=path)
    return processor


def load_model(path: str, *, device: str = "cpu") -> Any:
    """A vision-language model in evaluation mode, from a local folder or a name on the Hugging Face hub.

    The model is loaded in float32 on a CPU and in its saved precision on any other device.

    Raises:
        ModelError: the model cannot be loaded, or its files lack some of its weights.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    check_folder(path)
    dtype = torch.float32 if device == "cpu" else "auto"
    settings = {"dtype": dtype, "attn_implementation": "sdpa", "output_loading_info": True}
    model, found = _loaded(AutoModelForImageTextToText, path, "the weights", **settings)
    if missing := sorted(found["missing_keys"]):  # transformers would fill them with random numbers
        raise ModelError(
            f"model {path}: its files lack {len(missing)} tensors that its config.json describes, e.g. {missing[0]}. "
            "Is the download complete, and do config.json and the weights belong together?"
        )
    return model.to(device).eval()


def _loaded(kind: Any, path: str, what: str, **settings: Any) -> Any:
    try:
        return kind.from_pretrained(path, **settings)
    except Exception as err:  # libraries raise many kinds, and most say only what went wrong inside
        reason = next(iter(str(err).strip().splitlines()), "") or "no reason given"
        if "ignore_mismatched_sizes" in reason:  # the shapes stand in a log, and the advice would use random numbers
            reason = "the weights have other shapes than config.json describes"
        raise ModelError(f"model {path}: cannot load {what} ({type(err).__name__}: {reason:.300})") from err


def check_folder(path: str, *, weights: bool = True) -> None:
    """Raise ModelError for a local folder whose files are missing or damaged. A name on the hub is not looked up.

    Args:
        path: a local folder, or a name on the hub.
        weights: whether the weights are needed.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    for file in sorted({file for pattern in (*_NEEDED, *_WEIGHTS) for file in folder.glob(pattern)}):
        _check_file(file)
    config = _json(folder / "config.json")
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError(f"{folder / 'config.json'}: it names no model_type, so it does not describe a model")
    if weights:
        _check_weights(folder)


def _check_file(file: Path) -> None:
    with open(file, "rb") as content:
        head = content.read(len(_LFS))
    if head == _LFS:
        raise ModelError(
            f"{file}: a pointer of Git LFS instead of the file. Run 'git lfs pull' in {file.parent}, or download the "
            "model with 'hf download'"
        )
    if not head:
        raise ModelError(f"{file}: the file is empty. Download or copy it again")
    if file.suffix == ".json":
        _json(file)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file.parent}: {no_model(file.parent, file.name)}") from None
    except (ValueError, OSError) as err:
        raise ModelError(f"{file}: not readable as JSON ({err}). Download or copy it again") from err


def _check_weights(folder: Path) -> None:
    files = [file for pattern in _WEIGHTS for file in folder.glob(pattern) if not file.name.startswith("adapter_")]
    for index in sorted(folder.glob("*.index.json")):
        content = _json(index)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(shards, dict):
            raise ModelError(f"{index}: it has no weight_map, so it does not list the files of the weights")
        if missing := sorted({str(shard) for shard in shards.values()} - {file.name for file in folder.iterdir()}):
            raise ModelError(
                f"{folder}: {index.name} lists {len(set(shards.values()))} files, of which {len(missing)} are missing: "
                f"{', '.join(missing[:3])}. Download or copy them"
            )
    if not files:
        remedy = "Merge the adapter with its base model" if any(folder.glob("adapter_*")) else "Download or copy them"
        raise ModelError(f"{folder}: this model has no weights ({' or '.join(_WEIGHTS)}). {remedy}")
    for file in files:
        if file.suffix == ".safetensors":
            _check_safetensors(file)


def _check_safetensors(file: Path) -> None:
    """Raise ModelError unless the size of the file is the one that its header states."""
    size = file.stat().st_size
    with open(file, "rb") as content:
        length = int.from_bytes(content.read(8), "little")
        try:
            header = json.loads(content.read(min(length, size)))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ModelError(f"{file}: damaged: it has no header of safetensors. Download or copy it again") from None
    if size != 8 + length + end:
        raise ModelError(
            f"{file}: damaged: {size:,} bytes, but its header states {8 + length + end:,}. Download or copy it again"
        )


def written(processor: Any, *, name: str = "", settings: Any = None) -> str:
    """What the chat template itself writes of a completion: ``<think>``, ``<think>`` and ``</think>``, or nothing.

    Args:
        processor: a processor or tokenizer with a chat template.
        name: of the model, for messages.
        settings: arguments of the chat template, e.g. ``{"enable_thinking": False}``.

    Raises:
        ModelError: the template fails.
    """
    message = {"role": "user", "content": [{"type": "text", "text": "Hello."}]}
    try:
        prompt = processor.apply_chat_template(
            [message], tokenize=False, add_generation_prompt=True, **dict(settings or {})
        )
    except Exception as err:  # templates are programs: they raise anything
        raise ModelError(
            f"model {name or getattr(processor, 'name_or_path', '')}: its chat template fails on a message with text "
            f"({type(err).__name__}: {err!s:.200})"
        ) from err
    found = _WRITTEN.search(prompt)
    return found[0] if found else ""


def no_model(folder: Path, file: str = "config.json") -> str:
    """What to say of a folder that lacks a file of a model: checkpoints of verl have the model in a folder below."""
    below = next((name for name in ("huggingface", "actor/huggingface") if (folder / name / file).is_file()), None)
    return f"this folder contains no model: it has no {file}" + (f". Did you mean {folder / below}?" if below else "")
