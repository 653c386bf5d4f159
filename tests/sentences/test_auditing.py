"""Each kind of fault, planted in a clean set, is found where it is, and a clean set has none."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import expertlens_jax as el
from expertlens_jax.errors import ConceptDataError
from expertlens_jax.sentences import auditing

SENSES = {"bat (animal)", "pipistrelle", "bat (sport)", "racket", "bank (money)", "lender", "bank (river)", "shore"}


@pytest.fixture(scope="module")
def clean():
    whole = el.load_concepts("senses")
    return whole.subset([name for name in whole.concepts if name in SENSES])


@pytest.fixture(scope="module")
def written(clean):
    """Writes the set with other sentences, by concept and number of the sentence, and audits it."""

    def audited(changes):
        sentences = list(clean.sentences)
        for (concept, number), sentence in changes.items():
            row = clean.concepts.index(concept)
            sentences[np.flatnonzero(clean.labels[row])[number]] = sentence
        return el.sentences.audit(dataclasses.replace(clean, sentences=tuple(sentences)))

    return audited


def found(audit, problem, sentence=None):
    rows = audit.table[audit.table["problem"] == problem]
    return rows if sentence is None else rows[rows["sentence"] == sentence]


def test_a_clean_set_has_no_grave_fault(clean):
    audit = el.sentences.audit(clean)
    grave = audit.table[audit.table["severity"] == "high"]
    assert grave.empty, grave
    assert found(audit, "near-duplicate").empty and found(audit, "template").empty
    assert found(audit, "another concept's word").empty and found(audit, "lacks its word").empty


def test_a_sentence_in_the_wrong_sense_is_told_first(written):
    wrong = "He opened an account at the bank and put all his savings in."
    audit = written({("bank (river)", 3): wrong})
    (row,) = found(audit, "wrong sense", wrong).itertuples()
    assert row.concept == "bank (river)" and row.severity == "high"
    assert "like 'bank (money)'" in row.evidence
    assert audit.table.iloc[0]["sentence"] == wrong
    # It reads like another domain too, which is said once.
    assert len(audit.table[(audit.table["sentence"] == wrong) & audit.table["problem"].str.startswith("reads")]) == 0


def test_a_sentence_of_another_domain_is_told():
    concepts = el.load_concepts("facts").subset(["cat", "dog", "horse", "piano", "violin", "flute", "drum"])
    alien = concepts.sentences[int(np.flatnonzero(concepts.labels[3])[0])]
    audit = auditing.audit(concepts)
    before = set(found(audit, "reads like another domain")["sentence"])
    labels = concepts.labels.copy()
    column = concepts.sentences.index(alien)
    labels[3, column], labels[0, column] = False, True
    moved = auditing.audit(dataclasses.replace(concepts, labels=labels))
    assert alien not in before
    texts = moved.table[moved.table["sentence"] == alien]
    assert {"lacks its word", "another concept's word"} <= set(texts["problem"])  # "piano" in a sentence on cats


def test_near_duplicates_are_told_within_and_across_concepts(written):
    one, same = "A bat hung from the beam of the old barn.", "From the beam of the old barn a bat hung."
    other = "A racket hung from the beam of the old barn."
    audit = written({("bat (animal)", 0): one, ("bat (animal)", 1): same, ("racket", 0): other})
    assert found(audit, "near-duplicate", one)["evidence"].iloc[0].startswith("100% of the words are those of its own")
    assert "of 'bat (animal)'" in found(audit, "near-duplicate", other)["evidence"].iloc[0]
    assert set(found(audit, "near-duplicate")["severity"]) == {"high"}


@pytest.mark.parametrize(
    ("sentences", "how"),
    [
        (
            ["Once upon a bat there came rain.", "Once upon a bat I was told to go.", "Once upon a bat we sang."],
            "begin",
        ),
        (["Mice fear a bat of some sort.", "Nobody wants a bat of some sort.", "I drew a bat of some sort."], "end"),
        (
            ["Yes, we all live in a bat here.", "Do you all live in a bat too?", "All live in a bat and sleep."],
            "hold 'all live in a _'",
        ),
    ],
)
def test_templates_are_told_by_their_common_words(written, sentences, how):
    audit = written({("bat (animal)", i): sentence for i, sentence in enumerate(sentences)})
    rows = found(audit, "template")
    assert set(rows["sentence"]) == set(sentences) and (rows["severity"] == "medium").all()
    assert rows["evidence"].str.contains(f"3 of 20 sentences {how}").all()


def test_words_of_other_concepts_and_labels_are_told(written):
    leaks, label = "The lender sat on the bank of the stream.", "This bat is an animal with wings."
    audit = written({("bank (river)", 5): leaks, ("bat (animal)", 6): label})
    (row,) = found(audit, "another concept's word").itertuples()
    assert row.sentence == leaks and "it holds 'lender'" in row.evidence and row.severity == "low"
    assert "it holds 'animal'" in found(audit, "label", label)["evidence"].iloc[0]


def test_a_sentence_without_its_word_is_told(written):
    without = "It hangs upside down and sleeps all day."
    (row,) = found(written({("bat (animal)", 2): without}), "lacks its word").itertuples()
    assert (row.concept, row.sentence, row.severity) == ("bat (animal)", without, "high")


def test_concepts_without_a_word_lack_none_and_share_none():
    texts = ("How kind of you!", "What a lovely day.", "Thank you so much.", "Go away!", "I hate this.", "You fool.")
    labels = np.repeat(np.eye(2, dtype=bool), 3, axis=1)
    concepts = el.ConceptDataset("mine", texts, ("kind", "rude"), ("", ""), labels, np.ones(6, bool), words=("", ""))
    audit = el.sentences.audit(concepts)
    assert found(audit, "lacks its word").empty and "sense" not in set(audit.accuracy["told"])


def test_accuracy_is_that_of_plain_numpy(clean):
    """Each sentence against each sense's summed TF-IDF, its own left out."""
    texts = auditing._texts(clean)
    weights = auditing._word_weights(texts).toarray()
    domains = np.array(clean.domains)[[text.row for text in texts]]
    words = np.array(clean.words)[[text.row for text in texts]]
    right = []
    for i, (domain, word) in enumerate(zip(domains, words, strict=True)):
        others = {each for each in domains[words == word]} - {domain}
        if others:
            cosine = {}
            for each in [domain, *others]:
                total = weights[(domains == each) & (np.arange(len(texts)) != i)].sum(0)
                cosine[each] = weights[i] @ total / np.linalg.norm(total)
            right.append(cosine[domain] > max(cosine[each] for each in others))
    accuracy = el.sentences.audit(clean).accuracy.set_index(["told", "by"])
    assert accuracy.loc[("sense", "words"), "accuracy"] == pytest.approx(np.mean(right), abs=1e-9)
    assert accuracy.loc[("sense", "words"), "sentences"] == len(right) == 80


def test_a_model_is_asked_too(clean):
    few = clean.subset(["bat (animal)", "pipistrelle", "bat (sport)", "racket"])
    accuracy = el.sentences.audit(few, el.load_model("lenslet-2m")).accuracy.set_index(["told", "by"])["accuracy"]
    assert 0.5 < accuracy[("sense", "model")] <= 1


def test_what_was_found_is_told_drawn_and_saved(written, tmp_path):
    audit = written({("bat (animal)", 2): "It hangs upside down and sleeps all day."})
    told = audit.summary()
    assert told.startswith("senses: 160 sentences of 8 concepts.")
    assert "lacks its word: 1 sentence (1 high)." in told and "bat (animal) 1 of 20" in told
    assert "lacks its word" in repr(audit)
    audit.save(tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "audit.csv")["problem"].tolist() == audit.table["problem"].tolist()
    assert (tmp_path / "out" / "audit.png").stat().st_size > 5_000


def test_what_is_no_sentence_set_is_refused_by_name():
    with pytest.raises(
        ConceptDataError, match=r"audit was given str 'facts'; wanted a sentence set, as el.load_concepts"
    ):
        el.sentences.audit("facts")
