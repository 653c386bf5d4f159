"""The benchmark that compiles for accelerators, without their compilers: what it counts, prints and refuses."""

import dataclasses
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))

import compile_for
import compiled_text
import programs
import targets

from expertlens_jax import parallel
from expertlens_jax.errors import ExpertLensError
from expertlens_jax.models.families import FAMILIES

V5E = targets.find_targets(["v5e:2x2"])[0]


def told(capsys, *arguments):
    """What the command prints as an error, and that it fails."""
    assert compile_for.main(arguments) == 1
    return capsys.readouterr().err


def test_unknown_target_lists_those_there_are(capsys):
    message = told(capsys, "v5e:2x2", "a100")
    assert "there is no target 'a100'" in message and "'v5e:2x2'" not in message
    for target in targets.TARGETS:
        assert f"{target.name} ({target.description})" in message


def test_unknown_program_lists_those_there_are(capsys):
    message = told(capsys, "v5e:2x2", "--programs=recording,tokenizing")
    assert "no program is called 'tokenizing'" in message
    for program in programs.programs():
        assert program.name in message


def test_every_family_has_a_program_and_those_that_are_models_go_by_their_names(capsys):
    assert [program.name for program in programs.families()] == [f"recording family {name}" for name in FAMILIES]
    message = told(capsys, "v5e:2x2", "--families", "--programs=mamba")
    assert "no program is called 'mamba'" in message and "recording family qwen2_moe; " in message
    assert "--small and --families were given" in told(capsys, "--small", "--families")
    assert all(program.holds_model for program in programs.families())
    two_layers = programs.find_config("OPT-350m").first_layers(2)
    assert two_layers.num_layers == 2 and two_layers.token_width == 512


def test_missing_compiler_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    message = told(capsys, "v5p:4x4x4")
    assert "libtpu isn't installed here" in message
    assert 'make accelerators ARGS="v5p:4x4x4"' in message
    assert "jax_cuda12_plugin isn't installed" in told(capsys, "h100")
    assert "isn't installed" in told(capsys, "--small")


def test_model_axis_that_a_target_lacks():
    with pytest.raises(ExpertLensError, match=r"model=3 was given; the 4 devices of v5e:2x2 .*model=1, 2, 4"):
        V5E.mesh(3)
    row = compile_for.compile_one(V5E, programs.Program("recording Pythia-12b over 16", None, model=16))
    assert not row.fits and row.why_not == "needs 16 devices or a multiple; there are 4"


@dataclasses.dataclass(frozen=True)
class Here(targets.Target):
    """This machine, as if it were a target."""

    def mesh(self, model=1):
        return parallel.make_mesh(model)


def here(memory):
    return Here("here", "cpu", "", jax.device_count(), memory, None, "this machine")


def doubling(mesh, sizes):
    return jax.jit(lambda x: 2 * x).trace(programs.shaped(mesh, (1000, 1000), jnp.float32))


def test_program_that_does_not_fit_says_what_is_missing_and_what_helps():
    program = programs.Program("recording GPT-2", doubling)
    assert compile_for.compile_one(here(8_000_000), program).fits
    row = compile_for.compile_one(here(5_000_000), program)
    assert not row.fits and row.device_bytes == 8_000_000
    assert "needs 8 MB and a device of here has 5 MB: 3 MB are missing" in row.why_not
    assert "it would take 2 devices and model=2, or a smaller tokens_per_batch" in row.why_not

    without_model = compile_for.does_not_fit(V5E, programs.Program("ranking", doubling), V5E.memory + 10**9, 4)
    assert "1 GB are missing" in without_model and "model=" not in without_model
    split = compile_for.does_not_fit(V5E, programs.Program("recording Pythia-12b", doubling), 24 * 10**9, 4)
    assert "needs 24 GB and a device of v5e:2x2 has 16.9 GB: 7.09 GB are missing; model=2 would help" in split


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("RESOURCE_EXHAUSTED: ... Used 28.20G of 15.75G hbm. Exceeded hbm capacity by 12.45G.", 28.2 * 2**30),
        ("Ran out of memory on HBM, the total memory required (1.09T) exceeds available HBM (15.75G).", 1.09 * 2**40),
        ("Mosaic failed to compile", None),
    ],
)
def test_bytes_that_the_compiler_refuses(message, expected):
    assert compile_for.needed_bytes(message) == (None if expected is None else pytest.approx(expected))


