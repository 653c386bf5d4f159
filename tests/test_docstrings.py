"""The examples of public docstrings run, and give what they say."""

import doctest
import importlib
import inspect

import pytest

import expertlens_jax as el

ROOMS = ("analysis", "sentences", "training")
MODULES = (
    "expertlens_jax.analysis.conditions.questions",
    "expertlens_jax.analysis.similarity.questions",
    "expertlens_jax.analysis.structure.questions",
    "expertlens_jax.analysis.detecting.detectors",
    "expertlens_jax.analysis.detecting.question",
    "expertlens_jax.analysis.result",
    "expertlens_jax.analysis.statistics.draws",
    "expertlens_jax.data.concept_dataset",
    "expertlens_jax.data.concepts",
    "expertlens_jax.data.listed",
    "expertlens_jax.experts.directions",
    "expertlens_jax.experts.inspection",
    "expertlens_jax.experts.labelled_responses",
    "expertlens_jax.experts.overlap",
    "expertlens_jax.experts.tracing",
    "expertlens_jax.explorer.comparing",
    "expertlens_jax.explorer.site",
    "expertlens_jax.models.logit_effect",
    "expertlens_jax.parallel",
    "expertlens_jax.plot.fitting",
    "expertlens_jax.experts.scores",
    "expertlens_jax.settings",
    "expertlens_jax.sentences.concept_list",
    "expertlens_jax.sentences.sentence_sets",
    "expertlens_jax.training.corpus",
    "expertlens_jax.training.pretrain",
    "expertlens_jax.training.skip_gram",
    "expertlens_jax.training.tokenizer",
)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module):
    done = doctest.testmod(importlib.import_module(module), verbose=False)
    assert done.attempted > 0 and done.failed == 0


@pytest.mark.parametrize(("room", "name"), [(room, name) for room in ROOMS for name in getattr(el, room).__all__])
def test_every_public_name_of_a_room_has_an_example(room, name):
    public = getattr(getattr(el, room), name)
    assert ">>> " in inspect.getdoc(public), name
    assert public.__module__ in MODULES, name
