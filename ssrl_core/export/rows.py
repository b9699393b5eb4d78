"""One row: a sample as a trainer reads it, with its recipe. ``docs/export.md`` describes the columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from ..mix import Example, Mix
from ..reward import columns
from ..sources.images import rgbx

Layout = Literal["verl", "easyr1", "swift"]
"""Whose columns an export has."""


def row(mix: Mix, index: int, example: Example, *, images: list[Any], layout: Layout = "verl") -> dict[str, Any]:
    """The row of a sample.

    Args:
        mix: the mix of the sample.
        index: index of the sample in the mix.
        example: the sample.
        images: the content of the column ``images``: ``{"bytes": ...}`` or file name for each image.
        layout: whose columns the row has.
    """
    recipe = example.recipe
    reward = columns(example, format_weight=mix.config.format_weight, thinking=mix.config.thinking)
    if layout != "verl":
        key, said = reward["reward_model"]["ground_truth"], [{"role": "user", "content": example.prompt}]
        own = {"problem": example.prompt, "answer": key} if layout == "easyr1" else {"messages": said, "solution": key}
        facts = {"data_source": reward["data_source"], "truth": example.sample.truth, "recipe": recipe.to_json()}
        return own | {"images": images} | facts
    return {
        **reward,
        "prompt": [{"role": "user", "content": example.prompt}],
        "images": images,
        "extra_info": {
            "index": index,
            "split": recipe.split,
            "task": recipe.task,
            "level": recipe.level,
            "truth": example.sample.truth,
            "recipe": recipe.to_json(),
        },
    }


def encode(image: Any, *, jpeg: int | None) -> bytes:
    """The bytes of a Pillow image as PNG, which is lossless, or as JPEG of a quality in [1, 100].

    PNG is written by fpng, which takes an eighth of OpenCV's time for 8% more bytes on a photograph. It uses one fixed
    Huffman table, and vector instructions only where they are exact, so the bytes are the same on every machine.
    """
    import cv2

    memory = _memory(image)
    if jpeg is None:
        import fpng

        data: bytes = fpng.from_ndarray(cv2.cvtColor(memory, cv2.COLOR_RGBA2RGB))
        if max(image.size) >= 2**16 or not data:  # fpng does not report this error
            raise ValueError(f"fpng could not encode an image of {image.size} pixels")
        return data
    bgr = cv2.cvtColor(memory, cv2.COLOR_RGBA2BGR)
    done, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg])
    if not done:
        raise ValueError(f"OpenCV could not encode an image of {image.size} pixels as JPEG")
    return bytes(encoded.data)


def _memory(image: Any) -> Any:
    """As ``sources.images.rgbx``, without its copy: Arrow reads the memory of a Pillow image where it lies."""
    import pyarrow as pa

    if image.mode != "RGB" or not hasattr(image, "__arrow_c_array__"):  # since Pillow 11.2
        return rgbx(image)
    try:
        return pa.array(image).values.to_numpy(zero_copy_only=True).reshape(image.height, image.width, 4)
    except ValueError:  # a large image may lie in several blocks
        return rgbx(image)


def schema(*, files: bool, layout: Layout = "verl") -> Any:
    """The Arrow schema of rows. Images are file names if ``files``, else bytes."""
    import pyarrow as pa

    text = pa.string()
    said = pa.list_(pa.struct({"role": text, "content": text}))
    if layout != "verl":
        own = {"problem": text, "answer": text} if layout == "easyr1" else {"messages": said, "solution": text}
        kind = text if files else pa.struct({"bytes": pa.binary(), "path": text})
        return pa.schema({**own, "images": pa.list_(kind), "data_source": text, "truth": text, "recipe": text})
    information = {name: text for name in ("split", "task", "level", "truth", "recipe")}
    return pa.schema(
        {
            "data_source": text,
            "prompt": said,
            "images": pa.list_(text if files else pa.struct({"bytes": pa.binary()})),
            "reward_model": pa.struct({"style": text, "ground_truth": text}),
            "extra_info": pa.struct({"index": pa.int64(), **information}),
        }
    )


def leaves(fields: Any) -> list[str]:
    """The names of the Parquet columns of Arrow fields, e.g. ``prompt.list.element.role``."""
    import pyarrow as pa

    def below(path: str, kind: Any) -> Iterator[str]:
        if pa.types.is_struct(kind):
            for part in kind:
                yield from below(f"{path}.{part.name}", part.type)
        elif pa.types.is_list(kind):
            yield from below(f"{path}.list.element", kind.value_type)
        else:
            yield path

    return [leaf for field in fields for leaf in below(field.name, field.type)]
