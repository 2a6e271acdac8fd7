from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.records import write_records
from sfa_hf.files.atomic import write_checked
from sfa_hf.files.manifest import seal
from sfa_hf.sequence.run_folder import RunFolder, RunState, differing_keys

CONFIG: dict[str, Any] = {
    "model": {"name_or_path": "builtin:pythia"},
    "sequence": [{"name": "math"}, {"name": "law"}],
    "method": {"name": "sfa", "beta": 0.5},
    **{section: {} for section in ("training", "evaluation", "data")},
    "seed": 0,
    "output_dir": "here",
}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run", CONFIG)
    made.create(overwrite=False)
    return made


def test_a_new_folder_has_no_state(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "run", CONFIG).read() is None


def test_state_is_read_back(folder: RunFolder) -> None:
    state = RunState(trained=1, scores=[[0.1], [0.2]], stderr=[[0.0], [0.0]], metrics_used={"a": "accuracy"})
    folder.write(state)
    assert RunFolder(folder.path, CONFIG).read() == state


def test_moving_a_run_does_not_make_it_another(folder: RunFolder) -> None:
    folder.write(RunState(trained=1))
    moved = RunFolder(folder.path, {**CONFIG, "output_dir": "elsewhere"}).read()
    assert moved is not None
    assert moved.trained == 1


def test_another_config_is_refused_by_key(folder: RunFolder) -> None:
    other = {**CONFIG, "method": {"name": "sfa", "beta": 0.25}}
    with pytest.raises(ConfigError, match=r"method\.beta \(0\.5 there, 0\.25 here\)"):
        RunFolder(folder.path, other).read()


def test_overwrite_replaces_a_run_and_nothing_else(folder: RunFolder, tmp_path: Path) -> None:
    folder.write(RunState(trained=2))
    other = RunFolder(folder.path, {**CONFIG, "seed": 1})
    other.create(overwrite=True)
    assert other.read() is None
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not a run's"):
        RunFolder(precious, CONFIG).create(overwrite=True)
    with pytest.raises(ConfigError, match="not a run's"):
        RunFolder(precious, CONFIG).read()
    assert (precious / "thesis.txt").exists()


def _finished_task(folder: RunFolder) -> None:
    """Make the files of a run that has trained one of its tasks and is at the second."""
    for part in ("0-math/model", "1-law/checkpoint-5", "0-math/sfa_anchor/0123abcd"):
        (folder.path / part).mkdir(parents=True)
        (folder.path / part / "model.safetensors").write_bytes(b"weights")
    seal(folder.path / "0-math" / "model", {})
    write_records(folder.records_folder(0) / "math.jsonl", [{"index": 0}])
    (folder.path / ".results.json.abc.tmp").write_text("torn")
    folder.write(RunState(trained=1))


def test_overwrite_removes_all_that_a_run_wrote(folder: RunFolder) -> None:
    _finished_task(folder)
    folder.create(overwrite=True)
    assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    "own",
    [
        "photos/cat.jpg",
        "thesis.txt",
        ".bashrc",
        "2-code/notes.txt",
        "0-math/notes.txt",
        "0-math/model/notes.txt",
        "0-math/model/inner/model.safetensors",
        "1-law/checkpoint-5/notes.txt",
        "1-law/checkpoint-best/model.safetensors",
        "records/after-0/other.jsonl",
        "records/notes.txt",
        "plots/mine.png",
    ],
)
def test_overwrite_refuses_by_name_what_no_run_wrote(folder: RunFolder, own: str) -> None:
    _finished_task(folder)
    path = folder.path / own
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("years of work")
    before = sorted(folder.path.rglob("*"))
    with pytest.raises(ConfigError, match=r"overwrite: .* is not a run's") as stop:
        RunFolder(folder.path, {**CONFIG, "seed": 1}).create(overwrite=True)
    named = Path(str(stop.value).removeprefix("overwrite: ").split(" is not")[0])
    assert named == path or named in path.parents
    assert sorted(folder.path.rglob("*")) == before


