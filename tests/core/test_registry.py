"""Registries: conflicts, unknown names, broken modules, and plug-ins of other packages."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.core.registry import ALGORITHMS, BACKBONES, DATASETS, Registry, did_you_mean
from tests.support.messages import mentions

ROOT = Path(__file__).resolve().parents[2]
GROUP = "shortcutbed_tests.things"

MODULE = """
from house.registry import THINGS

@THINGS.register
class {cls}:
    name = "{name}"
"""


#: The beginning of a plug-in's class that inherits from what it should.
SUBCLASS = "from tests.core.test_registry import Shape\nclass Bee(Shape):\n    name = 'bee'\n"


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Registry]]:
    """Makes a package house.rooms out of module texts, with a registry of its own."""

    def make(**modules: str) -> Registry:
        rooms = tmp_path / "house" / "rooms"
        rooms.mkdir(parents=True)
        (tmp_path / "house" / "__init__.py").touch()
        (rooms / "__init__.py").touch()
        (tmp_path / "house" / "registry.py").write_text(
            "from benchmark.core.registry import Registry\n"
            f"THINGS = Registry('thing', 'house.rooms', {GROUP!r})\n"
        )
        for name, text in modules.items():
            (rooms / f"{name}.py").write_text(text)
        import house.registry  # type: ignore[import-not-found]

        return house.registry.THINGS  # type: ignore[no-any-return]

    monkeypatch.syspath_prepend(str(tmp_path))
    yield make
    for name in [n for n in sys.modules if n.split(".")[0] in ("house", "plugin_x")]:
        del sys.modules[name]


def _plug_in(folder: Path, entry_points: str, module: str) -> None:
    """An installed package: a module and its dist-info, as pip would leave them."""
    info = folder / "plugin_x-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-x\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entry_points}\n")
    (folder / "plugin_x.py").write_text(module)


def test_every_module_is_found_and_names_are_sorted(house: Callable[..., Registry]) -> None:
    things = house(
        b=MODULE.format(cls="B", name="zebra"),
        a=MODULE.format(cls="A", name="ant"),
        _hidden="raise OSError",
    )
    assert things.names() == ["ant", "zebra"]
    assert things.get("ant").name == "ant"
    assert things.origin("zebra") == "house.rooms.b.B"
    assert things.broken == {}


def test_a_second_thread_waits_until_all_are_there(house: Callable[..., Registry]) -> None:
    things = house(slow="import time\ntime.sleep(0.3)\n" + MODULE.format(cls="Late", name="late"))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: things.get("late"), range(2))
    assert first is second


def test_two_classes_of_one_name_are_both_named_each_time(house: Callable[..., Registry]) -> None:
    things = house(a=MODULE.format(cls="A", name="same"), b=MODULE.format(cls="B", name="same"))
    for _ in range(2):
        with pytest.raises(UserError, match=r"'same'.*house\.rooms\.a\.A .*house\.rooms\.b\.B"):
            things.names()


def test_registering_the_same_class_again_is_harmless() -> None:
    things: Registry = Registry("thing", "none", GROUP)

    class A:
        name = "a"

    assert things.register(A) is A and things.register(A) is A


@pytest.mark.parametrize("name", ["", 3, None])
def test_a_class_without_a_name_is_refused(name: object) -> None:
    things: Registry = Registry("thing", "none", GROUP)
    with pytest.raises(UserError, match=r"has no name.*name = "):
        things.register(type("A", (), {"name": name}))


def test_a_missing_optional_dependency_does_not_stop_others(
    house: Callable[..., Registry],
) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"), b="import a_package_that_is_not_there")
    assert things.names() == ["ant"]
    assert things.broken == {"house.rooms.b": "No module named 'a_package_that_is_not_there'"}
    with pytest.raises(UserError) as found:
        things.get("bee")
    assert "unknown thing 'bee'" in str(found.value) and "a_package_that_is_not_there" in str(
        found.value
    )


def test_a_bug_in_our_own_module_is_raised_every_time(house: Callable[..., Registry]) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"), b="1 / 0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            things.get("ant")


def test_unknown_names() -> None:
    assert did_you_mean("group_dor", ["group_dro", "erm"]) == "; did you mean group_dro?"
    assert did_you_mean("x", ["b", "a"]) == "; there are: a, b."
    assert did_you_mean("x", []) == "; there are none."
    assert did_you_mean("?", [f"n{i:02}" for i in range(30)]).endswith("n19, ….")
    with pytest.raises(UserError, match=r"^unknown algorithm 'irmm'; did you mean irm"):
        ALGORITHMS.get("irmm")
    with pytest.raises(UserError, match=r"^unknown dataset 'tinyy'; did you mean tiny"):
        DATASETS.get("tinyy")
    with pytest.raises(UserError, match=r"^unknown backbone 'convent'; did you mean convnet"):
        BACKBONES.get("convent")


def test_a_plug_in_can_name_its_class(
    house: Callable[..., Registry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"))
    _plug_in(tmp_path, "anything = plugin_x:Bee", "class Bee:\n    name = 'bee'\n")
    assert things.names() == ["ant", "bee"]
    assert things.origin("bee") == "plugin_x.Bee"


def test_a_plug_in_can_name_a_module_that_registers_its_own(
    house: Callable[..., Registry], tmp_path: Path
) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"))
    _plug_in(tmp_path, "anything = plugin_x", MODULE.format(cls="Bee", name="bee"))
    assert things.names() == ["ant", "bee"]


def test_a_plug_in_that_takes_a_name_of_ours_is_listed_and_ours_stays(
    house: Callable[..., Registry], tmp_path: Path
) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"))
    _plug_in(tmp_path, "anything = plugin_x:Bee", "class Bee:\n    name = 'ant'\n")
    assert things.names() == ["ant"]
    assert things.origin("ant") == "house.rooms.a.A"
    (place,) = things.broken
    assert place == "entry point plugin_x:Bee"
    assert mentions(things.broken[place], "ant", "house.rooms.a.A", "plugin_x.Bee", "uninstall")


def test_a_plug_in_that_was_imported_first_does_not_keep_a_name_of_ours(
    house: Callable[..., Registry], tmp_path: Path
) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"))
    _plug_in(tmp_path, "anything = plugin_x", MODULE.format(cls="Bee", name="ant"))
    import plugin_x  # type: ignore[import-not-found]

    assert things.known_modules() == {"ant": plugin_x.Bee.__module__}
    assert things.names() == ["ant"]
    assert things.origin("ant") == "house.rooms.a.A"
    assert "plugin_x.Bee" in things.broken["plugin_x.Bee"]


def test_of_two_plug_ins_with_one_name_neither_is_used(
    house: Callable[..., Registry], tmp_path: Path
) -> None:
    """Using one of them would depend on the order in which they were installed."""
    things = house(a=MODULE.format(cls="A", name="ant"))
    module = "\n".join(f"class {name}:\n    name = 'bee'\n" for name in ("One", "Two", "Three"))
    points = "\n".join(f"{name} = plugin_x:{name}" for name in ("One", "Two", "Three"))
    _plug_in(tmp_path, points, module)
    assert things.names() == ["ant"]
    assert set(things.broken) == {
        "plugin_x.One",
        "entry point plugin_x:Two",
        "entry point plugin_x:Three",
    }
    with pytest.raises(UserError, match=r"two things are called 'bee': plugin_x\.One and"):
        things.get("bee")


class Shape:
    """The base class of plug-ins."""

    name = ""


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import a_package_that_is_not_there", "No module named"),
        ("Other = 1", "AttributeError"),
        ("def (", "SyntaxError"),
        ("import sys\nsys.exit()", "SystemExit"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("raise BaseException('base')", "BaseException: base"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("class Odd(Exception):\n    def __str__(self): return 1 / 0\nraise Odd", "Odd"),
        ("raise ValueError('a\\nb' + 'x' * 5000)", "ValueError: a b"),
        ("class Bee: pass", "plugin_x.Bee has no name"),
        ("class Bee:\n    name = 3", "plugin_x.Bee has no name"),
        ("Bee = 3", "plugin_x:Bee is int, expected a class or a module"),
        ("def Bee(): pass", "plugin_x:Bee is function, expected a class or a module"),
        ("class Bee:\n    name = 'bee'", "plugin_x.Bee is not a subclass"),
        (f"{SUBCLASS}    options = 3", "options of plugin_x.Bee is int, not a table"),
        (f"{SUBCLASS}    hparams = {{'a': 3}}", "hparams of plugin_x.Bee: 'a' is not HParam"),
        (f"{SUBCLASS}    variants = {{'a': 3}}", "variants of plugin_x.Bee: 'a' is not Mapping"),
        (f"{SUBCLASS}    variants = None", "variants of plugin_x.Bee is NoneType, not a table"),
    ],
)
def test_a_broken_plug_in_is_reported_and_does_not_stop_others(
    module: str, why: str, house: Callable[..., Registry], tmp_path: Path
) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"))
    things.base = f"{__name__}:Shape"
    _plug_in(tmp_path, "anything = plugin_x:Bee", module)
    assert things.names() == ["ant"]
    assert list(things.broken) == ["entry point plugin_x:Bee"]
    message = things.broken["entry point plugin_x:Bee"]
    assert why in message and "\n" not in message and len(message) <= 300
    with pytest.raises(UserError, match=r"entry point plugin_x:Bee cannot be used"):
        things.get("bee")


def test_a_plug_in_that_fails_half_way_leaves_nothing(
    house: Callable[..., Registry], tmp_path: Path
) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"))
    _plug_in(tmp_path, "anything = plugin_x", MODULE.format(cls="Bee", name="bee") + "1 / 0\n")
    assert things.names() == ["ant"]
    assert "ZeroDivisionError" in things.broken["entry point plugin_x"]


def test_a_module_that_registers_nothing_is_listed(
    house: Callable[..., Registry], tmp_path: Path
) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"))
    _plug_in(tmp_path, "anything = plugin_x", "x = 1\n")
    assert things.names() == ["ant"]
    assert things.broken == {"entry point plugin_x": "plugin_x registers no thing"}


def test_ctrl_c_during_an_import_is_not_held_back(
    house: Callable[..., Registry], tmp_path: Path
) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"))
    _plug_in(tmp_path, "anything = plugin_x", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        things.names()


def test_unreadable_metadata_of_a_package_does_not_stop_others(
    house: Callable[..., Registry], tmp_path: Path
) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"))
    _plug_in(tmp_path, "anything = plugin_x", "")
    (tmp_path / "plugin_x-1.0.dist-info" / "entry_points.txt").write_bytes(b"[\xff\xfe")
    assert things.names() == ["ant"]
    assert "UnicodeDecodeError" in things.broken[f"entry points {GROUP}"]


def test_a_class_of_another_package_that_does_not_work_is_withdrawn(
    house: Callable[..., Registry], tmp_path: Path
) -> None:
    things = house(a=MODULE.format(cls="A", name="ant"))
    _plug_in(tmp_path, "anything = plugin_x", MODULE.format(cls="Bee", name="bee"))
    assert things.is_ours("ant") and not things.is_ours("bee")
    things.withdraw("bee", ValueError("no info"))
    assert things.names() == ["ant"] and things.broken == {"plugin_x.Bee": "ValueError: no info"}
    with pytest.raises(ZeroDivisionError):
        things.withdraw("ant", ZeroDivisionError())


def _in_a_process(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    text = f"import sys\nsys.path[:0] = {[str(p) for p in paths]!r}\n{textwrap.dedent(code)}"
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, cwd=ROOT, check=False
    )


ASK = """
from benchmark.core.errors import exit_code
from benchmark.core.registry import DATASETS
sys.exit(exit_code(lambda: print(DATASETS.names())))
"""


@pytest.mark.parametrize("content", ["", "raise SystemExit('foreign code ran')"])
def test_another_package_called_datasets_is_reported(content: str, tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text(content)
    done = _in_a_process(ASK, tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert re.search(
        r"'datasets' belongs to another package \(.*/datasets/__init__\.py\).*virtual env",
        done.stderr,
    )


def test_hugging_face_datasets_behind_ours_is_reported(tmp_path: Path) -> None:
    info = tmp_path / "datasets-4.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: datasets\nVersion: 4.1\n")
    done = _in_a_process(f"sys.path.append({str(tmp_path)!r})\n{ASK}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "Hugging Face's package datasets 4.1" in done.stderr


def test_without_a_foreign_package_ours_is_found() -> None:
    done = _in_a_process(ASK)
    assert done.returncode == 0 and "'tiny'" in done.stdout, done.stderr
