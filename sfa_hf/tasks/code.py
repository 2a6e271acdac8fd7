"""What a task says whose answers are programs that are run."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sfa_hf.tasks.templates import Template


class CodeScoring(BaseModel):
    """How a program is made of a completion, tested, and how many are made of each prompt.

    Attributes:
        program: Jinja template over the row's columns and ``completion``, what the model wrote.
        test: likewise; run after the program and apart from it. The program passes if it raises nothing.
            ``program.NAME`` is the program's NAME, whatever the test itself calls so.
        samples: programs made of each prompt; n in arXiv 2107.03374.
        k: pass@k is reported for these; at most ``samples`` each, and 1 among them.
        temperature: of sampling; 0 takes the likeliest token, for which one sample is enough.
        top_p: sample among the likeliest tokens that together have this probability.
        seed: of sampling. A completion depends on it, on its row and its number among the samples; not on
            the batch or on the number of processes.
        cpu_seconds: processor time of a program and its test; by the clock they have twice as long.
        memory_mb: MiB.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    program: str = "{{ prompt }}{{ completion }}"
    test: str
    samples: int = Field(default=1, gt=0)
    k: list[int] = Field(default=[1], min_length=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    cpu_seconds: float = Field(default=5.0, gt=0)
    memory_mb: int = Field(default=1024, ge=64)

    @field_validator("program", "test")
    @classmethod
    def _templates_parse(cls, value: str) -> str:
        Template(value)
        return value

    @field_validator("k")
    @classmethod
    def _one_is_among_them(cls, value: list[int]) -> list[int]:
        if 1 not in value or min(value) < 1:
            raise ValueError("must be numbers from 1 on, 1 among them: pass@1 is the primary metric")
        return sorted(set(value))

    @model_validator(mode="after")
    def _samples_are_enough_and_differ(self) -> CodeScoring:
        if max(self.k) > self.samples:
            raise ValueError(f"pass@{max(self.k)} needs samples >= {max(self.k)}, not {self.samples}")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("with temperature 0 all samples are the same: samples=1, or a temperature")
        return self
