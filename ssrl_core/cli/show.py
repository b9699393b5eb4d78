"""``ssrl show``: levels, options and wordings of a task, with a sample."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from itertools import pairwise
from math import ceil
from pathlib import Path
from textwrap import dedent, indent, shorten
from typing import Annotated, Any

import typer
from PIL import Image, ImageFont

from ..drawing import draw_text
from ..errors import SSRLError
from ..mix import Example, single_task_mix
from ..options import Options
from ..pages import image_names
from ..plugins import Task, load_task
from .list import needs_in_words
from .terminal import AsJson, show

PICTURE_SIZE = 224
"""Length in pixels of the longer side of the images in a task's picture."""


def describe_task(task: Task, *, size: int | None = None) -> dict[str, Any]:
    """The facts of a task, in plain JSON types.

    Args:
        task: a loaded task.
        size: pixels of the longer side of the sample's image; None takes the default of a mix.

    Returns:
        Among others ``options``, see ``options_of``; ``wordings``: name -> text; ``prompt`` and ``truth`` of a sample
        on the default source with the default options. If no sample can be made, these two are None and ``no_sample``
        is the reason.
    """
    info = task.info
    facts = {
        "task": task.name,
        "distribution": task.plugin.distribution,
        "distribution_version": task.plugin.version,
        "version": info.version,
        "api": task.api_version,
        "summary": info.summary,
        "takes": info.takes,
        "needs_depth": info.needs_depth,
        "needs_pose": info.needs_pose,
        "levels": {name: {"summary": level.summary, "chance": level.chance} for name, level in info.levels.items()},
        "options": options_of(task.options_model),
        "wordings": wordings_of(task),
        "known_failures": dict(info.known_failures),
    }
    try:
        mix = single_task_mix(task, size=size) if size else single_task_mix(task)
        example = next(mix.some_of_each())
    except SSRLError as err:
        return facts | {"prompt": None, "truth": None, "no_sample": str(err)}
    return facts | {"prompt": example.prompt, "truth": example.sample.truth}


def wordings_of(task: Task) -> dict[str, str]:
    """The wordings that the option ``prompt`` can name: ``WORDINGS`` of the task's module. Empty without the option."""
    if "prompt" not in task.options_model.model_fields:
        return {}
    return dict(getattr(sys.modules[task.plugin.entry_point.module], "WORDINGS", {}))


def options_of(model: type[Options]) -> dict[str, dict[str, Any]]:
    """The options of a task: name -> JSON schema with ``description``, and with ``default`` unless it is required."""
    from pydantic.errors import PydanticInvalidForJsonSchema
    from pydantic_core import PydanticUndefined, to_jsonable_python

    try:
        schema = model.model_json_schema(by_alias=False)
    except PydanticInvalidForJsonSchema:  # an option has a type that JSON schemas cannot describe
        schema = {}
    comments = {name: text for base in reversed(model.__mro__) for name, text in _docstrings(base).items()}
    options = {}
    for name, field in model.model_fields.items():
        described = schema.get("properties", {}).get(name) or {"type": str(field.annotation)}
        described = _resolved(described, schema.get("$defs", {}))
        default = field.get_default(call_default_factory=True, validated_data={})
        described.pop("default", None)
        if default is not PydanticUndefined:
            described["default"] = to_jsonable_python(default, fallback=repr)
        if description := field.description or comments.get(name):
            described["description"] = description
        options[name] = described
    return options


def _docstrings(model: type) -> dict[str, str]:
    """The docstrings below the fields of a class, by field.

    With ``use_attribute_docstrings`` pydantic reads them too, but at every import of the task.
    """
    try:
        (definition,) = ast.parse(dedent(inspect.getsource(model))).body
    except (OSError, TypeError, SyntaxError, ValueError):  # the source is not available
        return {}
    texts = {}
    for field, text in pairwise(getattr(definition, "body", ())):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                texts[name] = inspect.cleandoc(words)
    return texts


def _resolved(schema: Any, definitions: Mapping[str, Any], *, depth: int = 8) -> Any:
    """The schema with its references replaced, and without titles, which repeat the names."""
    if isinstance(schema, list):
        return [_resolved(part, definitions, depth=depth) for part in schema]
    if not isinstance(schema, dict) or not depth:
        return schema
    if (reference := schema.get("$ref")) is not None:
        target = definitions.get(reference.rpartition("/")[2], {})
        schema = target | {key: value for key, value in schema.items() if key != "$ref"}
    return {key: _resolved(part, definitions, depth=depth - 1) for key, part in schema.items() if key != "title"}


