"""Concept files as people have them: labels, quotes, other columns and code pages are read right, told or refused."""

import csv
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

import expertlens_jax as el
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.data.subsample import draw_sentences
from expertlens_jax.errors import ConceptDataError, ExpertLensWarning
from expertlens_jax.sentences.masking import mask_words

SAID = ['He said "cat" twice.', '"Cats!" she cried.', "The cat sat.", "A cat ran.", "My cat, asleep.", "Cats purr."]
DOGS = ["A dog barked.", "The dog, big, ran.", '"Dog" is a word.', "Dogs run.", "My dog sleeps.", "Two dogs met."]
TABLE = pd.DataFrame({"concept": ["cat"] * 6 + ["dog"] * 6, "sentence": SAID + DOGS})


@pytest.fixture
def load(tmp_path):
    def load(content, name="mine.csv", **options):
        path = tmp_path / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return el.load_concepts(path, **{"minimum_sentences": 1, **options})

    return load


@pytest.mark.parametrize("tabs", [False, True])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_pandas_writes_with_tabs_is_read_back(load, tabs, quoting, line_end):
    table = TABLE.copy()
    if tabs:
        table.loc[5, "sentence"] = "Cats\tpurr.\nLoudly."
    dataset = load(
        lambda path: table.to_csv(path, sep="\t", index=False, quoting=quoting, lineterminator=line_end), "a.tsv"
    )
    assert dataset.sentences == tuple(table.sentence)


def test_tabs_with_quotes_as_text_are_read_as_they_stand(load):
    assert load("concept\tsentence\n" + "".join(f"{a}\t{b}\n" for a, b in TABLE.values), "a.tsv").sentences == tuple(
        TABLE.sentence
    )


@pytest.mark.parametrize("name", ["facts", "stories"])
def test_packaged_sentences_are_the_files_own_bytes(name):
    path = el.__path__[0] + f"/data/concepts/{name}.tsv"
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = [line.rstrip("\n").split("\t") for line in file]
    column = header.index("sentence")
    assert el.load_concepts(name).sentences == tuple(row[column] for row in rows)
    assert el.load_concepts(path).sentences == tuple(row[column] for row in rows)  # and found to be so


