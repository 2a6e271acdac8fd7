"""The probe's command line, from arguments to what it writes, on models of a few thousand weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from evaluation.small_models import SCORINGS, model, task, tokenizer
from safetensors.torch import load_file, save_file

from sfa_hf.commands.main import run_command
from sfa_hf.errors import ConfigError


def main(arguments: Sequence[str]) -> None:
    run_command("probe", arguments)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints a and b, their F, a task file and its data."""
    folder = tmp_path_factory.mktemp("probe")
    weights = {}
    for number, name in enumerate("ab"):
        own = model()
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in own.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        own.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
        weights[name] = load_file(folder / name / "model.safetensors")
        f = {key: torch.rand(each.shape, generator=generator) for key, each in weights[name].items()}
        (folder / f"f{name}").mkdir()
        save_file(f, folder / f"f{name}" / "part-1.safetensors")
    content = task(folder, SCORINGS["choice"], count=8).config.model_dump(mode="json", exclude_none=True)
    (folder / "small.yaml").write_text(yaml.safe_dump(content))
    return folder


def arguments(folder: Path, out: Path, **changes: str) -> list[str]:
    values = {
        "task": f"{folder}/small.yaml",
        "data.dir": str(folder),
        "output_dir": str(out),
        "points": "3",
        "beyond": "0.5",
        "fisher.a": f"{folder}/fa",
        "fisher.b": f"{folder}/fb",
        "models.other": f"{folder}/b",
        "evaluation.records": "false",
    } | changes
    return [f"{folder}/a", f"{folder}/b", *(f"{key}={value}" for key, value in values.items() if value)]


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "probe.json").read_text())


def test_it_measures_both_curves_and_the_checkpoints_beside(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments(saved, tmp_path))
    points = {key: each["tasks"]["small"] for key, each in read(tmp_path)["points"].items()}
    line = ["linear -0.5", "linear 0", "linear 0.5", "linear 1", "linear 1.5"]
    assert sorted(points) == sorted([*line, "fisher 0.5", "other"])
    assert points["other"] == points["linear 1"]
    assert points["linear 0"]["mismatch"]["a"]["mean"] == points["linear 1"]["mismatch"]["b"]["mean"] == 0
    far, near = (points[key]["mismatch"]["a"]["mean"] for key in ("linear 1", "linear 0.5"))
    assert 0 < near < far
    assert points["fisher 0.5"]["loss"] != points["linear 0.5"]["loss"]
    assert points["linear 0.5"]["loss"] == pytest.approx(loss_of(saved, tmp_path, 0.5), rel=1e-6)
    assert {each.name for each in tmp_path.iterdir()} >= {"path.png", "features.png"}
    assert not (tmp_path / "point.writing").exists()
    printed = capsys.readouterr().out.splitlines()
    assert [each.split("  ")[0].strip() for each in printed[1:8]] == [*line, "fisher 0.5", "other"]


def loss_of(saved: Path, spare: Path, alpha: float) -> float:
    """Loss of the average, made outside and measured by a probe from it to itself."""
    a, b = (load_file(saved / name / "model.safetensors") for name in "ab")
    average = model()
    average.load_state_dict({name: torch.lerp(each, b[name], alpha) for name, each in a.items()})
    average.save_pretrained(spare / "average")
    tokenizer().save_pretrained(spare / "average")
    main(
        [str(spare / "average")] * 2
        + arguments(
            saved,
            spare / "out",
            **{
                "points": "2",
                "beyond": "0",
                "fisher.a": "",
                "fisher.b": "",
                "models.other": "",
                "features": "null",
            },
        )[2:]
    )
    return read(spare / "out")["points"]["linear 0"]["tasks"]["small"]["loss"]


def test_the_same_command_goes_on_and_another_is_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sfa_hf.probing import probe

    real, calls = probe.measure, []

    def killed(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(probe, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        main(arguments(saved, tmp_path, features="null"))
    assert len(read(tmp_path)["points"]) == 2
    main(arguments(saved, tmp_path, features="null"))
    assert len(read(tmp_path)["points"]) == 7
    assert len(calls) == 3 + 5
    with pytest.raises(ConfigError, match="other values of points"):
        main(arguments(saved, tmp_path, features="null", points="5"))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"task": "nope"}, "task: there is no task 'nope'"),
        ({"points": "1"}, "points: is 1"),
        ({"pionts": "5"}, "pionts: is not a known key (did you mean 'points'?"),
        ({"fisher.a": "no/where"}, "fisher.a: there is no no/where"),
        ({"fisher.b": ""}, "fisher.b: is missing"),
        ({"models.other": "no/where/here"}, "models.other: there is no folder"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    saved: Path, tmp_path: Path, changes: dict[str, str], line: str
) -> None:
    with pytest.raises(ConfigError) as error:
        main(arguments(saved, tmp_path / "out", **changes))
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
