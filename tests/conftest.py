"""Fixtures: plugins installed as real distributions in folders on the path, mixes, a tiny model, pictures."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import numpy as np
import pytest
from PIL import Image

from ssrl_core import plugins, sources

os.environ["SSRL_CHECK_CACHE"] = "0"  # what the kit keeps on disk; its own tests turn it on

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy machine is slow, and no fault
hypothesis.settings.load_profile("any machine")

FIXTURES = Path(__file__).parent / "fixtures"
TOY = (FIXTURES / "ssrl_plugin_toy.py").read_text(encoding="utf-8")


def write_distribution(
    folder: Path,
    name: str,
    *,
    entry_points: dict[str, dict[str, str]],
    version: str = "0.1",
    requires: Iterable[str] = (),
    code: str | None = None,
    readme: str | None = None,
) -> Path:
    """A distribution as an installer would leave it: metadata, and a module of the same name where code is given.

    Without ``readme``, the long description names the entry points.
    """
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        f"Summary: what {name} adds",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    names = [entry for entries in entry_points.values() for entry in entries]
    (info / "METADATA").write_text("\n".join([*metadata, "", readme or f"It adds {', '.join(names)}."]) + "\n")
    groups = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in eps.items()) for group, eps in entry_points.items())
    (info / "entry_points.txt").write_text("\n".join(groups))
    if code is not None:
        (folder / f"{name.replace('-', '_')}.py").write_text(code)
    return folder


def write_probe(folder: Path) -> Path:
    """The probe plugin of ``fixtures`` as a distribution."""
    write_distribution(
        folder,
        "ssrl-plugin-probe",
        entry_points={
            "ssrl": {"probe": "ssrl_plugin_probe:probe"},
            "ssrl.sources": {"blank": "ssrl_plugin_probe:blank"},
        },
    )
    shutil.copy(FIXTURES / "ssrl_plugin_probe.py", folder)
    return folder


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function that installs a distribution for one test; see ``write_distribution``."""
    count = iter(range(1000))
    modules = set(sys.modules)

    def install(name: str, **facts: object) -> None:
        folder = write_distribution(tmp_path / f"site{next(count)}", name, **facts)  # type: ignore[arg-type]
        monkeypatch.syspath_prepend(str(folder))
        forget_plugins()

    yield install
    for module in set(sys.modules) - modules:
        if module.startswith("ssrl_plugin_"):
            del sys.modules[module]
    forget_plugins()


@pytest.fixture
def install_toy(install: Callable[..., None]) -> Callable[..., None]:
    """A function that installs the task of ``fixtures/ssrl_plugin_toy.py`` under a name, with changes to its code.

    Its parameters: replacements as pairs (old, new), ``name`` of the task, and what ``write_distribution`` takes.
    """

    def toy(*changes: tuple[str, str], name: str = "toy", distribution: str | None = None, **facts: object) -> None:
        code = TOY
        for old, new in changes:
            assert old in code, f"the toy has no {old!r}"
            code = code.replace(old, new)
        distribution = distribution or f"ssrl-plugin-{name}"
        module = distribution.replace("-", "_")
        install(distribution, entry_points={"ssrl": {name: module}}, **{"code": code} | facts)

    return toy


@pytest.fixture
def probe_site(tmp_path: Path) -> Path:
    """A folder in which the probe plugin is installed, for other processes to have on their path."""
    return write_probe(tmp_path / "probe-site")


@pytest.fixture
def probe(probe_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which the probe plugin is installed, on this process's path for one test."""
    monkeypatch.syspath_prepend(str(probe_site))
    forget_plugins()
    yield probe_site
    sys.modules.pop("ssrl_plugin_probe", None)
    forget_plugins()


def forget_plugins() -> None:
    """Make the process look at the installed distributions anew."""
    plugins.load_task.cache_clear()
    plugins.load_scorer.cache_clear()
    plugins.load_source_hooks.cache_clear()
    sources.open_source.cache_clear()


@pytest.fixture
def write_mix(tmp_path: Path) -> Callable[[str], Path]:
    """A function that writes the text of a mix into a file."""

    def write(text: str, name: str = "mix.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch: the models are so small that more only wait for each other, ten times as long if busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Any, Any, Path]]:
    """A function from the text of a mix to a model with random weights, its processor, the mix, the model's folder.

    The same text gives the same objects; tests must not change them.
    """

    @cache
    def build(text: str) -> tuple[Any, Any, Any, Path]:
        from transformers import AutoProcessor

        from ssrl_core.mix import load_mix
        from ssrl_core.models.completions import load_model
        from ssrl_core.models.tiny import build_tiny_model

        folder = tmp_path_factory.mktemp("tiny")
        (folder / "mix.yaml").write_text(text, encoding="utf-8")
        mix = load_mix(folder / "mix.yaml")
        build_tiny_model(mix, folder / "model", texts=32)
        model, processor = load_model(str(folder / "model")), AutoProcessor.from_pretrained(folder / "model")
        return model, processor, mix, folder / "model"

    return build


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Puts a model that answers A to everything in the place of every engine. Returns what each was made with."""
    from ssrl_core.cli import model as options
    from ssrl_core.evaluate.models import Written

    made: list[tuple[str, dict[str, Any]]] = []

    class StandIn:
        written = None

        def __init__(self, path: str, *_: object, **settings: Any) -> None:
            self.facts = {"engine": "none", "model": path}
            made.append((path, settings))

        def __enter__(self) -> StandIn:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def answer(self, examples: Iterable[Any], sampling: object) -> Iterator[tuple[Any, Written]]:
            return ((example, Written("A", cut=False)) for example in examples)

    for engine in ("Transformers", "Served", "Endpoint"):
        monkeypatch.setattr(options, engine, StandIn)
    monkeypatch.setattr(options, "command_for", lambda examples, *_, **settings: ("vllm", *examples))
    return made


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve small images in a folder with a space and letters of other scripts in its name."""
    folder = tmp_path / "фото ü"
    folder.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (72, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02} é.png")
    return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photographs of scikit-image and scikit-learn as JPEG files."""
    folder = tmp_path_factory.mktemp("photographs")
    for package, below, names in (
        ("skimage", "data", ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")),
        ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
    ):
        spec = find_spec(package)  # importing the packages takes seconds
        assert spec and spec.origin, package
        for name in names:
            with Image.open(Path(spec.origin).parent / below / name) as image:
                image.convert("RGB").save((folder / name).with_suffix(".jpg"), quality=90)
    return folder


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, Path]:
    """The module ``fixtures/miniatures.py``, and a folder with all miniatures, which tests do not change."""
    pytest.importorskip("av", reason="the 'benchmarks' extra is not installed")
    spec = spec_from_file_location("miniatures", FIXTURES / "miniatures.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.write_all(tmp_path_factory.mktemp("miniatures"))
