"""sfa-hf as a person meets it: lists, help, versions, and one line for what is wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from sfa_hf.commands.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
Called = tuple[int, str, str]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """Call sfa-hf in this process: exit code, standard output, standard error."""

    def called(*arguments: str) -> Called:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert isinstance(end.value.code, int)
        return end.value.code, *capsys.readouterr()

    return called


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_lists_every_command(arguments: list[str], call: Callable[..., Called]) -> None:
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    for name, entry in COMMANDS.items():
        assert f"  {name} " in out
        assert entry.summary in out


def test_the_version_is_the_packages(call: Callable[..., Called]) -> None:
    assert call("--version") == (0, f"sfa-hf {version('sfa_hf')}\n", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian"], "error: trian: is not a command (did you mean 'train'?"),
        (["--verbose"], "error: --verbose: is not an option"),
        (["train", "demo", "--lr=1"], "error: --lr: is not an option (key=value; sfa-hf train --help"),
        (["train"], "error: CONFIG: is missing (sfa-hf train CONFIG [key=value ...])"),
        (["train", "seed=1"], "error: CONFIG: is missing"),
        (["train", "demoo"], "error: CONFIG: there is no config 'demoo' (did you mean 'demo'? known: demo, "),
        (["train", "demo", "seed"], "error: seed: is not an option (key=value"),
        (["train", "demo", "sed=1"], "error: sed: is not a known key (did you mean 'seed'?"),
        (["train", "demo", "seed=true"], "error: seed: "),
        (["train", "demo", "training.max_steps=true"], "error: training.max_steps: got True (a number)"),
        (["train", "demo", "training.max_steps=010"], "error: training.max_steps: got '010' (a number)"),
        (["train", "demo", "method.beta=true"], "error: method.beta: "),
        (["train", "demo", "evaluation.limit=true"], "error: evaluation.limit: is True"),
        (["train", "demo", "data.dir=~nosuchuser/x"], "error: data.dir: ~nosuchuser/x: there is no user"),
        (["train", "demo", "output_dir=$NO_SUCH_VARIABLE/x"], "no environment variable NO_SUCH_VARIABLE"),
        (["evaluate", "~nosuchuser/m", "task=demo/math"], "error: model.name_or_path: ~nosuchuser/m: there"),
        (["merge", "average", "$NO_SUCH_VARIABLE/m"], "error: OUT_DIR: $NO_SUCH_VARIABLE/m: there is no env"),
        (["train", "demo", "output_dir=/dev/null/run"], "error: output_dir: /dev/null/run cannot be made"),
        (["merge", "averag", "out"], "error: RECIPE: there is no recipe 'averag' (did you mean 'average'?"),
        (["merge", "average"], "error: OUT_DIR: is missing"),
        (["doctor", "now"], "error: now: is one argument too many (sfa-hf doctor)"),
        (["runs", "a", "b"], "error: a: is not a folder"),
        (["completion", "tcsh"], "error: SHELL: there is no completion for 'tcsh'"),
        (["evaluate", "builtin:pythia", "tsk=math"], "error: tsk: is not a known key (did you mean 'task'?"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(
    arguments: list[str],
    line: str,
    call: Callable[..., Called],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_key_in_100_columns(name: str, call: Callable[..., Called]) -> None:
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: sfa-hf {name}")
    assert max(map(len, out.splitlines())) <= 100
    shown = {line.split()[0].partition("=")[0] for line in out.splitlines() if line.startswith("  ")}
    for place in COMMANDS[name].places:
        assert place.name in shown
    assert _wanted(name) <= shown


def _wanted(name: str) -> set[str]:
    """Keys by the declarations themselves."""
    import dataclasses

    from transformers import TrainingArguments

    from sfa_hf.evaluation import EvaluationOptions
    from sfa_hf.hf_trainer.arguments import OWNED
    from sfa_hf.methods import known_methods
    from sfa_hf.rules import known_rules
    from sfa_hf.tasks import DataOptions

    scoring = {f"evaluation.{key}" for key in EvaluationOptions.model_fields}
    scoring |= {f"data.{key}" for key in DataOptions.model_fields}
    fields = {f"training.{each.name}" for each in dataclasses.fields(TrainingArguments) if each.init}
    training = fields - {f"training.{owned}" for owned in OWNED}
    methods = [(key, field) for each in known_methods().values() for key, field in each.model_fields.items()]
    run = scoring | training | {f"method.{field.alias or key}" for key, field in methods}
    run |= {"model.name_or_path", "model.dtype", "sequence", "seed", "output_dir"}
    rules = [(key, field) for each in known_rules().values() for key, field in each.model_fields.items()]
    return {
        "train": run | {"overwrite"},
        "compare": run | {"methods", "seeds", "reference", "config"},
        "demo": run,
        "merge": {"models", "base", "rule.name", "dtype"} | {f"rule.{f.alias or key}" for key, f in rules},
        "evaluate": scoring | {"task", "model.dtype", "model.linearised", "output_dir"},
        "probe": scoring | {"task", "points", "beyond", "fisher.a", "features.rows", "output_dir"},
        "correct": scoring | training | {"teacher", "task", "past", "loss", "layer", "rows"},
        "runs": {"after", "output"},
    }.get(name, set())


def test_the_list_of_commands_imports_no_torch_and_a_merge_no_trainer() -> None:
    program = (
        "import sys; from sfa_hf.commands.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
        "import sfa_hf.commands.merge\n"
        "assert 'transformers.trainer' not in sys.modules\n"
        "assert 'sfa_hf.sequence' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_a_script_is_a_door_to_its_command(script: Path) -> None:
    code = script.read_text().partition('"""\n\n')[2]
    name = code.split('script("')[1].partition('"')[0]
    assert name in COMMANDS
    assert len([line for line in code.splitlines() if line.strip()]) == 3
