"""Test modules stand in rooms like the package's; reference code beside them is importable by name.

Each test is in one lane: what its own marker says, or its file, or its folder.

With `--cases=one`, each test outside the lane `unit` is run with one of its cases: another of each test, so that every
family of models and every setting is met by some. Those marked `every_case` keep all of theirs, or
one of each value of the parameters that the marker names; those marked `long` are left out.
"""

import atexit
import collections
import gc
import os
import pathlib
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator

import hypothesis
import jax
import pytest
import torch

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "models")]

from quick_compilation import clear_programs, quick_compilation  # noqa: E402

# How fast examples are drawn says how busy the machine is, and nothing of what is tested.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# The reference models are tiny: a second thread only waits, and takes the core of another worker.
torch.set_num_threads(1)

LANES = ("unit", "figures", "models", "parity", "process")
FOLDERS = {"plot": "figures", "models": "parity", "experiments": "process", "benchmarks": "process"}
WITH_MODELS = (
    *("test_choosing.py", "test_comparisons.py", "test_control_tables.py", "test_docstrings.py", "test_inspection.py"),
    *("test_labelled_responses.py", "test_minilm.py", "test_pipeline.py", "test_provenance.py", "test_readme.py"),
    *("test_responses.py", "test_site.py", "test_steering.py", "test_steering_effects.py", "test_token_masks.py"),
    *("test_tracing.py", "test_training_step.py", "test_attribution.py", "test_necessity.py", "test_pushing.py"),
    *("test_one_sort.py", "test_sae_training.py", "test_sae_step.py", "test_activations.py", "test_skip_gram.py"),
    *("test_learned_steering.py", "test_learned_units.py", "test_word_vectors.py", "test_ranking_as_compiled.py"),
    *("test_scores.py", "test_comparing.py", "test_live.py", "test_questions.py", "test_question.py"),
    *("test_expertise.py", "test_significance.py"),
)
"""Files in other folders whose tests run models or processes: most of their time is compilation."""

COMPILED_QUICKLY = (
    *("experiments", "test_activations.py", "test_chat.py", "test_choosing.py", "test_directions.py"),
    *("test_docstrings.py", "test_inspection.py", "test_labelled_responses.py", "test_logit_effect.py"),
    *("test_packaged.py", "test_readme.py", "test_sae_step.py", "test_sae_training.py", "test_scores.py"),
    *("test_scoring.py", "test_site.py", "test_sites.py", "test_steering.py", "test_steering_effects.py"),
    *("test_expertise.py", "test_ranking.py", "test_significance.py", "test_resampling.py", "test_distributions.py"),
    *("test_tracing.py", "test_one_sort.py", "test_pipeline.py", "test_word_vectors.py"),
    *("test_question.py", "test_comparing.py", "test_live.py", "test_auditing.py", "test_skip_gram.py"),
    *("test_cards.py", "test_live_page.py", "test_page.py"),
    *("test_split_recording.py", "test_logits.py", "test_sharding.py", "test_lm_eval_files.py", "test_gguf_files.py"),
    *("test_token_ids.py", "test_token_masks.py", "test_torch_hooks.py", "test_training_step.py"),
)
"""Folders and files whose tests ask what is made of numbers. That these are right is for those that compile as users
do. A file may also say it by itself, with the marker `compiled_quickly`."""

LONG = (
    *("test_find_experts_experiment.py", "test_generation.py", "test_config_fields.py", "test_hosts.py"),
    *("test_minilm.py", "test_parity.py", "test_alignment_experiment.py", "test_tensor_names.py", "test_sharding.py"),
    *("test_responses.py", "test_steering_experiment.py", "test_pretrain_experiment.py", "test_steering_effects.py"),
    *("test_pipeline.py", "test_growth_experiments.py", "test_stability_experiment.py", "test_site.py"),
    *("test_sae_training.py", "test_docstrings.py", "test_interventions.py", "test_training_step.py"),
    *("test_tracing.py", "test_one_sort.py"),
)
"""Files that take longest, which are begun first, so that two workers end together."""

# What is compiled once serves every process that a test starts, unless a directory is given. The tests' own process
# keeps nothing: its programs are small, and reading them back takes as long as compiling them.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
jax.config.update("jax_enable_compilation_cache", False)


def compile_as_wanted(request):
    """Compiles as a file or a test wants it, and keeps programs for the next, unless there are too many."""
    quickly = is_compiled_quickly(request.node, request.path)
    clear_programs(quickly)
    with quick_compilation(quickly):
        yield


programs_of_one_file = pytest.fixture(autouse=True, scope="module")(compile_as_wanted)
programs_of_one_test = pytest.fixture(autouse=True)(compile_as_wanted)  # in a file that otherwise compiles as users do


def is_compiled_quickly(node: pytest.Item | pytest.Collector, path: pathlib.Path) -> bool:
    marker = node.get_closest_marker("compiled_quickly")
    if marker is not None:  # a test's own before its file's: `compiled_quickly(False)` takes it out of that
        return marker.args != (False,)
    return not {path.name, path.relative_to(HERE).parts[0]}.isdisjoint(COMPILED_QUICKLY)


def begun(item: pytest.Item) -> tuple[bool, int, str, bool]:
    """The order of files: a process forgets its programs where the way to compile changes; then the longest first.

    Within a file too, what is compiled in one way stands together.
    """
    long = LONG.index(item.path.name) if item.path.name in LONG else len(LONG)
    of_file = is_compiled_quickly(item.getparent(pytest.Module) or item, item.path)
    return of_file, long, str(item.path), is_compiled_quickly(item, item.path)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported stays for ever: Python needn't look through its half a million objects for rubbish."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(20_000, 20, 20)


def pytest_addoption(parser: pytest.Parser) -> None:
    said = "of each test outside the lane `unit`, run all cases, or one, and leave out those marked `long`"
    parser.addoption("--cases", choices=("all", "one"), default="all", help=said)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if not any(item.get_closest_marker(lane) for lane in LANES):
            folder = item.path.relative_to(HERE).parts[0]
            otherwise = "models" if item.path.name in WITH_MODELS else "unit"
            item.add_marker(FOLDERS.get(folder, otherwise))
    if config.getoption("cases") == "one":
        kept = one_case_each(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
    items.sort(key=begun)


def one_case_each(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests of the lane `unit`, and of each other test one case, or those that `every_case` asks for."""
    cases = collections.defaultdict(list)
    for item in items:
        every = item.get_closest_marker("every_case")
        if item.get_closest_marker("unit") or (every and not every.args):
            cases[item.nodeid].append(item)
        else:  # of the named parameters each value, with one of the others'
            values = [repr(item.callspec.params[name]) for name in every.args] if every else []
            cases[" ".join([item.nodeid.partition("[")[0], *values])].append(item)
    chosen = [each[zlib.crc32(name.encode()) % len(each)] for name, each in cases.items()]
    return [item for item in chosen if not item.get_closest_marker("long")]