@given(st.lists(st.text('ab",. \t\n', min_size=1, max_size=8).map(str.strip).filter(bool), min_size=2, unique=True))
def test_any_table_that_pandas_quotes_is_read_back_or_told(tmp_path_factory, sentences):
    path = tmp_path_factory.mktemp("t") / "a.tsv"
    pd.DataFrame({"concept": "c", "sentence": sentences}).to_csv(path, sep="\t", index=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = el.load_concepts(path, minimum_sentences=1).sentences
        except ConceptDataError as error:  # lines that could be rows, if their quotes are text
            found, told = None, "quoted=True" in str(error)
        else:
            told = any("quoted=True" in str(each.message) for each in caught)
    assert told or found == tuple(sentences)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert el.load_concepts(path, minimum_sentences=1, quoted=True).sentences == tuple(sentences)


@pytest.mark.parametrize(
    ("rows", "message", "read"),
    [
        (
            ['cat\t"A cat!"', "cat\tTwo cats."],
            "1 field is in quotes, which were read as part of the text",
            ['"A cat!"', "Two cats."],
        ),
        (
            ['cat\t"A cat!"', 'cat\t"Two cats."'],
            "2 fields are in quotes, which were taken off",
            ["A cat!", "Two cats."],
        ),
        (
            ['cat\t"A ""cat""."', 'cat\t"Cats!" he said.'],
            "1 field looked quoted, .* others hold quotes as they are",
            ['"A ""cat""."', '"Cats!" he said.'],
        ),
        # A spreadsheet's text with tabs has quotes around commas.
        (
            ['cat\t"A cat, big."', 'cat\t"Cats, two."', "cat\tCats."],
            "2 fields .* taken off",
            ["A cat, big.", "Cats, two.", "Cats."],
        ),
        # Quotes torn over lines of right length: each line is a row.
        (['cat\t"A cat.', 'cat\tTwo cats."', 'cat\t"Cats."'], "", None),
    ],
)
def test_quotes_that_may_mean_two_things_are_told_and_can_be_said(load, rows, message, read):
    text = "concept\tsentence\n" + "\n".join(rows) + "\n"
    literal = tuple(row.partition("\t")[2] for row in rows)
    if message:
        with pytest.warns(ExpertLensWarning, match=f"a.tsv: {message}.*quoted=True .*quoted=False") as caught:
            assert load(text, "a.tsv").sentences == tuple(read)
        assert len(caught) == 1
    else:
        with pytest.warns(ExpertLensWarning, match="read as part of the text"):
            assert load(text, "a.tsv").sentences == literal
    assert load(text, "a.tsv", quoted=False).sentences == literal


def test_spaces_after_commas_open_quotes_too(load):
    assert load('concept, sentence\ncat, "A cat, asleep."\ncat, Cats.\n').sentences == ("A cat, asleep.", "Cats.")


LABELLED = """concept,sentence,label
nice,What a day.,1
nice,I like it.,1
nice,This is bad.,0
nice,Not nice.,0
cat,A cat sat.,1
cat,Cats.,1
dog,A dog sat.,1
dog,The dog and cat.,1
"""


def test_label_0_is_a_negative_of_that_concept_and_of_no_other(load):
    dataset = load(LABELLED)
    assert dataset.labels.sum(1).tolist() == [2, 2, 2]
    weights = contrast_concepts(dataset, negatives_per_positive=2).weights()
    # "nice" has its own negatives, though one mentions it; the others have one another's and nice's positives.
    np.testing.assert_allclose(weights[0], [1, 1, 2, 2, 0, 0, 0, 0])
    np.testing.assert_allclose(weights[1], [4 / 3, 4 / 3, 0, 0, 1, 1, 4 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(weights[2], [1, 1, 0, 0, 1, 1, 1, 1])
    assert contrast_concepts(dataset, negatives_per_positive=2).num_negatives.tolist() == [2, 3, 4]


@pytest.mark.models  # compiles for long: a case of four each time
@pytest.mark.parametrize(("sampled", "exclude_mentions"), [(False, True), (False, False), (True, True)])
def test_expertise_with_labels_is_scikit_learns(load, sampled, exclude_mentions):
    generator = np.random.default_rng(0)
    rows = [(c, f"{c} number {i}.", int(i % 3 == 0)) for c in ("calm", "angry") for i in range(30)]
    rows += [("cat", f"cat {i}.", 1) for i in range(12)]
    dataset = load("concept,sentence,label\n" + "".join(f"{c},{s},{label}\n" for c, s, label in rows))
    values = generator.integers(0, 8, (len(rows), 5)).astype(np.float32)
    units = pd.DataFrame({"layer": 0, "site": "mlp.up", "channel": range(5), "hf_module": "up", "hf_channel": range(5)})
    options = {"sampled": sampled, "exclude_mentions": exclude_mentions, "negatives_per_positive": 1.5}
    responses = el.Responses.of(values=values, units=units, model="made", sentences=dataset.sentences)
    expertise = el.measure_expertise(responses, dataset, **options)
    weights = contrast_concepts(dataset, **options).weights()
    listed = {(concept, sentence): label for concept, sentence, label in rows}
    for row, concept in enumerate(dataset.concepts):
        label = np.array([listed.get((concept, sentence), -1) for sentence in dataset.sentences])
        if concept != "cat":
            assert set(np.flatnonzero(weights[row])) <= set(np.flatnonzero(label >= 0))
            if not sampled:
                assert (weights[row] > 0).tolist() == (label >= 0).tolist()
        for unit in range(5):
            expected = average_precision_score(label == 1, values[:, unit], sample_weight=weights[row])
            found = float(expertise.average_precision[row, unit])
            assert found == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("yes", "no"), [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("yes", "NO"), ("positive", "neg"), ("+", "-")]
)
def test_spellings_of_labels(load, yes, no):
    dataset = load(f"label,concept,sentence\n{yes},cat,Cats.\n{no},cat,Dogs.\n")
    assert dataset.labels.tolist() == [[True, False]] and dataset.own_negatives.tolist() == [[False, True]]


def test_labels_in_json(load):
    lines = [
        {"concept": "cat", "sentence": f"Cat {i}.", "label": label} for i, label in enumerate((True, 0, 1.0, "no"))
    ]
    dataset = load("".join(json.dumps(line) + "\n" for line in lines), "a.jsonl")
    assert dataset.labels.tolist() == [[True, False, True, False]]


def test_labels_of_1_only_leave_the_others_as_negatives(load):
    dataset = load("concept,sentence,label\ncat,Cats.,1\ndog,Dogs.,1\n")
    assert dataset.own_negatives is None and dataset.negative_pool.all()


def test_with_labels_a_sentence_may_stand_for_several_concepts(load):
    dataset = load("concept,sentence,label\ncat,Cat and dog.,1\ndog,Cat and dog.,1\ncat,A dog.,0\ndog,A dog.,1\n")
    assert dataset.sentences == ("Cat and dog.", "A dog.")
    assert dataset.labels.tolist() == [[True, False], [True, True]]
    assert dataset.own_negatives.tolist() == [[False, True], [False, False]]


def test_own_negatives_go_with_their_concept(load):
    dataset = load(LABELLED)
    nice = dataset.subset(["nice"])
    assert nice.sentences == dataset.sentences[:4] and nice.own_negatives.tolist() == [[False, False, True, True]]
    assert dataset.subset(["dog", "cat"]).own_negatives is None
    assert dataset.subset(["dog", "cat"]).sentences == (*dataset.sentences[4:],)
    fewer = draw_sentences(dataset, 1)
    assert fewer.own_negatives.sum() == 2 and fewer.labels.sum(1).tolist() == [1, 1, 1]
    masked = mask_words(dataset, "_")
    assert masked.sentences[3] == "Not _." and masked.own_negatives.sum() == 2


def test_negatives_of_a_file_are_those_of_concepts_without_their_own(load, tmp_path):
    (tmp_path / "n.txt").write_text("Rain.\nSnow.\n")
    dataset = load(LABELLED, negatives=tmp_path / "n.txt")
    weights = contrast_concepts(dataset).weights() > 0
    assert weights[0].tolist() == [True] * 4 + [False] * 6
    assert weights[1].tolist() == [False] * 4 + [True] * 2 + [False] * 2 + [True] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concept,sentence,label\ncat,Cats.,1\ncat,Dogs.,2\n", "mine.csv:3: the label is '2'; write 1 .* 0 "),
        ("concept,sentence,label\ncat,Cats.,1\ncat,Dogs.,\n", "mine.csv:3: the label is ''; write 1"),
        (
            "concept,sentence,label\ncat,Cats.,1\ncat,Cats.,0\n",
            "mine.csv:3: .* positive of 'cat' here or at .*mine.csv:2",
        ),
        ("concept,sentence,label\ncat,Dogs.,0\n", "mine.csv:2: concept 'cat', which starts here, has 0 sentences"),
        ("concept,sentence,language\ncat,Cats.,xx\n", "mine.csv:2: no language 'xx'; give an ISO 639 code"),
        (
            "concept,sentence,word\ncat,Cats.,cat\ncat,A cat.,tom\n",
            "mine.csv:3: concept 'cat' is in word 'tom' here and in 'cat' at .*mine.csv:2; give it one word",
        ),
        ("concept|sentence\ncat|A cat.\n", r"mine.csv:1: missing column.*separated by vertical bars: save it with "),
        ('concept,sentence\ncat,"A \\"cat\\"."\n', "mine.csv:2: not a .csv row: .*has its own quotes doubled"),
        (
            b"concept,sentence\ncat,The cat\x92s caf\xc3\xa9.\n",  # UTF-8 but for one byte
            r"mine.csv:2: byte 0x92 .* not UTF-8 .*1252.*\u2019.*'CSV UTF-8'",
        ),
        ("concept,sentence\ncat,A cat.\n".encode("utf-16-le"), "mine.csv:1: the file holds zero bytes, as UTF-16"),
        ("concept,sentence\ncat,A cat.\n".encode("utf-32"), "mine.csv: the file is UTF-32"),
    ],
)
def test_what_is_refused_says_where_and_what_to_do(load, text, message):
    with pytest.raises(ConceptDataError, match=message):
        load(text)


