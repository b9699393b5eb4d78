"""Pretrains a small model of the Qwen2.5-VL architecture on procedural rooms whose geometry is known.

    python examples/tiny_vlm/pretrain.py --out runs/tiny_vlm [--size small|large] [--steps 5000] [--seed 0]

One run has three stages (see ``lessons.py``): the vision tower alone, whose tokens predict the contents of their cells;
then also questions to the whole model about places of rings; then all lessons. A stopped run resumes from its last
checkpoint. The seed of the rooms differs from that of all mixes of the examples, so the images do not repeat there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lessons import CLASSES, LESSONS, Lesson, dense
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils.logging import disable_progress_bar

from ssrl_core.mix import load_mix
from ssrl_core.models.tiny import build_tiny_model
from ssrl_core.sources import open_source, to_working_size
from ssrl_core.types import SourceImage

HERE = Path(__file__).parent
WORLD = "synthetic:?width=192&height=144&seed=1000"
WORKING_SIZE = 112
SIZES = {
    "small": {"hidden": 160, "layers": 4, "vision_hidden": 96, "vision_layers": 4},
    "large": {"hidden": 512, "layers": 8, "vision_hidden": 384, "vision_layers": 8, "head": 64},
}
# Of each stage: its share of all steps, and the weights of its lessons.
STAGES = (
    (0.204, {"dense": 1}),
    (0.192, {"dense": 1, "places": 4}),
    (0.604, {"dense": 2, "cells": 1, "places": 2, "rings": 4, "pieces": 3, "patches": 2, "seams": 2}),
)
MOST_CELLS = 12  # maximum number of visual tokens in a row or column of an image
HELDOUT = 1 / 16  # share of the rooms that are not trained on: the last ones


def main() -> None:
    """Train, and write the model with its curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/tiny_vlm"))
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--scenes", type=int, default=8_000, help="number of rooms")
    parser.add_argument(
        "--every", type=int, default=500, help="steps between measurements, which also save a checkpoint"
    )
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    disable_progress_bar()
    arguments.out.mkdir(parents=True, exist_ok=True)
    store = arguments.out / f"scenes-{arguments.scenes}"
    render_scenes(store, arguments.scenes)
    start = arguments.out / "start"
    if not (start / "config.json").exists():
        build(start, store, size=arguments.size, seed=arguments.seed)
    train(arguments, store, start)


def render_scenes(store: Path, count: int) -> None:
    """Write the rooms as two arrays, colours (count x H x W x 3) and depth (count x H x W, float16, metres)."""
    if (store / "depth.npy").exists():
        return
    store.mkdir(exist_ok=True)
    chunks = [range(i, min(i + 100, count)) for i in range(0, count, 100)]
    with ProcessPoolExecutor(2) as pool:
        for k, (rgb, depth) in enumerate(pool.map(_render, chunks)):
            if k == 0:
                colours = np.lib.format.open_memmap(
                    store / "rgb.npy", "w+", dtype=np.uint8, shape=(count, *rgb.shape[1:])
                )
                depths = np.lib.format.open_memmap(
                    store / "depth.partial.npy", "w+", dtype=np.float16, shape=(count, *depth.shape[1:])
                )
            colours[chunks[k].start : chunks[k].stop] = rgb
            depths[chunks[k].start : chunks[k].stop] = depth
    depths.flush()
    colours.flush()
    (store / "depth.partial.npy").rename(store / "depth.npy")


def _render(positions: range) -> tuple[np.ndarray, np.ndarray]:
    source = open_source(WORLD)
    images = [source.load(str(position)) for position in positions]
    return np.stack([i.rgb for i in images]), np.stack([i.depth for i in images]).astype(np.float16)


class Lessons(IterableDataset):
    """Batches of one lesson each. Batch k is the same for any number of workers."""

    def __init__(self, store: Path, model: Path, *, seed: int, begin: int, weights: list[dict[str, int]], batch: int):
        self.store, self.model, self.seed, self.begin = store, str(model), seed, begin
        self.weights, self.batch = weights, batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = torch.utils.data.get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        torch.set_num_threads(1)
        encode = Encoder(self.model)
        scenes = Scenes(self.store)
        for k in range(self.begin + first, len(self.weights), step):
            rng = np.random.default_rng((self.seed, k))
            names = list(self.weights[k])
            shares = np.array([self.weights[k][name] for name in names], dtype=float)
            name = names[rng.choice(len(names), p=shares / shares.sum())]
            if name == "dense":
                yield {"lesson": name} | encode.dense([dense(scenes.draw(rng), rng) for _ in range(2 * self.batch)])
            else:
                yield {"lesson": name} | encode([LESSONS[name](scenes.draw(rng), rng) for _ in range(self.batch)])


