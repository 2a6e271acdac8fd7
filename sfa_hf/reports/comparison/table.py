"""The figures of a comparison as Markdown tables, aligned to be readable as plain text too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sfa_hf.reports.comparison.view import Comparison, Figure, Method
from sfa_hf.reports.table import aligned, column_widths

_MIB = 2**20


@dataclass(frozen=True)
class Table:
    """A table: its title, a text about its columns, and cells of text; the first row names the columns."""

    title: str
    about: str
    cells: list[list[str]]


@dataclass(frozen=True)
class _Column:
    name: str
    cell: Callable[[Method], str]


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return the tables of scores, of what was kept and learned, and of cost."""
    return [_scores(comparison), _keeping(comparison), _cost(comparison)]


def markdown(comparison: Comparison) -> str:
    """Return all tables as one Markdown text."""
    tables = comparison_tables(comparison)
    parts = [heading(comparison)]
    parts += [f"### {table.title}\n\n{table.about}\n\n{_lines(table.cells)}" for table in tables]
    if unfinished := comparison.found["unfinished"]:
        parts.append(f"Left out, because they are not finished: {', '.join(unfinished)}.")
    parts += [
        f"Left out, because it was made with another config: {other}." for other in comparison.found["others"]
    ]
    return "\n\n".join(parts) + "\n"


def heading(comparison: Comparison) -> str:
    """Return what was compared, and what the intervals are."""
    seeds = comparison.found["seeds"]
    order = " → ".join(comparison.tasks)
    intervals = (
        f"means over seeds {', '.join(map(str, seeds))}, ± half a 95 % interval of Student's t over seeds"
        if len(seeds) > 1
        else f"one seed ({seeds[0]}): there are no intervals, and a difference may be chance"
    )
    return f"{comparison.found['model']}, {order}: {intervals}."


def _scores(comparison: Comparison) -> Table:
    tasks, reference = comparison.tasks, comparison.found["reference"]
    columns = [
        *(
            _figure(f"{task} ({comparison.unit([task])})", f"final.{task}", comparison.scale([task]))
            for task in tasks
        ),
        _figure("average", "average", comparison.scale(tasks)),
    ]
    if reference is not None:
        scale = comparison.scale(tasks)
        columns.append(
            _Column(f"average, from {reference}'s", lambda method: _signed(method, reference, scale))
        )
    about = "The score of each task after the whole sequence, and their mean."
    if reference is not None:
        about += f" Last column: the difference of the mean from that of {reference}, paired by seed."
    if comparison.named("single_task"):
        about += " single_task: the score of each task by its own model."
    return _table("Scores at the end", about, columns, comparison)


def _keeping(comparison: Comparison) -> Table:
    scale = comparison.scale(comparison.tasks)
    known = {
        "forgetting": (
            "forgetting",
            scale,
            "the best score that a past task ever had, minus its last one",
        ),
        "learning_accuracy": ("when learned", scale, "the score of each task right after its own training"),
        "backward_transfer": (
            "backward transfer",
            scale,
            "last score minus the score when learned, past tasks",
        ),
        "retention": (
            "retention, %",
            100.0,
            "what remains of a past task's gain over the base model; 100 is the gain of training on it alone",
        ),
        "intransigence": (
            "intransigence",
            scale,
            "how much less is learned of a new task than by joint training (or else by single_task)",
        ),
    }
    shown = {key: value for key, value in known.items() if _any_has(comparison, key)}
    columns = [_figure(title, key, factor) for key, (title, factor, _) in shown.items()]
    about = "; ".join(f"{title}: {meaning}" for title, _, meaning in shown.values())
    return _table("Kept and learned", f"Means over tasks. {about}.", columns, comparison)


def _cost(comparison: Comparison) -> Table:
    columns = [_figure("training, s", "train_seconds", 1.0, digits=0)]
    if _any_has(comparison, "extra_bytes"):
        columns.append(_figure("own memory, MiB", "extra_bytes", 1 / _MIB))
    columns.append(_figure("stored, MiB", "stored_bytes", 1 / _MIB))
    if _any_has(comparison, "displacement"):
        columns.append(_figure("displacement", "displacement", 1.0, digits=3))
    about = (
        "Wall time of training without scoring; memory that the method itself holds on one process; size of "
        "the models on disk. Displacement: how far a task after the first moved the weights; sequential is 1."
    )
    return _table("Cost", about, columns, comparison)


def _any_has(comparison: Comparison, figure: str) -> bool:
    return any(figure in method.figures for method in comparison.methods)


def _figure(name: str, figure: str, scale: float, digits: int | None = None) -> _Column:
    places = digits if digits is not None else (1 if scale != 1 else 3)
    return _Column(name, lambda method: _with_interval(method.figures.get(figure), scale, places))


def _with_interval(figure: Figure | None, scale: float, digits: int) -> str:
    if figure is None:
        return "-"
    mean = f"{scale * figure.mean:.{digits}f}"
    return mean if figure.half is None else f"{mean} ±{scale * figure.half:.{digits}f}"


def _signed(method: Method, reference: str, scale: float) -> str:
    """The difference from the reference, which has none of its own."""
    figure = None if method.label == reference else method.difference
    text = _with_interval(figure, scale, 1 if scale != 1 else 3)
    return f"+{text}" if figure is not None and figure.mean > 0 else text


def _table(title: str, about: str, columns: Sequence[_Column], comparison: Comparison) -> Table:
    head = ["method", "seeds", *(column.name for column in columns)]
    rows = [
        [method.label, str(len(method.seeds)), *(column.cell(method) for column in columns)]
        for method in comparison.methods
    ]
    return Table(title, about, [head, *rows])


def _lines(cells: Sequence[Sequence[str]]) -> str:
    first, *others = column_widths(cells)
    ruler = [":" + "-" * (first - 1), *("-" * (width - 1) + ":" for width in others)]
    return "\n".join(f"| {line} |" for line in aligned([cells[0], ruler, *cells[1:]], left=1, gap=" | "))