def test_all_problems_of_a_file_are_told_at_once(load):
    text = "concept,sentence,domain\ncat,A cat.,pet\ncat,,pet\n,Oh.,\ncat,A cat.,pet\n"
    text += "dog,Dogs.,pet,more\ncat,Cats.,food\nowl,Owl.,\n"
    with pytest.raises(ConceptDataError) as caught:
        load(text, minimum_sentences=2)
    lines = str(caught.value).split("\n")
    assert lines[0].endswith("mine.csv: 5 problems:")
    for line, said in [
        *((6, "4 fields"), (3, "the sentence is empty"), (4, "the concept is empty")),
        *((7, "is in domain 'food' here"), (8, "concept 'owl'")),
    ]:
        assert sum(f"mine.csv:{line}: " in each and said in each for each in lines[1:]) == 1, (line, said)
    many = "concept,sentence\n" + "cat,\n" * 30
    with pytest.raises(ConceptDataError, match=r"31 problems:\n(.*\n){20}  \.\.\. and 11 more$"):
        load(many, minimum_sentences=99)


def test_columns_that_are_not_read_are_told_once_and_can_be_silenced(load):
    text = "Concept, Sentence ,origin,Unnamed: 0,split\ncat,Cats.,web,0,train\n"
    with pytest.warns(
        ExpertLensWarning, match=r"'origin', 'split'; read are concept, sentence\..*ignore_columns"
    ) as caught:
        load(text)
    assert len(caught) == 1
    load(text, ignore_columns=("Origin", "split"))
    jsonl = '{"Concept": "cat", "sentence": "Cats.", "note": 1, "id": 7}\n'
    with pytest.warns(ExpertLensWarning, match="aren't read: 'note'"):
        load(jsonl, "a.jsonl")


