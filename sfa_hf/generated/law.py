"""Generated Law rows: which kind of contract clause is it, or is it of a given kind?

Columns: ``clause``, ``category`` (one of :data:`CATEGORIES`), ``question``, ``choices`` (list), ``answer``
(one of ``choices``).
"""

from __future__ import annotations

import random
from typing import Any

_FIRST = (
    "Acme", "Alder", "Apex", "Atlas", "Aurora", "Birch", "Borealis", "Cedar", "Cobalt", "Crest", "Delta",
    "Ember", "Falcon", "Granite", "Harbor", "Helix", "Iris", "Juniper", "Keystone", "Lumen", "Maple",
    "Meridian", "Nova", "Onyx", "Orchid", "Pioneer", "Quartz", "Raven", "Sierra", "Summit", "Tidal",
    "Vertex", "Willow", "Zenith",
)  # fmt: skip
_LAST = ("Bank", "Foods", "Group", "Labs", "Media", "Motors", "Partners", "Systems", "Textiles", "Works")
_STATES = (
    "Alaska", "Arizona", "California", "Colorado", "Delaware", "Florida", "Georgia", "Illinois", "Kansas",
    "Maine", "Michigan", "Nevada", "New York", "Ohio", "Oregon", "Texas", "Utah", "Vermont", "Virginia",
    "Washington",
)  # fmt: skip
_UNITS = ("days", "weeks", "months", "years")
TEMPLATES: dict[str, tuple[str, ...]] = {
    "Termination": (
        "{p} may end this Agreement on {n} {unit} written notice to {q}.",
        "This Agreement ends if {p} fails to cure a breach within {n} {unit} of notice by {q}.",
        "Either of {p} and {q} may cancel after {n} {unit}.",
    ),
    "Payment": (
        "{p} shall pay {q} {amount} dollars within {n} {unit} of the invoice.",
        "The fee of {amount} dollars is due to {q} from {p} every {n} {unit}.",
        "{q} shall bill {p} {amount} dollars after {n} {unit}.",
    ),
    "Confidentiality": (
        "{p} shall keep the data of {q} secret for {n} {unit}.",
        "For {n} {unit} after notice {p} shall not disclose the records of {q}.",
        "{p} and {q} shall not reveal these terms to anyone for {n} {unit}.",
    ),
    "Assignment": (
        "{p} may not transfer this Agreement without written consent of {q}, given within {n} {unit}.",
        "{q} may assign its rights under this Agreement to {p} after {n} {unit}.",
        "A change of control of {p} within {n} {unit} counts as a transfer to {q}.",
    ),
    "Warranty": (
        "{p} warrants to {q} that the goods are free of defects for {n} {unit}.",
        "For {n} {unit} {p} shall repair or replace any faulty part at no cost to {q}.",
        "{p} promises {q} that the service will work as described for {n} {unit}.",
    ),
    "Governing Law": (
        "The laws of {state} govern this Agreement between {p} and {q}.",
        "{p} and {q} shall bring any dispute before the courts of {state} within {n} {unit}.",
        "This Agreement of {p} and {q} is construed under the law of {state}.",
    ),
}
CATEGORIES = tuple(TEMPLATES)


def draw(rng: random.Random) -> dict[str, Any]:
    """Draw one row. Half of the rows ask for the kind, half ask about a given kind (half of these: Yes)."""
    category = rng.choice(CATEGORIES)
    row = {"clause": _clause(rng, category), "category": category}
    if rng.random() < 0.5:
        question, choices, answer = "Which kind of clause is this?", list(CATEGORIES), category
        return {**row, "question": question, "choices": choices, "answer": answer}
    right = rng.random() < 0.5
    asked = category if right else rng.choice([each for each in CATEGORIES if each != category])
    answer = "Yes" if right else "No"
    return {**row, "question": f"Is this a {asked} clause?", "choices": ["Yes", "No"], "answer": answer}


def _clause(rng: random.Random, category: str) -> str:
    p, q = (f"{first} {rng.choice(_LAST)}" for first in rng.sample(_FIRST, 2))
    slots = {"n": rng.randint(2, 90), "unit": rng.choice(_UNITS), "amount": rng.randint(1, 99) * 100}
    return rng.choice(TEMPLATES[category]).format(p=p, q=q, state=rng.choice(_STATES), **slots)
