"""What a compiler wrote of a program, counted: estimated cycles, kernels, loops and collectives.

The text is XLA's optimised HLO, as `compiled.as_text()` gives it. libtpu's writes into it how many cycles it estimates
most instructions to take; sorts and gathers it leaves out, and they count as nothing here.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping

import numpy as np

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
NO_KERNELS = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "domain"),
    *("after-all", "add-dependency", "opt-barrier", "partition-id", "replica-id", "async-start", "async-update"),
    "async-done",
}
_WIDTHS = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8}


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a program does in one run, as far as its text tells; what is in a loop counts once a turn."""

    cycles: int = 0
    """Estimated by libtpu's compiler; 0 where it doesn't estimate."""
    unestimated: int = 0
    """Sorts, gathers, scatters and kernels of another's making that run without an estimate."""
    kernels: int = 0
    """Instructions that a device is told to run one by one. Turns that aren't known count once."""
    loops: int = 0
    """Loops in the program's text."""
    unknown_loops: int = 0
    """Those of them whose number of turns the compiler doesn't know: a GPU asks the host after each turn."""
    collectives: int = 0
    collective_bytes: int = 0
    """What each device receives or is left with."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def turned(self, turns: int) -> "Counts":
        """These, run so many times by one loop's text."""
        run = {"cycles", "unestimated", "kernels", "collectives", "collective_bytes"}
        return dataclasses.replace(self, **{name: turns * getattr(self, name) for name in run})


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of HLO."""

    name: str
    shape: str
    opcode: str
    line: str


def count(text: str) -> Counts:
    """Counts what the program `text` does, from its entry on."""
    computations = read_computations(text)
    seen: set[tuple[str, str]] = set()

    def channel_of(fused: str) -> str:
        lines = [each.line for each in computations.get(fused, ()) if each.opcode.removesuffix("-start") in COLLECTIVES]
        found = re.search(r"channel_id=(\d+)", " ".join(lines))
        return found[1] if found else ""

    @functools.cache
    def of(name: str) -> Counts:
        total = Counts()
        for instruction in computations.get(name, ()):
            total += _one(instruction, computations)
            for called, turns in _called(instruction, computations):
                inside = of(called)
                if instruction.opcode == "fusion":  # runs as one kernel; on TPUs it may hold a collective
                    inside = Counts(collectives=inside.collectives, collective_bytes=inside.collective_bytes)
                    # One that goes on beside several products stands in each of their fusions.
                    if (channel := channel_of(called)) and (name, channel) in seen:
                        inside = Counts()
                    seen.add((name, channel))
                total += inside.turned(turns)
        return total

    return of("ENTRY")


def read_computations(text: str) -> Mapping[str, tuple[Instruction, ...]]:
    """Each computation's instructions by its name; the program's own is ENTRY."""
    computations: dict[str, list[Instruction]] = {}
    here: list[Instruction] | None = None
    for line in text.splitlines():
        if not line.startswith(" ") and line.endswith("{") and "->" in line:
            name = "ENTRY" if line.startswith("ENTRY") else line.split()[0].lstrip("%")
            here = computations.setdefault(name, [])
        elif line.startswith("}"):
            here = None
        elif here is not None and " = " in line:
            here.append(_instruction(line.strip()))
    return {name: tuple(instructions) for name, instructions in computations.items()}


def _instruction(line: str) -> Instruction:
    name, _, rest = line.removeprefix("ROOT ").partition(" = ")
    end = _end_of_shape(rest)
    shape, after = rest[:end], rest[end + 1 :]
    return Instruction(name.lstrip("%"), shape, after.partition("(")[0], line)


def _end_of_shape(text: str) -> int:
    """Where the first space outside all brackets stands."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == " " and depth == 0:
            return place
    return len(text)


def _one(instruction: Instruction, computations: Mapping[str, tuple[Instruction, ...]]) -> Counts:
    """What an instruction counts for, without what it calls."""
    cycles = re.search(r'"estimated_cycles":"(\d+)"', instruction.line)
    kind = instruction.opcode.removesuffix("-start")
    is_collective = kind in COLLECTIVES
    is_work = instruction.opcode not in NO_KERNELS and not instruction.opcode.endswith("-done")
    return Counts(
        cycles=int(cycles[1]) if cycles else 0,
        unestimated=int(not cycles and kind in ("sort", "gather", "scatter", "custom-call", "dynamic-gather")),
        kernels=int(is_work),
        loops=int(instruction.opcode == "while"),
        unknown_loops=int(instruction.opcode == "while" and _turns(instruction, computations) is None),
        collectives=int(is_collective),
        collective_bytes=_received(instruction) if is_collective else 0,
    )


def _called(instruction: Instruction, computations: Mapping[str, tuple[Instruction, ...]]) -> list[tuple[str, int]]:
    """The computations that an instruction runs, and how often."""
    match instruction.opcode:
        case "while":
            turns = _turns(instruction, computations)
            return [(_named(key, instruction), 1 if turns is None else turns) for key in ("body", "condition")]
        case "fusion" | "async-start":
            found = re.search(r"calls=%?([\w.\-]+)", instruction.line)
        case "call":
            found = re.search(r"to_apply=%?([\w.\-]+)", instruction.line)
        case "conditional":
            branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.line)
            names = (
                branches[1]
                if branches
                else ",".join(re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", instruction.line))
            )
            return [(name.strip().lstrip("%"), 1) for name in names.split(",")]
        case _:
            return []
    return [(found[1], 1)] if found else []


def _turns(loop: Instruction, computations: Mapping[str, tuple[Instruction, ...]]) -> int | None:
    """A loop's number of turns, if the compiler states it or its condition does."""
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.line)
    return int(found[1]) if found else _bound(computations.get(_named("condition", loop), ()))


def _named(key: str, instruction: Instruction) -> str:
    """The computation that an instruction names as its `key`."""
    return re.search(rf"{key}=%?([\w.\-]+)", instruction.line)[1]


def _bound(condition: tuple[Instruction, ...]) -> int | None:
    """The constant that a loop's counter, from 0, must be less than, and nothing else: libtpu leaves it at that."""
    constants = {each.name: each for each in condition if each.opcode == "constant"}
    root = next((each for each in condition if each.line.startswith("ROOT ")), None)
    if root is None or root.opcode != "compare" or "direction=LT" not in root.line:
        return None
    for name in re.findall(r"%([\w.\-]+)", root.line.partition("compare(")[2]):
        value = re.search(r"constant\((\d+)\)", constants[name].line) if name in constants else None
        if value:
            return int(value[1])
    return None


def _received(collective: Instruction) -> int:
    """Bytes of a collective's result; the start of one that overlaps with others lists its operands as well."""
    sizes = [
        _width(dtype) * int(np.prod([int(n) for n in dims.split(",") if n], initial=1))
        for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", collective.shape)
    ]
    if collective.opcode.endswith("-start") and collective.shape.startswith("("):
        return max(sizes)
    return sum(sizes)


def _width(dtype: str) -> int:
    """Bytes of one element."""
    if dtype in _WIDTHS:
        return _WIDTHS[dtype]
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else 0