def test_row_numbers_are_no_column_to_tell_of(load):
    assert load(lambda path: TABLE.to_csv(path)).sentences == tuple(TABLE.sentence)
    load("id,index,concept,sentence,source\n1,1,cat,Cats.,answer 1\n")


def test_an_ignored_label_is_not_used(load):
    text = "concept,sentence,label\ncat,Cats.,3\n"
    assert load(text, ignore_columns=["label"]).labels.all()


def test_rows_without_content_are_passed_over(load):
    assert load("concept,sentence,,\ncat,Cats.,,\n,,,\n,,,\n").sentences == ("Cats.",)


@pytest.mark.parametrize("name", ["nan", "NaN", "null", "NA", "None", "N/A", "inf", "1", "1.0", "true"])
def test_names_that_look_like_nothing_or_numbers_stay_text(load, name):
    dataset = load(f"concept,sentence\n{name},About {name} here.\n")
    assert dataset.concepts == (name,)


@pytest.mark.parametrize(
    ("first", "second"),
    [("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("ice cream", "ice-cream"), ("ice_cream", "Ice cream")],
)
def test_names_that_differ_in_spelling_only_are_told(load, first, second):
    text = f"concept,sentence\n{first},A {first}.\n{second},The {second}.\n"
    with pytest.warns(ExpertLensWarning, match="concepts of 'mine' whose names differ only in") as caught:
        dataset = load(text)
    assert len(caught) == 1 and ascii(first) in str(caught[0].message) and ascii(second) in str(caught[0].message)
    assert dataset.concepts == (first, second)


def test_words_forms_and_languages_come_with_the_file(load):
    text = (
        "concept,sentence,word,forms,language\n"
        "bat (animal),Two bats.,bat,flying fox|Fledermaus,\n"
        "bat (animal),Die Fledermaus.,,,\n"
        "Katze,Zwei Katzen.,,,de\n"
    )
    dataset = load(text)
    assert dataset.words == ("bat", "Katze") and dataset.languages == ("en", "de")
    assert dataset.forms == (("flying fox", "Fledermaus"), ())
    assert dataset.mentions().tolist() == [[True, True, False], [False, False, True]]
    assert dataset.subset("Katze").mentions().all()


def test_language_and_forms_can_be_arguments(load):
    text = "concept,sentence\nKatze,Zwei Katzen.\nKatze,Ein Stubentiger.\n"
    dataset = load(text, language="de", forms={"Katze": ["Stubentiger"]})
    assert dataset.mentions().all()
    with pytest.warns(ExpertLensWarning, match=r"2 of 2 sentences lack .*in the language en; language= names another"):
        load(text)
    with pytest.raises(
        ConceptDataError, match=r"forms were given of 'Katzen', which is no concept here; there is Katze"
    ):
        load(text, language="de", forms={"Katzen": ["Kater"]})
    with pytest.raises(ConceptDataError, match=r"no language 'xx'"):
        load(text, language="xx")


def test_a_dataset_that_contradicts_itself_is_refused():
    with pytest.raises(ConceptDataError, match="a sentence is a positive and a negative of concept 'cat': 'Cats.'"):
        el.ConceptDataset(
            "made", ("Cats.",), ("cat",), ("",), np.ones((1, 1), bool), np.ones(1, bool), np.ones((1, 1), bool)
        )
    with pytest.raises(ConceptDataError, match=r"own_negatives must be bool \[1, 1\]"):
        el.ConceptDataset(
            "made", ("Cats.",), ("cat",), ("",), np.ones((1, 1), bool), np.ones(1, bool), np.ones((2, 1), bool)
        )
    with pytest.raises(ConceptDataError, match="1 concept needs as many languages, not 2"):
        el.ConceptDataset(
            "made", ("A.",), ("a",), ("",), np.ones((1, 1), bool), np.ones(1, bool), languages=("en", "de")
        )


def test_a_file_named_like_a_packaged_set_or_known_ratings_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "facts").write_text("concept\tsentence\ncat\tA cat.\n")
    (tmp_path / "wordsim353").write_text("cat\tdog\t1\ncat\tcow\t2\ncow\tdog\t3\n")
    with pytest.warns(ExpertLensWarning, match=r"'facts' is the sentence set that ships .* Write '\./facts' for the"):
        assert len(el.load_concepts("facts").concepts) == 176
    with pytest.warns(
        ExpertLensWarning, match=r"'wordsim353' is a data set of ratings .* '\./wordsim353' for the file"
    ):
        assert len(el.load_ratings("wordsim353").scores) > 300
    assert el.load_ratings("./wordsim353").scores.tolist() == [1, 2, 3]