@pytest.mark.parametrize("place", ["", "0-math", "plots", "records/after-0", "0-math/model/vocab.txt"])
def test_overwrite_never_follows_a_link(folder: RunFolder, tmp_path: Path, place: str) -> None:
    _finished_task(folder)
    precious = tmp_path / "precious"
    link = folder.path / place
    link.rename(precious) if link.exists() else precious.write_text("a user's")
    link.symlink_to(precious)
    before = sorted(precious.rglob("*"))
    with pytest.raises(ConfigError, match=r"overwrite: .*symbolic link"):
        folder.create(overwrite=True)
    assert link.is_symlink()
    assert precious.exists()
    assert sorted(precious.rglob("*")) == before


@pytest.mark.parametrize("text", ["a: 1\n", "not yaml: [", "# mine\nseed: 0\n"])
def test_a_folder_with_some_config_stays_whole(tmp_path: Path, text: str) -> None:
    home = tmp_path / "home"
    (home / "Documents").mkdir(parents=True)
    (home / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"overwrite: .*Documents, .*config\.yaml are not a run's"):
        RunFolder(home, CONFIG).create(overwrite=True)
    assert (home / "config.yaml").read_text() == text


def test_a_state_of_an_older_version_is_refused_in_a_line(folder: RunFolder) -> None:
    older = {key: value for key, value in asdict(RunState()).items() if key not in ("rows", "records")}
    write_checked(folder.path / "state.json", {"schema": 1, **older})
    with pytest.raises(ConfigError, match=r"state\.json: .*schema is 1, here it is 3 .*overwrite=true"):
        folder.read()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(0, 500), previous=st.booleans())
def test_a_torn_state_is_the_one_before_or_an_error(folder: RunFolder, cut: int, previous: bool) -> None:
    before, state = RunState(trained=0), RunState(trained=1, scores=[[0.5]], stderr=[[0.1]])
    (folder.path / "state.json").unlink(missing_ok=True)
    folder.write(before)
    folder.write(state)
    if not previous:
        (folder.path / "state.previous.json").unlink()
    path = folder.path / "state.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    if whole[:cut].strip() == whole.strip():
        assert folder.read() == state
    elif previous:
        assert folder.read() == before
    else:
        with pytest.raises(ConfigError, match=r"state\.json"):
            folder.read()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_another_state(folder: RunFolder, at: int, bit: int) -> None:
    state = RunState(trained=2, scores=[[0.25]], stderr=[[0.125]], merges=[{"step": 4, "beta": 0.5}])
    (folder.path / "state.previous.json").unlink(missing_ok=True)
    (folder.path / "state.json").unlink(missing_ok=True)
    folder.write(state)
    path = folder.path / "state.json"
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 << bit
    path.write_bytes(data)
    found = None
    with suppress(ConfigError):
        found = folder.read()
    assert found is None or found == state


def test_what_a_crash_left_of_the_first_write_is_no_stranger(tmp_path: Path) -> None:
    made = RunFolder(tmp_path / "run", CONFIG)
    made.path.mkdir()
    (made.path / ".config.yaml.abc.tmp").write_text("met")
    assert made.read() is None
    made.create(overwrite=False)
    assert made.read() is None


def test_an_interrupted_write_leaves_the_old_state(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(RunState(trained=1))

    def power_cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", power_cut)
    with pytest.raises(KeyboardInterrupt):
        folder.write(RunState(trained=2))
    found = folder.read()
    assert found is not None
    assert found.trained == 1
    assert [path.name for path in folder.path.iterdir() if path.suffix == ".tmp"] == []


def test_differing_keys_are_dotted() -> None:
    assert differing_keys({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == [
        "a.c (2 there, 3 here)",
        "d (None there, 4 here)",
    ]
