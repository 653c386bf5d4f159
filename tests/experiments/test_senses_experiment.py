"""Word or concept end to end on a packaged model: numbers of the library, figures, and sentences that can't serve."""

import pandas as pd
import pytest

import expertlens_jax as el
from configs.demo import get_config
from experiments import senses
from expertlens_jax.errors import ExpertLensError
from expertlens_jax.report.senses_findings import experts_name

WORDS = ("bat", "bank", "jam", "port", "mole", "crane")


def small(sentences, **changes):
    config = get_config("small")
    config.thresholds, config.drawn_threshold = (0.4, 0.5), 0.4
    config.resamples, config.permutations = 50, 99
    config.random_weights = ()
    config.senses.sentences = (str(sentences),)
    config.stability.seeds = ()
    for name, value in changes.items():
        config[name] = value
    return config


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """Six words in two senses, and their partners, in a file of one's own."""
    whole = el.load_concepts("senses")
    domains = {domain for word, domain in zip(whole.words, whole.domains, strict=True) if word in WORDS}
    rows = [
        {"concept": whole.concepts[row], "word": whole.words[row], "domain": whole.domains[row], "sentence": sentence}
        for row, labels in enumerate(whole.labels)
        if whole.domains[row] in domains
        for sentence, positive in zip(whole.sentences, labels, strict=True)
        if positive
    ]
    file = tmp_path_factory.mktemp("senses") / "mine.tsv"
    pd.DataFrame(rows).to_csv(file, sep="\t", index=False, quoting=3)
    return file


@pytest.mark.long
def test_the_run_holds_the_numbers_of_the_library(sentences, tmp_path):
    (conclusion,) = senses.run(small(sentences), tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "senses.csv").set_index(["measure", "kind"])
    concepts = el.load_concepts(sentences)
    responses = el.record_responses(el.load_model("lenslet-2m"), concepts.sentences, significant_bits=12)
    expertise = el.measure_expertise(responses, concepts)
    expected = el.analysis.senses(expertise, concepts, threshold=0.4, resamples=50).table
    for row in expected.itertuples():
        assert table.loc[(experts_name(0.4), row.kind), "overlap"] == pytest.approx(row.overlap, rel=1e-4)
    halves = f"{experts_name(0.4)}, between halves of the sentences"
    assert set(table.loc[halves].index) >= {"same word, same sense", "same word, other sense"}
    assert (table["homographs"] == 6).all()
    assert {"TF-IDF of the sentences", experts_name(0.5)} <= {*table.index.get_level_values("measure")}
    assert conclusion.verdict in ("held", "not held") and "6 words are more alike by sense" in conclusion.found
    assert (tmp_path / "run" / "figures" / f"{conclusion.figure}.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("facts", "'facts' can't tell concepts from words: no word stands for two concepts of different domains"),
        ("nowhere.tsv", "no file 'nowhere.tsv'"),
    ],
)
def test_sentences_that_cannot_serve_are_refused_before_the_model_runs(tmp_path, given, message):
    with pytest.raises(ExpertLensError, match=message):
        senses.run(small(given), tmp_path / "run")
    assert not (tmp_path / "run").exists()
