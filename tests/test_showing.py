import json
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field

from ssrl_core.cli.show import describe_task, options_of, text_of_task, type_in_words
from ssrl_core.options import Options
from ssrl_core.plugins import load_task

OPTIONS = '''
from typing import Literal

from pydantic import Field
from ssrl_core import Options

WORDINGS = {"plain": "<image>A or B?", "paper": "<image>Is it A, or is it B?"}


class ToyOptions(Options):
    prompt: str = "plain"
    """How to ask."""
    sides: list[Literal["left", "right"]] = ["left"]
    gap: float | None = Field(default=None, gt=0, le=0.5)


from PIL import Image
'''


class Nested(BaseModel):
    depth: int = 1


class Odd(Options):
    choice: Literal["near", "far", 3] = "near"
    """Which one."""
    sides: list[Literal["left", "right"]] = Field(default_factory=lambda: ["left"], min_length=1)
    gap: Annotated[float, Field(gt=0, le=0.5)] | None = None
    steps: int = Field(default=3, ge=1, multiple_of=2)
    pair: tuple[int, str] = (1, "a")
    weights: dict[str, float] = Field(default_factory=dict)
    nested: Nested = Nested()
    needed: str


class Arbitrary(Options):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: type[np.ndarray] | None = None
    array: np.ndarray = np.zeros(2)
    count: int = 2


@pytest.mark.parametrize(
    ("name", "words", "default"),
    [
        ("choice", "'near' | 'far' | 3", "near"),
        ("sides", "list['left' | 'right'] (length >= 1)", ["left"]),
        ("gap", "float (> 0, <= 0.5) | None", None),
        ("steps", "int (>= 1, a multiple of 2)", 3),
        ("pair", "tuple[int, str]", [1, "a"]),
        ("weights", "dict[str, float]", {}),
        ("nested", "dict", {"depth": 1}),
    ],
)
def test_an_option_is_shown_as_its_type_with_bounds_and_default(name, words, default):
    option = options_of(Odd)[name]
    assert type_in_words(option) == words
    assert option["default"] == default


def test_options_have_descriptions_and_required_ones_no_default():
    options = options_of(Odd)
    assert options["choice"]["description"] == "Which one."
    assert "description" not in options["gap"]
    assert "default" not in options["needed"]


def test_options_of_types_that_json_schemas_cannot_describe_are_shown():
    options = options_of(Arbitrary)
    json.dumps(options)
    assert set(options) == {"kind", "array", "count"} and options["count"]["default"] == 2
    assert "ndarray" in type_in_words(options["array"])


def test_a_task_is_shown_with_wordings_known_failures_a_prompt_and_an_answer(install_toy):
    install_toy(
        ("from PIL import Image\n", OPTIONS),
        ("levels={", 'options=ToyOptions, known_failures={"leaks.seams@1": "by its nature"}, levels={'),
    )
    facts = describe_task(load_task("toy"))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["wordings"] == {"plain": "<image>A or B?", "paper": "<image>Is it A, or is it B?"}
    assert facts["prompt"].startswith("<image>A or B?") and facts["truth"] in ("A", "B")
    text = text_of_task(facts)
    for part in (
        "1        chance 0.5  l",
        "      How to ask.",
        "sides: list['left' | 'right'] = ['left']",
        "gap: float (> 0, <= 0.5) | None = None",
        "paper: <image>Is it A, or is it B?",
        "leaks.seams@1: by its nature",
        "| <image>A or B?",
        f"its answer: {facts['truth']}",
    ):
        assert part in text


def test_wordings_are_shown_only_if_the_task_has_the_option(install_toy):
    install_toy(("from PIL import Image\n", 'WORDINGS = {"plain": "x"}\nfrom PIL import Image\n'))
    facts = describe_task(load_task("toy"))
    assert facts["wordings"] == {} and "wordings" not in text_of_task(facts)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([("return Sample(", "raise KeyError('x'); return Sample(")], "ssrl_generate_sample raised KeyError"),
        (
            [
                ("from PIL import Image\n", OPTIONS.replace('prompt: str = "plain"', "prompt: str")),
                ("levels={", "options=ToyOptions, levels={"),
            ],
            "tasks.toy.options.prompt",
        ),
    ],
)
def test_a_task_that_makes_no_sample_is_shown_with_the_reason(install_toy, changes, reason):
    install_toy(*changes)
    facts = describe_task(load_task("toy"))
    assert facts["prompt"] is None and reason in facts["no_sample"]
    text = text_of_task(facts)
    assert "chance 0.5" in text and reason in text