class Scenes:
    """The rendered rooms, as source images of the working size."""

    def __init__(self, store: Path) -> None:
        self.rgb = np.load(store / "rgb.npy", mmap_mode="r")
        self.depth = np.load(store / "depth.npy", mmap_mode="r")

    def draw(self, rng: np.random.Generator, *, heldout: bool = False) -> SourceImage:
        """A room drawn from those to train on, or from those held out."""
        count = len(self.rgb) - round(HELDOUT * len(self.rgb))
        k = int(rng.integers(count, len(self.rgb)) if heldout else rng.integers(count))
        rgb, depth = np.array(self.rgb[k]), np.array(self.depth[k], dtype=np.float32)
        if rng.random() < 0.5:
            rgb, depth = np.ascontiguousarray(rgb[:, ::-1]), np.ascontiguousarray(depth[:, ::-1])
        return to_working_size(SourceImage(id=str(k), rgb=rgb, depth=depth), WORKING_SIZE, rng=rng)


class Encoder:
    """Encodes lessons as padded token ids, labels of the answer tokens, and pixels."""

    def __init__(self, model: str) -> None:
        self.processor = AutoProcessor.from_pretrained(model)
        self.tokenizer = self.processor.tokenizer
        self.merge = self.processor.image_processor.merge_size**2

    def __call__(self, lessons: list[Lesson]) -> dict[str, torch.Tensor]:
        pictures = [image for lesson in lessons for image in lesson.images]
        pixels = self.processor.image_processor(images=pictures, return_tensors="pt")
        tokens = iter((pixels["image_grid_thw"].prod(-1) // self.merge).tolist())
        rows, labels = [], []
        for lesson in lessons:
            ids: list[int] = []
            targets: list[int] = []
            for k, (question, answer) in enumerate(lesson.questions):
                shown = ""
                if k == 0:
                    shown = "".join(
                        f"<|vision_start|>{'<|image_pad|>' * next(tokens)}<|vision_end|>" for _ in lesson.images
                    )
                asked = self._ids(f"<|im_start|>user\n{shown}{question}<|im_end|>\n<|im_start|>assistant\n")
                answered = self._ids(f"{answer}<|im_end|>")
                ids += [*asked, *answered, *self._ids("\n")]
                targets += [-100] * len(asked) + answered + [-100] * len(self._ids("\n"))
            rows.append(ids)
            labels.append(targets)
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([r + [pad] * (longest - len(r)) for r in rows])
        return {
            "input_ids": ids,
            "attention_mask": torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows]),
            "labels": torch.tensor([t + [-100] * (longest - len(t)) for t in labels]),
            "mm_token_type_ids": (ids == self.processor.image_token_id).long(),
            "pixel_values": pixels["pixel_values"],
            "image_grid_thw": pixels["image_grid_thw"],
        }

    def dense(self, lessons: list[tuple[Image.Image, Callable[[int, int], np.ndarray]]]) -> dict[str, torch.Tensor]:
        """Pixels, and the classes of every visual token, 4 x tokens."""
        pixels = self.processor.image_processor(images=[image for image, _ in lessons], return_tensors="pt")
        side = self.processor.image_processor.merge_size
        grids = (pixels["image_grid_thw"][:, 1:] // side).tolist()
        maps = [maps(*grid).reshape(4, -1) for (_, maps), grid in zip(lessons, grids, strict=True)]
        return {
            "pixel_values": pixels["pixel_values"],
            "image_grid_thw": pixels["image_grid_thw"],
            "classes": torch.from_numpy(np.concatenate(maps, axis=1)),
            "numbers": torch.tensor(self._ids("".join(map(str, range(1, CLASSES[-1]))))),
        }

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def build(folder: Path, store: Path, *, size: str, seed: int) -> None:
    """Write a model with random weights, and a tokenizer for all lessons and tasks."""
    mix = load_mix(HERE.parent / "demo" / "mix.yaml")
    scenes, rng = Scenes(store), np.random.default_rng(seed)
    texts = [
        f"user\n{question}\nassistant\n{answer}\n"
        for name in LESSONS
        for _ in range(100)
        for question, answer in LESSONS[name](scenes.draw(rng), rng).questions
    ]
    parameters = build_tiny_model(
        mix,
        folder,
        seed=seed,
        patch_size=8,
        completion="<think>I look.</think>\\boxed{1}",
        more_texts=texts,
        **SIZES[size],
    )
    print(f"{parameters / 1e6:.2f} million parameters", flush=True)


def train(arguments: argparse.Namespace, store: Path, start: Path) -> None:
    """Run all steps, with regular measurements and checkpoints."""
    ends = np.rint(np.cumsum([share for share, _ in STAGES]) * arguments.steps).astype(int)
    weights = [w for (_, w), count in zip(STAGES, np.diff(ends, prepend=0), strict=True) for _ in range(count)]
    checkpoint = arguments.out / "checkpoint.pt"
    model = AutoModelForImageTextToText.from_pretrained(start, dtype=torch.float32, attn_implementation="eager")
    model.to(arguments.device).train()
    torch.manual_seed(arguments.seed)
    hidden = model.config.text_config.hidden_size
    heads = torch.nn.ModuleDict(
        {"cells": torch.nn.Linear(hidden, sum(CLASSES[:-1]) + 1), "places": torch.nn.Linear(hidden, 2 * MOST_CELLS)}
    ).to(arguments.device)
    # Muon for matrices, AdamW for embeddings and vectors. Both have the same rate, because Muon matches AdamW's RMS.
    inside = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in n and "lm_head" not in n]
    others = [p for p in model.parameters() if not any(p is q for q in inside)] + list(heads.parameters())
    optimizers = [
        torch.optim.Muon(inside, lr=arguments.lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=arguments.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    curves: list[dict[str, Any]] = []
    begin = 0
    spent = 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=arguments.device)
        model.load_state_dict(saved["model"])
        heads.load_state_dict(saved["heads"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        begin, spent, curves = saved["step"], saved["seconds"], saved["curves"]
    data = Lessons(store, start, seed=arguments.seed, begin=begin, weights=weights, batch=arguments.batch)
    loader = DataLoader(
        data, batch_size=None, num_workers=arguments.workers, prefetch_factor=4 if arguments.workers else None
    )
    clock = time.monotonic() - spent
    recent: dict[str, list[float]] = {}
    for step, batch in enumerate(loader, start=begin):
        lesson = batch.pop("lesson")
        done = step / len(weights)
        rate = arguments.lr * min(1.0, (step + 1) / 200) * (1.0 if done < 0.6 else max(0.02, (1 - done) / 0.4))
        rate *= 1.0 if done < STAGES[0][0] else 0.6
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
        batch = {key: value.to(arguments.device) for key, value in batch.items()}
        with torch.autocast(arguments.device, dtype=torch.bfloat16):
            loss = (asked_loss if "labels" in batch else dense_loss)(model, heads, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), *heads.parameters()], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        recent.setdefault(lesson, []).append(loss.item())
        if (step + 1) % min(100, arguments.every) == 0 or step + 1 == len(weights):
            line = {name: round(float(np.mean(values)), 4) for name, values in sorted(recent.items())}
            recent.clear()
            record: dict[str, Any] = {"step": step + 1, "seconds": round(time.monotonic() - clock), "loss": line}
            if (step + 1) % arguments.every == 0 or step + 1 == len(weights):
                record["skills"] = measure(model, heads, store, start, device=arguments.device)
                torch.save(
                    {
                        "model": model.state_dict(),
                        "heads": heads.state_dict(),
                        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                        "step": step + 1,
                        "seconds": time.monotonic() - clock,
                        "curves": [*curves, record],
                    },
                    checkpoint.with_suffix(".partial"),
                )
                checkpoint.with_suffix(".partial").rename(checkpoint)
            curves.append(record)
            print(json.dumps(record), flush=True)
    save(model, start, arguments.out / "model")
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
    settings.pop("out")
    (arguments.out / "model" / "curves.json").write_text(json.dumps({"settings": settings, "curves": curves}))


def told(model: Any, heads: torch.nn.ModuleDict, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The predictions of visual tokens for their cells: logits, tokens x classes, for each of the four maps.

    The logit of a ring's number is the dot product of the token and the embedding of the digit.
    """
    seen = model.model.visual(batch["pixel_values"], grid_thw=batch["image_grid_thw"]).pooler_output
    *maps, none = heads["cells"](seen).float().split([*CLASSES[:-1], 1], dim=-1)
    rings = seen.float() @ model.get_input_embeddings()(batch["numbers"]).float().T
    return *maps, torch.cat([none, rings], dim=-1)


def dense_loss(model: Any, heads: torch.nn.ModuleDict, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy of the four maps. A cell with a ring has the weight of eight cells without."""
    logits = told(model, heads, batch)
    weights = torch.tensor([1.0] + [8.0] * (CLASSES[-1] - 1), device=batch["classes"].device)
    entropy = torch.nn.functional.cross_entropy
    parts = [entropy(of, classes) for of, classes in zip(logits[:3], batch["classes"], strict=False)]
    return torch.stack([*parts, entropy(logits[3], batch["classes"][3], weight=weights)]).mean()


def asked_loss(model: Any, heads: torch.nn.ModuleDict, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of the answers, plus that of row and column of visual tokens, predicted by a middle layer.

    The vision tower has relative attention and cannot represent row and column. The language model can, but learns them
    slowly from answers alone.
    """
    out = model(**batch, use_cache=False, output_hidden_states=True)
    seen = out.hidden_states[len(out.hidden_states) // 2][batch["mm_token_type_ids"] == 1]
    side = model.config.vision_config.spatial_merge_size
    where = [
        torch.cartesian_prod(torch.arange(int(rows) // side), torch.arange(int(columns) // side))
        for _, rows, columns in batch["image_grid_thw"]
    ]
    told = heads["places"](seen).float().split(MOST_CELLS, dim=-1)
    right = torch.cat(where).to(seen.device).unbind(-1)
    entropy = torch.nn.functional.cross_entropy
    return out.loss + 0.25 * sum(entropy(logits, classes) for logits, classes in zip(told, right, strict=True))


@torch.no_grad()
def measure(
    model: Any, heads: torch.nn.ModuleDict, store: Path, start: Path, *, device: str, count: int = 96
) -> dict[str, float]:
    """Accuracy of the most likely answer tokens on held-out rooms, by lesson, given the true tokens before them."""
    encode, scenes = Encoder(str(start)), Scenes(store)
    model.eval()
    rng = np.random.default_rng(7)
    batch = encode.dense([dense(scenes.draw(rng, heldout=True), rng) for _ in range(count)])
    batch = {key: value.to(device) for key, value in batch.items()}
    with torch.autocast(device, dtype=torch.bfloat16):
        best = [of.argmax(-1) for of in told(model, heads, batch)]
    right = [b == c for b, c in zip(best, batch["classes"], strict=True)]
    right[3] = right[3][batch["classes"][3] > 0]
    names = ("dense brightness", "dense colour", "dense depth", "dense rings")
    result = {name: round(float(values.float().mean()), 4) for name, values in zip(names, right, strict=True)}
    for name in LESSONS:
        rng = np.random.default_rng(7)
        batch = encode([LESSONS[name](scenes.draw(rng, heldout=True), rng) for _ in range(count)])
        batch = {key: value.to(device) for key, value in batch.items()}
        with torch.autocast(device, dtype=torch.bfloat16):
            best = model(**batch, use_cache=False).logits[:, :-1].argmax(-1)
        wanted = batch["labels"][:, 1:]
        counted = (wanted != -100) & (wanted != encode.tokenizer.eos_token_id)
        result[name] = round(float((best == wanted)[counted].float().mean()), 4)
    model.train()
    return result


def save(model: Any, start: Path, folder: Path) -> None:
    """Write the model in bfloat16 with its processor, for ``from_pretrained``."""
    AutoProcessor.from_pretrained(start).save_pretrained(folder)
    model.to(torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    main()