def test_operations_of_the_products_that_results_need():
    def work(x, layers):
        def layer(x, kernel):
            return jnp.tanh(x @ kernel), None

        dead = x @ layers[0]
        del dead
        x, _ = jax.lax.scan(layer, x, layers)
        return x @ layers[0][:, :2]

    traced = jax.jit(work).trace(jnp.ones((3, 5)), jnp.ones((7, 5, 5)))
    assert compile_for.matmul_flops(traced.jaxpr) == 2 * 3 * 5 * 5 * 7 + 2 * 3 * 5 * 2


def test_operations_of_one_way_of_several():
    def work(x, which):
        return jax.lax.cond(which, lambda x: x @ x @ x, lambda x: 2 * x, x) @ x

    assert compile_for.matmul_flops(jax.jit(work).trace(jnp.ones((5, 5)), True).jaxpr) == 2 * 5**3


def test_a_mixture_over_several_devices_is_traced_as_these_would_run_it_whatever_this_process_has():
    """Over one device large experts' products are grouped; where rows are split over four, they are dense."""
    sizes = programs.Sizes(tokens_per_batch=64)

    def is_grouped(devices):
        mesh = jax.sharding.AbstractMesh((devices, 1), (parallel.DATA, parallel.MODEL))
        config = programs.find_config("OLMoE-1B-7B").first_layers(1)
        return "ragged_dot" in str(programs.recording_of(mesh, config, sizes).jaxpr)

    assert is_grouped(1) and not is_grouped(4)


def test_operations_of_recording_are_the_layers_and_not_the_heads():
    sizes = programs.Sizes(tokens_per_batch=64)
    mesh = parallel.make_mesh()
    traced = programs.recording(mesh, "GPT-2", sizes)
    rows = 2 * mesh.size
    kernels = 12 * 12 * 768 * 768
    attention = 12 * 2 * 32 * 768
    assert compile_for.matmul_flops(traced.jaxpr) == 2 * rows * 32 * (kernels + attention)


def test_loops_and_kernels_of_a_real_program():
    def work(x, turns):
        x, _ = jax.lax.scan(lambda x, _: (jnp.sin(x), None), x, length=5)
        return jax.lax.fori_loop(0, turns, lambda _, x: jnp.cos(x), x)

    counts = compiled_text.count(jax.jit(work).lower(jnp.ones(300), 3).compile().as_text())
    assert counts.loops == 2
    assert counts.unknown_loops == 1
    assert counts.kernels > 5


TEXT = """HloModule jit_work

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], bf16[8,4]{1,0:T(8,128)(2,1)S(1)})) -> (s32[], bf16[8,4]) {
  %p = (s32[]{:T(128)}, bf16[8,4]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %x = bf16[8,4]{1,0} get-tuple-element(%p), index=1
  %product = bf16[8,4]{1,0} fusion(%x), kind=kOutput, calls=%fused, backend_config={"estimated_cycles":"100"}
  %sum = (bf16[8,4]{1,0}, f32[2]{0}) all-reduce(%product, %f), replica_groups={}, to_apply=%add
  ROOT %out = (s32[], bf16[8,4]{1,0}) tuple(%i, %product)
}

%condition (p: (s32[], bf16[8,4])) -> pred[] {
  %p = (s32[], bf16[8,4]{1,0}) parameter(0)
  %turns = s32[] constant(16)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %turns), direction=LT
}

%fused (x: bf16[8,4]) -> bf16[8,4] {
  %x = bf16[8,4]{1,0} parameter(0)
  ROOT %y = bf16[8,4]{1,0} multiply(%x, %x)
}

ENTRY %main (x: bf16[8,4]) -> bf16[8,4] {
  %x = bf16[8,4]{1,0} parameter(0)
  %gathered-start = (bf16[8,4]{1,0}, bf16[32,4]{1,0}) all-gather-start(%x), dimensions={0}
  %gathered-done = bf16[32,4]{1,0} all-gather-done(%gathered-start)
  %sorted = bf16[8,4]{1,0} sort(%x), dimensions={0}, to_apply=%add
  %start = (s32[], /*index=1*/bf16[8,4]{1,0}) tuple(%zero, %sorted)
  %loop = (s32[], bf16[8,4]{1,0}) while(%start), condition=%condition, body=%body
  ROOT %copy = bf16[8,4]{1,0} copy(%x), backend_config={"estimated_cycles":"7"}
}
"""


