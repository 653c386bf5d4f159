"""Compiles every jitted program of the package ahead of time, for TPUs and GPUs that need not be there.

    make accelerators ARGS="v5e:2x2 h100"          # installs the compilers first
    python benchmarks/compile_for.py v5e:2x2 --programs=recording --tokens_per_batch=4096 --json=v5e.json
    python benchmarks/compile_for.py v5e:2x2 --families --programs=qwen2_moe,opt

A row is a program: whether it compiles and fits, or why not and what would help; bytes of a device's memory; on TPUs
the cycles that libtpu's compiler estimates, and the share of the matrix units' peak that the model's operations would
reach in them (MFU); kernels, loops, and loops whose number of turns the compiler doesn't know, each of which a GPU
would take to the host; collectives, and the bytes that each device gets by them. Everything is made from shapes: no
weights, no sentences, no accelerator.

These are a compiler's estimates, not measurements. A cycle estimate leaves out sorts and gathers (the column `not
est.` counts them), and what waits for memory, the host or other chips may take longer than it says.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import math
import pathlib
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import compiled_text
import jax
from programs import Program, Sizes, families, programs
from targets import TARGETS, Target, find_targets, without_accelerators

from expertlens_jax.errors import ExpertLensError
from expertlens_jax.experts.budget import format_bytes
from expertlens_jax.parallel import num_cores

CAPTION = "Estimates by XLA's compilers for accelerators that are not there; nothing here was measured."

SMALL = (
    # What `make accelerators` compiles: the programs that most depends on, in about a minute.
    ("v5e:2x2", "recording Pythia-1b"),
    ("v5e:2x2", "recording Pythia-12b over 4"),
    ("v5e:2x2", "exchange of sentences for units"),
    ("h100", "recording Pythia-1b"),
    ("h100", "ranking"),
    ("h100", "generation's step Pythia-1b"),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """What a compiler says of a program; None where it says nothing."""

    target: str
    program: str
    fits: bool
    why_not: str = ""
    device_bytes: int | None = None
    """Arguments, results and what is between, on each device."""
    device_memory: int | None = None
    flops: int | None = None
    """Of matrix products, on each device."""
    cycles: int | None = None
    mfu: float | None = None
    unestimated: int | None = None
    kernels: int | None = None
    loops: int | None = None
    unknown_loops: int | None = None
    collectives: int | None = None
    collective_bytes: int | None = None
    seconds: float = 0.0
    """That compiling took."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles and prints; returns 1 if an asked-for name isn't there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="default: " + " ".join(target.name for target in TARGETS))
    parser.add_argument("--programs", default="", help="only those whose names hold one of these, comma-separated")
    parser.add_argument("--families", action="store_true", help="recording by every family of models, of two layers")
    parser.add_argument("--model", type=int, help="over how many devices to split every model; default: as listed")
    parser.add_argument("--tokens_per_batch", type=int, help="of recording; default: what the device's memory gives")
    parser.add_argument("--small", action="store_true", help="the few that continuous integration compiles")
    parser.add_argument("--json", type=pathlib.Path, help="write the rows to this file as well")
    asked = parser.parse_args(arguments)
    without_accelerators()
    try:
        work = choose(asked)
        rows = compile_all(work, asked.tokens_per_batch)
    except ExpertLensError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(format_table(rows))
    if asked.json:
        asked.json.write_text(to_json(rows))
        print(f"written to {asked.json}")
    return 0


def choose(asked: argparse.Namespace) -> list[tuple[Target, Program]]:
    """The programs to compile, each for its target.

    Raises:
      ExpertLensError: a target or a program that isn't there, or a compiler that isn't installed.
    """
    chosen = find_targets(asked.targets or [target.name for target in TARGETS])
    parts = [part.strip() for part in asked.programs.split(",") if part.strip()]
    everything = families() if asked.families else programs()
    unknown = [part for part in parts if not any(part in program.name for program in everything)]
    if unknown:
        raise ExpertLensError(
            f"no program is called {', '.join(map(repr, unknown))}. There are "
            f"{'; '.join(program.name for program in everything)}."
        )
    if asked.small and asked.families:
        raise ExpertLensError("--small and --families were given; the first names programs that aren't of families.")
    if asked.small:
        chosen = find_targets(list(dict.fromkeys(target for target, _ in SMALL)))
    for target in chosen:
        target.check_compiler()
    if asked.small:
        by_name = {program.name: program for program in everything}
        return [(find_targets([target])[0], by_name[program]) for target, program in SMALL]
    named = [program for program in everything if not parts or any(part in program.name for part in parts)]
    if asked.model is not None:
        named = [dataclasses.replace(program, model=asked.model) for program in named if program.model == 1]
    return [(target, program) for target in chosen for program in named]


def compile_all(work: Sequence[tuple[Target, Program]], tokens_per_batch: int | None = None) -> list[Row]:
    """Compiles programs, as many at once as there are cores."""
    with concurrent.futures.ThreadPoolExecutor(num_cores()) as threads:
        started = [threads.submit(compile_one, target, program, tokens_per_batch) for target, program in work]
        rows = []
        for (target, program), each in zip(work, started, strict=True):
            print(f"{target.name}: {program.name} ...", file=sys.stderr, flush=True)
            rows.append(each.result())
    return rows


