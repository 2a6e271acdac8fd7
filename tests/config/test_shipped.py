"""The one search for configs by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfa_hf.config.shipped import find_config, folders, names, shipped
from sfa_hf.errors import ConfigError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_shipped_configs_are_found_by_name_from_anywhere() -> None:
    assert find_config("demo", "CONFIG", "sequences") == shipped() / "sequences" / "demo.yaml"
    assert find_config("demo.yaml", "CONFIG", "comparisons") == shipped() / "comparisons" / "demo.yaml"
    assert find_config("average", "RECIPE", "merges") == shipped() / "merges" / "average.yaml"
    assert find_config("demo/math", "task", "tasks") == shipped() / "tasks" / "demo" / "math.yaml"
    assert find_config("small-real", "CONFIG", "comparisons", "sequences").parent.name == "comparisons"
    assert find_config("pythia-2.8b-math-law", "CONFIG", "comparisons", "sequences").is_file()
    assert find_config("demo/demo", "x", "tasks", beside=[_made("demo/demo.yaml").parents[1]]).is_file()


def _made(name: str) -> Path:
    file = Path.cwd() / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a: 1")
    return file


def test_nearer_places_come_first() -> None:
    found = [find_config("demo", "CONFIG", "sequences", beside=[Path("beside")])]
    for name in ("configs/sequences/demo.yaml", "beside/demo.yaml", "demo"):
        _made(name)
        found.append(find_config("demo", "CONFIG", "sequences", beside=[Path("beside")]))
    expected = [Path("configs/sequences/demo.yaml"), Path("beside/demo.yaml"), Path("demo")]
    assert found == [shipped() / "sequences" / "demo.yaml", *expected]


def test_a_folder_of_that_name_is_no_config() -> None:
    Path("demo").mkdir()
    assert find_config("demo", "CONFIG", "sequences").name == "demo.yaml"


def test_an_unknown_name_lists_what_there_is_nearest_first() -> None:
    with pytest.raises(ConfigError) as error:
        find_config("math-law", "CONFIG", "sequences")
    assert error.value.key == "CONFIG"
    listed = error.value.right.partition("known: ")[2].split(", ")
    assert sorted(listed) == names(folders("sequences"))
    assert listed[0].endswith("math-law")


def test_a_path_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^runs/x.yaml: cannot be read \(there is no such file; "):
        find_config("runs/x.yaml", "CONFIG", "sequences")
