"""Mixes that include other mixes, and untrusted files."""

import subprocess
import sys

import pytest
import yaml

from ssrl_core.errors import MixError
from ssrl_core.mix import load_mix
from ssrl_core.mix.file import read_mix
from ssrl_core.mix.include import compose, self_contained

BASE = """
source: "synthetic:?width=96&height=96"
size: 96
heldout: {samples: 7, fraction: 0.2}
tasks:
  flipped_patch: {weight: 2, level: {1: 1, 2: 1}, options: {prompt: paper}}
  cropped_patch: {weight: 1, seed: 3}
"""


def composed(write_mix, text, **files):
    for name, content in files.items():
        write_mix(content, f"{name}.yaml")
    return read_mix(write_mix(text))[0]


def test_the_including_file_wins_key_by_key(write_mix):
    config = composed(
        write_mix,
        "include: base.yaml\nsize: 112\nheldout: {samples: 9}\n"
        "tasks: {flipped_patch: {level: 3}, cropped_patch: , depth_ordering: {weight: 5}}",
        base=BASE,
    )
    assert (config.size, config.heldout.samples, config.heldout.fraction) == (112, 9, 0.2)
    flipped, cropped = config.tasks["flipped_patch"], config.tasks["cropped_patch"]
    assert (flipped.weight, flipped.level, flipped.options) == (2, "3", {"prompt": "paper"})
    assert (cropped.weight, cropped.seed) == (1, 3)
    assert list(config.tasks) == ["flipped_patch", "cropped_patch", "depth_ordering"]


def test_levels_and_schedules_replace_the_included_ones_whole_and_options_are_merged(write_mix):
    config = composed(
        write_mix,
        "include: base.yaml\nschedule: []\ntasks: {flipped_patch: {level: {3: 1}, options: {other: 1}}}",
        base=BASE + "schedule: [{until: 0.5, level: 1}]\n",
    )
    assert config.schedule == []
    assert config.tasks["flipped_patch"].level == {"3": 1}
    assert config.tasks["flipped_patch"].options == {"prompt": "paper", "other": 1}


def test_of_several_included_files_the_later_one_wins(write_mix):
    config = composed(write_mix, "include: [base.yaml, more.yaml]", base=BASE, more="size: 64\nseed: 8")
    assert (config.size, config.seed, len(config.tasks)) == (64, 8, 2)


def test_a_task_given_as_false_is_taken_out(write_mix):
    config = composed(write_mix, "include: base.yaml\ntasks: {cropped_patch: false}", base=BASE)
    assert list(config.tasks) == ["flipped_patch"]


def test_a_relative_source_starts_at_the_file_that_wrote_it(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "base.yaml").write_text("source: folder:photos\ntasks: {flipped_patch: {source: 'rgbd:frames'}}")
    (tmp_path / "b" / "mix.yaml").write_text("include: ../a/base.yaml\ntasks: {cropped_patch: {source: 'folder:own'}}")
    config, _ = read_mix(tmp_path / "b" / "mix.yaml")
    assert config.source == f"folder:{tmp_path / 'a' / 'photos'}"
    assert config.tasks["flipped_patch"].source == f"rgbd:{tmp_path / 'a' / 'frames'}"
    assert config.tasks["cropped_patch"].source == f"folder:{tmp_path / 'b' / 'own'}"


def test_the_samples_of_a_task_are_those_of_the_file_that_it_is_included_from(write_mix):
    base = load_mix(write_mix(BASE, "base.yaml"))
    more = load_mix(write_mix("include: base.yaml\ntasks: {shuffled_patches: {weight: 2}, cropped_patch: {weight: 4}}"))

    def first_samples(mix):
        slots = [(index, slot) for index in range(20) if (slot := mix.slot(index)).number < 2]
        found = {(slot.task, slot.number): (mix[index].recipe, mix[index].sample.truth) for index, slot in slots}
        return {key: value for key, value in found.items() if key[0] != "shuffled_patches"}

    assert len(first_samples(base)) == 4
    assert first_samples(more) == first_samples(base)


@pytest.mark.parametrize(
    ("text", "base", "complaints"),
    [
        ("include: none.yaml\ntasks: {flipped_patch: }", "", ["mix.yaml: include", "'none.yaml'", "no file"]),
        (
            "include: {a: 1}\ntasks: {flipped_patch: }",
            "",
            ["mix.yaml: include", "neither the name of a file nor a list"],
        ),
        ("include: base.yaml", "include: mix.yaml", ["base.yaml: include", "cannot include itself", "-> "]),
        ("include: mix.yaml", "", ["mix.yaml: include", "cannot include itself"]),
        (
            "include: base.yaml\nsize: 64",
            "tasks: {flipped_patch: {wieght: 1}}",
            ["base.yaml: tasks.flipped_patch.wi"],
        ),
        (
            "include: base.yaml\ntasks: {flipped_patch: {level: 9}}",
            BASE,
            ["mix.yaml: tasks.flipped_patch.level"],
        ),
        ("include: base.yaml\nseed: 1", "tasks: {flipped_patch: {level: 9}}", ["base.yaml: tasks.flipped_patch.level"]),
        (
            "include: base.yaml\nseed: 1",
            "tasks: {flipped_patch: {options: {promt: x}}}",
            ["base.yaml: tasks.flipped_patch.options.promt", "Did you mean 'prompt'?"],
        ),
        ("include: base.yaml\nsize: big", BASE, ["mix.yaml: size", "'big'"]),
        ("include: base.yaml", "size: 64", ["mix.yaml: tasks: missing"]),
        ("include: base.yaml", "- a", ["base.yaml: a mix is a mapping"]),
        ("inculde: base.yaml\ntasks: {flipped_patch: }", BASE, ["mix.yaml: inculde", "Did you mean 'include'?"]),
        (
            "include: base.yaml\ntasks: {croped_patch: false}",
            BASE,
            ["mix.yaml: tasks.croped_patch", "no included file has this task", "Did you mean 'cropped_patch'?"],
        ),
        ("tasks: {flipped_patch: false}", "", ["mix.yaml: tasks.flipped_patch", "no included file"]),
    ],
)
def test_a_mistake_is_explained_with_the_file_that_made_it(write_mix, text, base, complaints):
    write_mix(base, "base.yaml")
    with pytest.raises(MixError) as error:
        load_mix(write_mix(text))
    for complaint in complaints:
        assert complaint in str(error.value)