def compile_one(target: Target, program: Program, tokens_per_batch: int | None = None) -> Row:
    """Compiles one program for one target."""
    start = time.perf_counter()
    here = {"target": target.name, "program": program.name, "device_memory": target.memory}
    if target.num_devices % program.model:
        why = f"needs {program.model} devices or a multiple; there are {target.num_devices}"
        return Row(**here, fits=False, why_not=why)
    sizes = Sizes(tokens_per_batch, target.platform, target.memory)
    mesh = target.mesh(program.model)
    traced = program.trace(mesh, sizes)
    flops = matmul_flops(traced.jaxpr) // mesh.size
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        needed = needed_bytes(str(error))
        why = first_line(error) if needed is None else does_not_fit(target, program, needed, mesh.size)
        return Row(**here, fits=False, why_not=why, flops=flops, seconds=time.perf_counter() - start)
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    needed = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    counts = compiled_text.count(compiled.as_text())
    estimated = counts.cycles if target.flops_per_cycle else None
    return Row(
        **here,
        fits=needed <= target.memory,
        why_not="" if needed <= target.memory else does_not_fit(target, program, needed, mesh.size),
        device_bytes=needed,
        flops=flops,
        cycles=estimated,
        mfu=flops / (estimated * target.flops_per_cycle) if estimated and flops else None,
        unestimated=counts.unestimated if target.flops_per_cycle else None,
        kernels=counts.kernels,
        loops=counts.loops,
        unknown_loops=counts.unknown_loops,
        collectives=counts.collectives,
        collective_bytes=counts.collective_bytes,
        seconds=seconds,
    )


def does_not_fit(target: Target, program: Program, needed: int, devices: int) -> str:
    """How many bytes are missing, and what would help."""
    missing = needed - target.memory
    said = (
        f"needs {format_bytes(needed)} and a device of {target.name} has {format_bytes(target.memory)}: "
        f"{format_bytes(missing)} are missing"
    )
    more = program.model * 2 ** math.ceil(math.log2(needed / target.memory))
    if not program.holds_model:
        return f"{said}; more devices would help, or fewer units at once"
    if more <= devices:
        return f"{said}; model={more} would help, or a smaller tokens_per_batch if the activations are what is large"
    return f"{said}; it would take {more} devices and model={more}, or a smaller tokens_per_batch"


def needed_bytes(message: str) -> int | None:
    """The bytes that libtpu's compiler says a program would take, when it refuses it for its memory."""
    found = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message) or re.search(
        r"\(([\d.]+)([KMGT]?)\) exceeds available HBM", message
    )
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " ")) if found else None


def first_line(error: Exception) -> str:
    """What went wrong, shortly."""
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return line if len(line) <= 160 else line[:157] + "..."


def matmul_flops(closed: Any) -> int:
    """Operations of the matrix products that a traced program's results need, all devices together."""
    jaxpr = getattr(closed, "jaxpr", closed)
    wanted = {id(var) for var in jaxpr.outvars}
    total = 0
    for equation in reversed(jaxpr.eqns):
        if not equation.effects and not any(id(var) in wanted for var in equation.outvars):
            continue
        wanted |= {id(var) for var in equation.invars}
        total += _flops(equation)
    return total


def _flops(equation: Any) -> int:
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * inner * math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "cond":  # one way of several, perhaps by platform: the one with the least to do
        return min(matmul_flops(branch) for branch in equation.params["branches"])
    times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
    if equation.primitive.name == "shard_map":
        times = equation.params["mesh"].size
    inside = [
        value
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns"))
        if hasattr(value, "eqns") or hasattr(value, "jaxpr")
    ]
    return times * sum(matmul_flops(jaxpr) for jaxpr in inside)


def format_table(rows: Sequence[Row]) -> str:
    """The rows as text, a table for each target."""
    lines = [CAPTION]
    for target in dict.fromkeys(row.target for row in rows):
        own = [row for row in rows if row.target == target]
        cells = [HEADINGS, *map(_cells, own)]
        widths = [max(len(cell[i]) for cell in cells) for i in range(len(HEADINGS))]
        lines += ["", f"{target}: {find_targets([target])[0].description}"]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(each, widths, strict=True)).rstrip() for each in cells
        ]
        lines += [f"  {row.program}: {row.why_not}." for row in own if row.why_not]
    return "\n".join(lines)


HEADINGS = (
    *("program", "fits", "memory", "of it", "est. cycles", "est. MFU", "not est.", "kernels", "loops", "unknown turns"),
    *("collectives", "their bytes"),
)


def _cells(row: Row) -> tuple[str, ...]:
    def shown(value: float | None, form: str = "{:,}") -> str:
        return "" if value is None else form.format(value)

    share = None if row.device_bytes is None else row.device_bytes / row.device_memory
    return (
        row.program,
        "yes" if row.fits else "no",
        "" if row.device_bytes is None else format_bytes(row.device_bytes),
        shown(share, "{:.0%}"),
        shown(row.cycles),
        shown(row.mfu, "{:.0%}"),
        shown(row.unestimated),
        shown(row.kernels),
        shown(row.loops),
        shown(row.unknown_loops),
        shown(row.collectives),
        "" if not row.collective_bytes else format_bytes(row.collective_bytes),
    )


def to_json(rows: Sequence[Row]) -> str:
    """The rows with what they are."""
    return json.dumps(
        {"what": CAPTION, "jax": jax.__version__, "rows": [dataclasses.asdict(row) for row in rows]}, indent=1
    )


if __name__ == "__main__":
    sys.exit(main())