def text_of_task(facts: Mapping[str, Any]) -> str:
    """The facts of ``describe_task`` for a terminal."""
    lines = [
        f"{facts['task']}: {facts['summary']}",
        f"  from {facts['distribution']} {facts['distribution_version']}, "
        f"task version {facts['version']}, hooks {facts['api']}",
        f"  needs: {needs_in_words(facts)}",
        "levels:",
        *(f"  {name:8} chance {lv['chance']:.3g}  {lv['summary']}" for name, lv in facts["levels"].items()),
        "options:" + ("" if facts["options"] else " none"),
    ]
    for name, option in facts["options"].items():
        default = f" = {option['default']!r}" if "default" in option else ", required"
        lines.append(f"  {name}: {type_in_words(option)}{default}")
        lines += [f"      {line}" for line in option.get("description", "").splitlines()]
    if facts["wordings"]:
        lines.append("wordings (option prompt):")
        lines += [f"  {name}: {shorten(text, 90)}" for name, text in facts["wordings"].items()]
    if facts["known_failures"]:
        lines.append("conformance criteria that it does not meet by design:")
        lines += [f"  {name}: {reason}" for name, reason in facts["known_failures"].items()]
    if "no_sample" in facts:
        lines += ["no sample can be made with the default options:", indent(facts["no_sample"], "  ")]
    else:
        prompt = indent(facts["prompt"], "  | ", lambda line: True)
        lines += ["a sample prompt:", prompt, f"its answer: {facts['truth']}"]
    return "\n".join(lines)


_NAMES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "null": "None", "object": "dict"}
_BOUNDS = {
    "minimum": ">= {}",
    "exclusiveMinimum": "> {}",
    "maximum": "<= {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "a multiple of {}",
    "minLength": "length >= {}",
    "maxLength": "length <= {}",
    "minItems": "length >= {}",
    "maxItems": "length <= {}",
    "pattern": "matching {}",
}


def type_in_words(schema: Mapping[str, Any]) -> str:
    """The type of an option in Python's notation, with its bounds, from its JSON schema."""
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " | ".join(map(type_in_words, schema[key]))
    if "enum" in schema:
        return " | ".join(map(repr, schema["enum"]))
    if "const" in schema:
        return repr(schema["const"])
    if "prefixItems" in schema:
        return f"tuple[{', '.join(map(type_in_words, schema['prefixItems']))}]"
    kind = schema.get("type", "any value")
    name = _NAMES.get(kind, kind)
    if kind == "array":
        name = f"list[{type_in_words(schema.get('items') or {})}]"
    elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        name = f"dict[str, {type_in_words(schema['additionalProperties'])}]"
    bounds = ", ".join(text.format(schema[key]) for key, text in _BOUNDS.items() if key in schema)
    return f"{name} ({bounds})" if bounds else name


def write_picture(task: Task, path: Path, *, samples: int = 2, size: int = PICTURE_SIZE) -> None:
    """Write a picture with so many samples of each level on procedural rooms, each with its truth.

    Raises:
        SSRLError: the file extension is no image format, or no sample can be made.
    """
    examples = single_task_mix(task, size=size).some_of_each(samples)
    strips = [_strip(example) for example in examples]
    page = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), "white")
    top = 0
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height
    try:
        page.save(path, quality=85)
    except ValueError as err:
        raise SSRLError(f"{path}: {err}; use an extension such as .png or .jpg") from err


def _strip(example: Example) -> Image.Image:
    """The images of a sample side by side at their own sizes, below a caption and the names that the prompt gives."""
    band, gap = 24, 10
    images, names = example.sample.images, image_names(example.prompt)
    if len(images) == 1 and names == ["image 1"]:
        names = [""]  # nothing to tell apart
    caption = _text(f"level {example.recipe.level}: {example.sample.truth}", band)
    labels = [_text(name, band) for name in names]
    widths = [max(image.width, label.width) for image, label in zip(images, labels, strict=True)]
    head = band + max(label.height for label in labels)
    width = max(sum(widths) + gap * (len(widths) + 1), caption.width + 2 * gap)
    strip = Image.new("RGB", (width, head + max(image.height for image in images) + gap), "white")
    strip.paste(caption, (gap, 0))
    left = gap
    for image, label, width in zip(images, labels, widths, strict=True):
        strip.paste(label, (left, band))
        strip.paste(image, (left, head))
        left += width + gap
    return strip


def _text(text: str, height: int) -> Image.Image:
    """A text in a picture of that height, as wide as the text; of no size if there is no text."""
    width = ceil(ImageFont.load_default(size=14).getlength(text))
    line = Image.new("RGB", (width, height if text else 0), "white")
    draw_text(line, text, centre=(width / 2, height / 2), size=14)
    return line


def command(
    task: Annotated[str, typer.Argument(help="Name of a task.")],
    picture: Annotated[Path | None, typer.Option(help="Also draw samples of each level into this file.")] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=64, max=4096, help=f"Pixels of the longer side of an image; 448, and {PICTURE_SIZE} in the picture."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    loaded = load_task(task)
    if picture:
        write_picture(loaded, picture, size=size or PICTURE_SIZE)
        typer.echo(f"samples of each level -> {picture}", err=True)
    show(describe_task(loaded, size=size), text_of_task, as_json=as_json)