def test_what_is_in_a_loop_counts_every_turn():
    counts = compiled_text.count(TEXT)
    assert counts.cycles == 16 * 100 + 7
    assert counts.unestimated == 1  # the sort
    assert counts.collectives == 1 + 16
    assert counts.collective_bytes == 32 * 4 * 2 + 16 * (8 * 4 * 2 + 2 * 4)
    assert (counts.loops, counts.unknown_loops) == (1, 0)
    # all-gather, sort and copy; and a turn's fusion, all-reduce and comparison
    assert counts.kernels == 3 + 16 * 3


def test_loop_without_a_stated_end_is_unknown_and_counts_once():
    counts = compiled_text.count(TEXT.replace("constant(16)", "parameter(1)"))
    assert counts.unknown_loops == 1
    assert counts.cycles == 100 + 7
    stated = TEXT.replace("constant(16)", "parameter(1)").replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"3"}}'
    )
    assert compiled_text.count(stated).cycles == 3 * 100 + 7


def row(**changes):
    plain = dict(target="v5e:2x2", program="recording GPT-2", fits=True, device_bytes=8 * 10**9)
    return compile_for.Row(**plain | dict(device_memory=16 * 10**9) | changes)


def test_table_has_a_line_for_each_row_under_its_target():
    rows = [
        row(cycles=1_234_567, mfu=0.654, unestimated=0, kernels=12, loops=1, unknown_loops=0, collectives=0),
        row(target="h100", loops=4, unknown_loops=2, collectives=3, collective_bytes=5 * 10**6),
        row(program="ranking", fits=False, why_not="needs 20 GB", device_bytes=None),
    ]
    text = compile_for.format_table(rows)
    assert (
        text.splitlines()[0]
        == "Estimates by XLA's compilers for accelerators that are not there; nothing here was measured."
    )
    v5e, h100 = text.split("h100: NVIDIA")
    assert "v5e:2x2: TPU v5e, 4 chips" in v5e
    (line,) = [line for line in v5e.splitlines() if line.startswith("recording GPT-2")]
    assert line.split() == ["recording", "GPT-2", "yes", "8", "GB", "50%", "1,234,567", "65%", "0", "12", "1", "0", "0"]
    assert "  ranking: needs 20 GB." in v5e
    assert "5 MB" in h100 and "recording GPT-2" in h100
    assert {len(line) for line in v5e.splitlines()} != {0}


def test_json_holds_every_figure_and_says_what_it_is():
    found = json.loads(compile_for.to_json([row(mfu=0.5)]))
    assert found["what"] == compile_for.CAPTION and found["jax"] == jax.__version__
    assert found["rows"] == [dataclasses.asdict(row(mfu=0.5))]


TRACED = [p for p in programs.programs() if p.model == 1]


@pytest.mark.parametrize("program", [*TRACED, *programs.families()], ids=lambda p: p.name)
def test_every_program_is_traced_from_shapes(program):
    traced = program.trace(parallel.make_mesh(), programs.Sizes(tokens_per_batch=64))
    assert traced.jaxpr.eqns


def test_small_set_names_programs_and_targets_that_are_there():
    names = {program.name for program in programs.programs()}
    for target, program in compile_for.SMALL:
        assert targets.find_targets([target])
        assert program in names
