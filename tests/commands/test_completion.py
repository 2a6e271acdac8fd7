"""Completion, through click's classes and in a real bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from sfa_hf.commands.main import COMMAND, COMMANDS, NAME, main
from sfa_hf.config.shipped import folders, names

VARIABLE = "_SFA_HF_COMPLETE"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFA_HF_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", [BashComplete, ZshComplete, FishComplete])
@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "co", ["compare", "correct", "completion"]),
        (["train"], "dem", ["dem", "demo"]),
        (["merge"], "wise", ["wise", "wise-ft"]),
        (["completion"], "", ["bash", "zsh", "fish"]),
        (["train", "demo"], "method.na", ["method.name="]),
        (["train", "demo", "seed=1"], "training.save_strategy=e", ["training.save_strategy=epoch"]),
        (["train", "demo", "method.name", "="], "seq", ["sequential"]),  # bash's words
        (["evaluate", "MODEL"], "task=demo/m", ["task=demo/math"]),
        (["doctor"], "", []),
    ],
)
def test_what_may_come_next(
    kind: type[ShellComplete], words: list[str], incomplete: str, expected: list[str]
) -> None:
    found = kind(COMMAND, {}, NAME, VARIABLE).get_completions(words, incomplete)
    assert [each.value for each in found] == expected


def test_all_shipped_configs_are_offered() -> None:
    found = ShellComplete(COMMAND, {}, NAME, VARIABLE).get_completions(["train"], "")
    assert {each.value for each in found} >= set(names(folders("sequences")))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_says_how_it_is_used(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["completion", shell])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert out.startswith("# put this line into ")
    assert f"{VARIABLE}={shell}_complete" in out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.slow
def test_a_real_bash_completes(tmp_path: Path) -> None:
    command = tmp_path / "sfa-hf"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sfa_hf "$@"\n')
    command.chmod(0o755)
    program = f"""
PATH={tmp_path}:$PATH
eval "$(sfa-hf completion bash)"
compopt() {{ printf 'compopt %s %s\\n' "$1" "$2"; }}
answers() {{
    COMPREPLY=(); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
    _sfa_hf_completion sfa-hf
    echo "${{COMPREPLY[@]}}"
}}
answers sfa-hf ev
answers sfa-hf train dem
answers sfa-hf train demo method.na
complete -p sfa-hf
"""
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, timeout=300, check=True, cwd=tmp_path
    )
    lines = done.stdout.splitlines()
    assert "evaluate" in lines
    assert "demo" in lines
    assert lines[lines.index("method.name=") - 1] == "compopt -o nospace"
    assert any("_sfa_hf_completion sfa-hf" in line for line in lines)


def test_every_command_can_be_asked_for() -> None:
    found = ShellComplete(COMMAND, {}, NAME, VARIABLE).get_completions([], "")
    assert [each.value for each in found] == list(COMMANDS)
