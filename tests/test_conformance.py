"""The conformance kit finds the planted faults of every criterion, and no fault in a sound task."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ssrl_core import reward
from ssrl_core.errors import SourceError, SSRLError, UnknownPlugin
from ssrl_core.plugins import load_task
from ssrl_core.testing import CRITERIA, check_task, lots, run, samples, verifier
from ssrl_core.testing.criteria import Criterion
from ssrl_core.testing.evidence import write_failures
from ssrl_core.testing.project import faults_of, relative_pictures
from ssrl_core.testing.report import Outcome
from ssrl_core.testing.samples import Plan, make, orient, pool_ids, pool_image
from ssrl_core.testing.statistics import bound_above, classifiers, detectable, independent, uniform_p

FIXTURES = Path(__file__).parent / "fixtures"
_spec = importlib.util.spec_from_file_location("faults_to_plant", FIXTURES / "ssrl_plugin_faults.py")
assert _spec and _spec.loader
_faults = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_faults)
FAULTS = {name: kind.finds for name, kind in _faults.FAULTS.items()}


MARKS = ("relations.marks", "relations.upright marks")


@pytest.fixture
def faults(install, monkeypatch):
    """Installs the sound task and all faults."""
    monkeypatch.syspath_prepend(str(FIXTURES))
    entries = {name.lower(): f"ssrl_plugin_faults:{name}_" for name in FAULTS}
    for name, kind in _faults.FAULTS.items():
        if hasattr(kind, "readme"):
            entry = {name.lower(): entries.pop(name.lower())}
            install(f"ssrl-plugin-{name.lower()}", entry_points={"ssrl": entry}, readme=kind.readme)
    entries |= {"sound": "ssrl_plugin_faults:sound", "heavy": "ssrl_plugin_heavy:heavy"}
    entries |= {"inorder": "ssrl_plugin_faults:in_order"}
    install("ssrl-plugin-faults", entry_points={"ssrl": entries, "ssrl.sources": {"pans": "ssrl_plugin_faults:pans"}})


def solve(source, sample):
    """The letters of all pieces that occur in the image unmirrored."""
    picture = np.asarray(sample.images[0])
    found = set()
    for letter, piece in zip("ABCD", sample.images[1:], strict=True):
        _, _, (x, y), _ = cv2.minMaxLoc(cv2.matchTemplate(picture, np.asarray(piece), cv2.TM_SQDIFF))
        if (picture[y : y + piece.height, x : x + piece.width] == np.asarray(piece)).all():
            found.add(letter)
    return found


def solve_seen(sample):
    """One of the letters of the pieces that occur in the picture."""
    return min(solve(None, sample), default="none")


def failures(name: str, criterion: str, samples: int = 24):
    only = ["health.speed" if criterion == "contract.generates" else criterion]
    kind = next((kind for fault, kind in _faults.FAULTS.items() if fault.lower() == name), None)
    source = getattr(kind, "source", "synthetic:")
    report = check_task(
        name, only=only, samples=samples, source=source, size=128, solve=solve, solve_seen=solve_seen, workers=0
    )
    return [check for check in report.failed if check.id == criterion]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(faults, monkeypatch, fault):
    if fault == "Endless":
        monkeypatch.setattr(verifier, "RETURN_SECONDS", 3.0)
    (check,) = failures(fault.lower(), FAULTS[fault], getattr(_faults.FAULTS[fault], "samples", 1))
    assert check.measured


@pytest.mark.parametrize(
    ("fault", "criterion"), [("edgeonly", "relations.continuity"), ("failsonflat", "health.hard images")]
)
def test_the_samples_that_show_a_failure_are_written_as_pictures(faults, tmp_path, fault, criterion):
    report = check_task(fault, only=[criterion], samples=60, size=128, workers=0)
    written = write_failures(report, tmp_path / "seen", options={})
    (folder,) = (tmp_path / "seen").iterdir()
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    assert len(records) == written > 0
    for number, record in enumerate(records):
        with Image.open(folder / f"{number:02d}-source.png") as source:
            assert max(source.size) == 128
        if "error" in record:
            assert record["image"] in ("a flat picture", "a black picture") and "no contrast" in record["error"]
        else:
            assert record["truth"] in "ABCD" and record["pictures"][0] == 0  # picture 1 is one of those compared
            with Image.open(folder / f"{number:02d}.png") as page:
                assert (np.asarray(page) == (220, 30, 30)).all(axis=2).any()  # a frame


def test_a_leak_names_the_feature_that_tells(faults):
    (check,) = failures("bordered", "leaks.borders", 60)
    assert "most telling: picture" in check.measured and "left line" in check.measured


def test_a_heavy_import_is_found(faults):
    (check,) = failures("heavy", "health.imports")
    assert check.measured == "sklearn"


def test_a_reward_for_an_empty_answer_is_found(faults, monkeypatch):
    # A published reward takes the last box at any position.
    monkeypatch.setattr(reward, "extract_answer", lambda text, **_: text.rpartition("\\boxed{")[2].rstrip("}") or None)
    assert failures("sound", "hacking.malformed")


def test_the_sound_task_passes_everything_and_every_criterion_has_its_planted_fault(faults):
    report = check_task("sound", samples=100, size=128, solve=solve, solve_seen=solve_seen)
    others = {check.id: check.status for check in report.checks if check.status != "passed"}
    assert others.pop("relations.continuity", "declared") == "declared"
    assert others.pop("health.held out") == "not run"  # it takes single images, without marks
    assert others == {"relations.matching": "declared", **dict.fromkeys(MARKS, "not run")}
    measured = {check.id for check in report.checks}
    assert measured == {criterion.id for criterion in CRITERIA} | {"contract.generates"}
    never = {"solvable.rule of thumb"}  # never fails
    assert measured == {*FAULTS.values(), "health.imports", "hacking.malformed"} | never
    assert json.loads(json.dumps(report.to_json()))["counts"] == report.counts
    assert f"{len(report.checks) - 3} checks ran" in report.summary


def test_the_sound_task_on_clips_passes_what_finds_faults_of_frames(faults):
    kinds = [kind for kind in _faults.FAULTS.values() if issubclass(kind, _faults.InOrder)]
    only = {kind.finds for kind in kinds} | {"health.hard images", "determinism.repeated", "determinism.inputs"}
    report = check_task("inorder", only=sorted(only), source="pans:", samples=100, size=128, workers=0)
    found = {check.id: check.status for check in report.checks}
    assert {found.pop(f"relations.{group}") for group in ("colours", "detail")} <= {"passed", "declared"}
    assert found == dict.fromkeys(found, "passed")


def test_a_declared_failure_is_reported_with_its_reason(faults):
    from ssrl_core.plugins import load_task

    object.__setattr__(
        load_task("bordered").info, "known_failures", {"leaks.borders@1": "the border is what the task is about"}
    )
    report = check_task("bordered", only=["leaks.borders"], samples=60, size=128, workers=0)
    (check,) = [check for check in report.checks if check.id == "leaks.borders"]
    assert (check.status, check.reason) == ("declared", "the border is what the task is about")
    assert not report.failed
    assert "1 failed as the task declares" in report.summary


def test_a_criterion_that_cannot_be_measured_says_so(faults):
    report = check_task("sound", only=["ambiguity.oracle", "leaks.sizes"], samples=24, workers=0)
    unrun = {check.id: check.reason for check in report.checks if check.status == "not run"}
    assert set(unrun) == {"ambiguity.oracle", "leaks.sizes"}
    assert "solve" in unrun["ambiguity.oracle"] and "--samples" in unrun["leaks.sizes"]
    assert "2 were not run" in report.summary


def test_a_verifier_that_never_returns_does_not_hang_the_report(faults, monkeypatch):
    monkeypatch.setattr(verifier, "RETURN_SECONDS", 3.0)
    report = check_task("endless", only=["verifier", "hacking"], samples=2, workers=0)
    statuses = {check.id: check.status for check in report.checks}
    assert statuses.pop("contract.generates") == "passed"
    assert statuses.pop("verifier.returns") == "failed"
    assert set(statuses.values()) == {"not run"}


@pytest.mark.parametrize(
    ("only", "sets"),
    [
        ("contract.levels", set()),
        ("ambiguity.oracle", {("check", 24)}),
        ("health.speed", {("check", 30)}),
        ("bias.sizes", {("check oriented", 30)}),
    ],
)
def test_a_criterion_makes_only_the_samples_that_it_looks_at(faults, monkeypatch, only, sets):
    made = []

    def make(plan, index):
        made.append((plan.split, index))
        return samples.make(plan, index)

    monkeypatch.setattr(lots, "make", make)
    monkeypatch.setattr(lots, "rows", lambda plan, indices: [make(plan, k) and row_of(plan, k) for k in indices])
    report = check_task("sound", only=[only], samples=30, size=128, solve=solve, workers=0)
    assert not report.failed
    assert {(split, sum(name == split for name, _ in made)) for split in {name for name, _ in made}} == sets
    counted = [check.measured for check in report.checks if check.id == "contract.generates"]
    assert counted == [f"{count} samples" for _, count in sets]


def row_of(plan, index):
    (row,) = samples.rows(plan, [index])
    return row


@pytest.mark.parametrize(("clear_at", "made"), [(2, 48), (99, 96)])
def test_a_figure_near_its_bound_is_drawn_again_until_it_is_clear_or_a_limit_is_reached(
    faults, monkeypatch, clear_at, made
):
    def measure(trial):
        count = len(trial.oriented)
        return Outcome(count >= 48, f"{count} seen", "48", close=count < clear_at * 24)

    monkeypatch.setattr(run, "CRITERIA", (Criterion("planted.close", "many samples", measure),))
    report = check_task("sound", samples=24, size=128, workers=0)
    check, generated = report.checks
    assert (check.status, check.measured) == ("passed", f"{made} seen; drawn again: {made} samples")
    assert generated.measured == f"{made} samples"


def test_an_undeclared_figure_is_not_drawn_again_if_more_samples_cannot_change_it(faults, monkeypatch):
    criterion = Criterion("planted.clear", "x", lambda trial: Outcome(False, f"{len(trial.natural)}", "x"))
    monkeypatch.setattr(run, "CRITERIA", (criterion,))
    assert check_task("sound", samples=24, size=128, workers=0).failed[0].measured == "24"


def test_pytest_measures_only_the_selected_criteria(install_toy, tmp_path):
    install_toy(('"AB"[rng.integers(2)]', "1 / 0"))  # no sample can be made
    tests = "from ssrl_core.testing import PretextTaskTests\nclass TestToy(PretextTaskTests):\n    task = 'toy'\n"
    (tmp_path / "test_toy.py").write_text(tests)
    (site,) = tmp_path.glob("site*")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_toy.py", "-k"]
    environment = os.environ | {"PYTHONPATH": str(site)}
    for chosen, passed in (("contract.hooks or contract.levels", "2 passed"), ("contract.images", "1 failed")):
        done = subprocess.run(
            [*command, chosen], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert passed in done.stdout
    assert "contract.generates@1 failed" in done.stdout and "ZeroDivisionError" in done.stdout


def test_an_oracle_is_quoted_in_the_letters_that_it_wrote(faults):
    (check,) = check_task("wrongtruth", only=["ambiguity.oracle"], samples=24, size=128, solve=solve, workers=0).failed
    assert re.search(r"the oracle says \['[A-D]'\] instead of '[A-D]'", check.measured)


def test_the_texts_of_all_distributions_here_pass():
    root = Path(__file__).parents[1]
    for folder in [*root.glob("plugins/*"), root / "examples/ssrl-plugin-follow-route"]:
        assert relative_pictures((folder / "README.md").read_text(encoding="utf-8")) == [], folder
    for name in (
        "flipped_patch",
        "cropped_patch",
        "rotated_view",
        "shuffled_patches",
        "depth_ordering",
        "relative_position",
    ):
        assert list(faults_of(load_task(name), lambda: "")) == []


def test_the_text_of_another_task_is_recognised_although_its_name_was_replaced(install_toy):
    lines = "\n".join(f"Line {number} of a README that describes what the task asks." for number in range(9))
    install_toy(name="first", readme=f"The task `first`.\n\n{lines}")
    install_toy(
        name="second", readme=f"The task `second`, at last.\n\n{lines}\n\n    ssrl check second and others, with n"
    )
    (fault,) = faults_of(load_task("second"), lambda: "")
    assert fault == "9 of 9 long lines of the README are those of ssrl-plugin-first"


def test_relative_pictures_are_found_in_every_form_but_not_in_code():
    text = "![a](x.png) ![b](https://a.b/y.png)\n<img width=3 src='z.svg'>\n[c]: w.gif\n[d]: notes.txt\n"
    text += "`![no](no.png)`\n```\n![no](no.png)\n```\n    ![no](no.png)\n![e](data:image/png;base64,x)"
    assert relative_pictures(text) == ["x.png", "z.svg", "w.gif"]


def test_mistakes_of_the_caller_are_named(faults):
    with pytest.raises(UnknownPlugin):
        check_task("nonesuch")
    with pytest.raises(SSRLError, match="no level '7'"):
        check_task("sound", levels=["7"])
    with pytest.raises(SSRLError, match=r"no criterion 'leaks.promt'. Did you mean 'leaks.prompt'"):
        check_task("sound", only=["leaks.promt"])


def test_a_damaged_file_is_skipped_and_small_images_suffice(faults, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        picture = cv2.resize(
            rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (120, 90), interpolation=cv2.INTER_CUBIC
        )
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    report = check_task("sound", source=f"folder:{tmp_path}", only=["contract"], samples=24, size=128, workers=0)
    assert [str(check) for check in report.failed] == []


def test_the_example_task_passes_at_all_levels(install, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples" / "ssrl-plugin-follow-route"))
    install("ssrl-plugin-follow-route", entry_points={"ssrl": {"follow_route": "ssrl_plugin_follow_route"}})
    report = check_task("follow_route", only=["contract", "verifier", "determinism.processes"], samples=24, workers=0)
    assert [str(check) for check in report.failed] == []
    assert {check.level for check in report.checks} == {None, "1", "2", "3"}


def test_answers_in_a_prompt_are_found_by_their_form():
    pattern = verifier._shapes(["left", "upper left", "right", "B", "8", "10"])
    found = pattern.findall("Answer left, upper left or right: C, 7 or 11.")
    assert found == ["left", "upper left", "right", "C", "7", "11"]


def test_the_uniformity_test_takes_its_expected_shares_from_the_space():
    rng = np.random.default_rng(0)
    pairs = [f"{i}-{j}" for i in range(17) for j in range(i + 1, 17)]
    drawn = [pairs[k].split("-")[0] for k in rng.integers(len(pairs), size=600)]
    assert uniform_p(drawn, [pair.split("-")[0] for pair in pairs]) > 1e-3
    assert uniform_p(drawn, sorted(set(drawn))) < 1e-6
    assert uniform_p(["a"] * 9, ["a"]) == 1.0 and uniform_p(["b"], ["a", "c"]) == 0.0


def test_a_task_that_needs_depth_is_not_checked_without(tmp_path, faults):
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(tmp_path / "a.png")
    pytest.importorskip("ssrl_plugin_depth_ordering")
    with pytest.raises(SourceError, match=r"has not what task .* needs: depth"):
        check_task("depth_ordering", source=f"folder:{tmp_path}")


@pytest.mark.parametrize("which", range(8))
def test_an_image_in_another_orientation_is_the_same_scene(which):
    image = pool_image("synthetic:", pool_ids("synthetic:", 0)[0], seed=0, depth=True)
    turned = orient(image, which)

    def points(picture):
        """Colours and points in space of all pixels, sorted, up to reflections and the order of the axes."""
        v, u = np.mgrid[: picture.depth.shape[0], : picture.depth.shape[1]]
        k = picture.intrinsics
        across = np.sort(np.abs(np.stack(((u - k.cx) / k.fx, (v - k.cy) / k.fy))), axis=0) * picture.depth
        table = np.concatenate((picture.rgb.reshape(-1, 3), picture.depth.reshape(-1, 1), across.reshape(2, -1).T), 1)
        return table[np.lexsort(table.round(4).T)]

    assert np.allclose(points(image)[::97], points(turned)[::97], atol=1e-3, equal_nan=True)


def test_samples_of_the_kit_are_those_of_the_task_and_do_not_depend_on_the_order(faults):
    plan = Plan("sound", "1", {}, "synthetic:", 256, 3)
    forward = [make(plan, index).sample.truth for index in range(12)]
    assert [make(plan, index).sample.truth for index in reversed(range(12))] == forward[::-1]
    assert len(set(forward)) == 4


@pytest.mark.parametrize("chance", [0.5, 0.25, 1 / 23, 1 / 5000])
def test_the_bound_holds_for_chance_and_its_power_is_as_stated(chance):
    rng = np.random.default_rng(0)
    bound, found = bound_above(chance, 400), detectable(chance, 400)
    assert (rng.binomial(400, chance, 20_000) / 400 > bound).mean() < 3e-4
    assert (rng.binomial(400, found, 5_000) / 400 > bound).mean() > 0.9


@pytest.mark.parametrize("together", [True, False])
def test_samples_of_a_scene_that_are_right_or_wrong_together_count_as_one(together):
    rng, scenes = np.random.default_rng(0), np.arange(800) % 80
    exceeded, worth = 0, []
    for _ in range(300):
        right = (rng.random(80) < 0.5)[scenes] if together else rng.random(800) < 0.5
        worth.append(independent(right, [str(scene) for scene in scenes]))
        exceeded += right.mean() > bound_above(0.5, worth[-1])
    assert not exceeded
    assert (max(worth) <= 80) if together else (np.median(worth) == 800 and min(worth) > 500)


def test_classifiers_cannot_recognise_an_image():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 20, 600)
    truth_of = rng.integers(0, 4, 20)  # all samples of an image have the same truth
    features = rng.normal(size=(20, 6))[images] + rng.normal(0, 0.01, (600, 6))
    targets = [str(truth_of[image]) for image in images]

    def accuracy(groups):
        return max(right.mean() for right, _ in classifiers(features, targets, groups, seed=0))

    with_groups, without = accuracy([str(image) for image in images]), accuracy([str(k) for k in range(600)])
    assert without > 0.95 > 0.6 > with_groups


def test_a_killed_check_leaves_no_process(install_toy, tmp_path):
    psutil = pytest.importorskip("psutil", reason="psutil is not installed")
    install_toy(("rng.integers(2)", "sum(0 for _ in iter(int, 1))"))  # for ever
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site0")}
    check = subprocess.Popen([sys.executable, "-m", "ssrl_core", "check", "toy", "-n", "50"], env=environment)
    try:
        deadline = time.monotonic() + 120
        while len(busy := [w for w in psutil.Process(check.pid).children() if w.cpu_times().user > 1]) < 2:
            assert time.monotonic() < deadline and check.poll() is None
            time.sleep(0.1)
    finally:
        check.kill()
        check.wait()
    _, alive = psutil.wait_procs(busy, timeout=60)
    for process in alive:
        process.kill()
    assert not alive
