"""A mix from Python, cell by cell: a sample, its recipe, its picture, its reward, and a torch dataset.

python examples/python/explore.py      # in a folder with mix.yaml; editors run the cells one by one
"""

# %% A mix is a sequence of examples. An example is made when it is asked for, always with the same bits.
from torch.utils.data import DataLoader, Dataset

from ssrl_core import Example, Key, Mix, Recipe, load_mix, render, score

mix = load_mix("mix.yaml")
example = mix[0]
print(f"{len(mix)} samples of {', '.join(mix.tasks)}\n\n{example.prompt}\n\nanswer: {example.sample.truth}")

# %% Its images are Pillow images, in the order of `<image>` in the prompt.
for number, image in enumerate(example.sample.images):
    image.save(f"puzzle-{number}.png")

# %% Its recipe rebuilds it: on any machine with the same image, the same plugins, and the same versions.
recipe = example.recipe.to_json()
print(recipe)
assert render(Recipe.from_json(recipe)) == example.sample

# %% The reward of a completion is 0.9 x accuracy + 0.1 x format; the mix sets the weight.
key = Key.of(example, format_weight=mix.config.format_weight)
truth = example.sample.truth
completions = [f"<think>I look.</think>\\boxed{{{truth}}}", "<think>I look.</think>\\boxed{none}", truth]
rewards = [score(key, completion)["score"] for completion in completions]
print(rewards)


# %% A torch dataset. For training with verl, `ssrl train` brings its own, which renders images where they are needed.
class Puzzles(Dataset[dict[str, object]]):
    """The samples of a mix. A mix can be pickled, so the dataloader's workers make the samples."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix

    def __len__(self) -> int:
        return len(self.mix)

    def __getitem__(self, index: int) -> dict[str, object]:
        example: Example = self.mix[index]
        return {"prompt": example.prompt, "images": example.sample.images, "truth": example.sample.truth}


def collate(rows: list[dict[str, object]]) -> dict[str, list[object]]:
    """Columns instead of rows. Images stay Pillow images: a model's processor turns them into tensors."""
    return {name: [row[name] for row in rows] for name in rows[0]}


batch = next(iter(DataLoader(Puzzles(mix), batch_size=4, collate_fn=collate)))
print([len(images) for images in batch["images"]], batch["truth"])