def test_files_that_include_each_other_many_times_over_are_read_once_each(write_mix):
    write_mix(BASE, "0.yaml")
    for number in range(1, 40):  # 2 ** 39 readings, if each were read whenever it is named
        write_mix(f"include: [{number - 1}.yaml, {number - 1}.yaml]\nseed: {number}", f"{number}.yaml")
    path = write_mix("include: 39.yaml")
    assert len(compose(path).files) == 41
    assert read_mix(path)[0].seed == 39


def test_a_mix_as_one_file_says_the_same_from_anywhere(write_mix, tmp_path):
    write_mix(BASE, "base.yaml")
    path = write_mix("include: base.yaml\ntasks: {flipped_patch: {source: 'folder:photos'}, cropped_patch: false}")
    (tmp_path / "run").mkdir()
    copy = tmp_path / "run" / "mix.yaml"
    copy.write_bytes(self_contained(path))
    assert read_mix(copy)[0] == read_mix(path)[0]
    assert compose(copy).files == (copy,)
    alone = write_mix(BASE, "alone.yaml")
    assert self_contained(alone) == alone.read_bytes()
    relative = write_mix(BASE.replace("synthetic:?width=96&height=96", "folder:photos"), "relative.yaml")
    copy.write_bytes(self_contained(relative))
    assert read_mix(copy)[0].source == read_mix(relative)[0].source == f"folder:{tmp_path / 'photos'}"


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
MERGES = "a: &a {k: 1, l: 2}\n" + "\n".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 30)}]}}" for before, name in zip("abcde", "bcdef", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 2000))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tasks: {flipped_patch: }\n" + "# and so on\n" * 100_000, "larger than 1000 KB"),
        (LAUGHS, "with aliases written out; at most 100000"),
        (MERGES, "with aliases written out; at most 100000"),
        (CHAIN, "nested deeper than 30 levels, with aliases written out"),
        ("a: &a [*a]", "an alias inside of what it stands for"),
        ("a: " + "[" * 5000, "nested deeper than 30"),
        ("a: " + "{b: " * 5000, "nested deeper than 30"),
        ("seed: " + "9" * 100_000, "a number of 100000 characters"),
        ("seed: !!int '" + ":".join(["59"] * 100_000) + "'", "a number of"),
        ("seed: !!timestamp 2026-13-45", "month must be in 1..12"),
        ("seed: !!bool perhaps", "not valid YAML"),
        ("seed: !!timestamp no", "not valid YAML"),
        ("? [a, b]\n: 1", "not valid YAML"),
        ("seed: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("seed: \x07", "not valid YAML"),
        ('include: "a\\0b"', "a NUL character"),
        ('source: "folder:\\ud800"', "surrogates not allowed"),
    ],
)
def test_a_hostile_file_is_refused_with_a_reason(write_mix, text, complaint):
    with pytest.raises(MixError) as error:
        load_mix(write_mix(text))
    assert complaint in str(error.value)
    assert len(str(error.value)) < 2000


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "mix.yaml").write_bytes(b"tasks: \xff\xfe")
    with pytest.raises(MixError, match="not valid YAML"):
        load_mix(tmp_path / "mix.yaml")


def test_a_hostile_file_cannot_fill_the_memory(write_mix):
    """In a process that may not take more than 300 MB beyond what it has after its imports."""
    code = """
import resource, sys
import ssrl_core.mix
from ssrl_core.errors import MixError
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)
for path in sys.argv[1:]:
    try:
        ssrl_core.mix.load_mix(path)
    except MixError:
        print("refused")
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    bombs = [write_mix(text, f"{n}.yaml") for n, text in enumerate((LAUGHS, MERGES, CHAIN, "a: " + "[" * 900_000))]
    done = subprocess.run([sys.executable, "-c", code, *map(str, bombs)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused"] * 4


def test_ordinary_aliases_and_merges_are_welcome(write_mix):
    text = "tasks:\n  flipped_patch: &usual {weight: 2, level: 1}\n  cropped_patch: {<<: *usual, level: 2}\n"
    config, _ = read_mix(write_mix(text))
    assert yaml.safe_load(text)["tasks"]["cropped_patch"]["weight"] == config.tasks["cropped_patch"].weight == 2
    assert config.tasks["cropped_patch"].level == "2"
