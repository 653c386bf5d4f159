"""Concepts come from whatever people keep them in: the same content gives the same dataset, and nothing is lost."""

import csv
import io
import json
import sys
import tracemalloc

import datasets
import numpy as np
import openpyxl
import pandas as pd
import pytest

import expertlens_jax as el
from expertlens_jax.data import tables
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.errors import BudgetError, ConceptDataError, ExpertLensWarning

# A sentence of two concepts, own negatives, a negative of all, a concept without a word, other forms, two languages.
COLUMNS = ("sentence", "concept", "label", "domain", "word", "forms", "language")
ROWS = [
    ("Die Katze schläft, „tief“.", "Katze", "1", "Tier", "", "", "de"),
    ("Zwei Katzen; ein Hund.", "Katze", "1", "Tier", "", "", "de"),
    ("Zwei Katzen; ein Hund.", "Hund", "1", "Tier", "", "Rüde|Welpe", "de"),
    ('Der "Rüde" bellt.', "Hund", "1", "Tier", "", "", ""),
    ("How kind of you!", "polite", "1", "", "-", "", ""),
    ("Thanks, my dear.", "polite", "1", "", "-", "", ""),
    ("Go away.", "polite", "0", "", "-", "", ""),
    ("Es regnet.", "*", "0", "", "", "", ""),
]
FRAME = pd.DataFrame(ROWS, columns=list(COLUMNS))


def delimited(delimiter, encoding="utf-8", quoting=csv.QUOTE_MINIMAL):
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=quoting).writerows([COLUMNS, *ROWS])
    return out.getvalue().encode(encoding)


def records():
    return [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]


def in_memory(write):
    out = io.BytesIO()
    write(out)
    return out.getvalue()


FILES = {
    "commas.csv": lambda: delimited(","),
    "semicolons.csv": lambda: delimited(";"),
    "tabs.csv": lambda: delimited("\t", quoting=csv.QUOTE_ALL),
    "commas.tsv": lambda: delimited(","),
    "tabs.tsv": lambda: delimited("\t", quoting=csv.QUOTE_ALL),
    "mark.csv": lambda: delimited(",", "utf-8-sig"),
    "utf-16.csv": lambda: delimited("\t", "utf-16", csv.QUOTE_ALL),  # Excel's "Unicode text"
    "windows.csv": lambda: delimited(";", "cp1252"),
    "lines.jsonl": lambda: "".join(json.dumps(record) + "\n" for record in records()).encode(),
    "records.json": lambda: json.dumps(records(), ensure_ascii=False).encode(),
    "columns.json": lambda: json.dumps(FRAME.to_dict("list")).encode(),
    "table.parquet": lambda: in_memory(lambda out: FRAME.to_parquet(out)),
    "book.xlsx": lambda: in_memory(lambda out: FRAME.to_excel(out, index=False)),
}
TOLD = {"semicolons.csv", "tabs.csv", "commas.tsv", "utf-16.csv", "windows.csv"}
OBJECTS = {
    "data frame": lambda: FRAME,
    "categories": lambda: FRAME.astype({"concept": "category"}),
    "arrow": lambda: datasets.Dataset.from_pandas(FRAME).data.table,
    "columns": lambda: FRAME.to_dict("list"),
    "dataset": lambda: datasets.Dataset.from_pandas(FRAME),
    "stream": lambda: datasets.Dataset.from_pandas(FRAME).to_iterable_dataset(),
}


@pytest.fixture
def load(tmp_path):
    def load(content, name="mine.csv", **options):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return el.load_concepts(path, **{"minimum_sentences": 1, **options})

    return load


@pytest.fixture(scope="module")
def expected():
    labels = np.zeros((3, 7), bool)
    for row, column in ((0, 0), (0, 1), (1, 1), (1, 2), (2, 3), (2, 4)):
        labels[row, column] = True
    own = np.zeros((3, 7), bool)
    own[2, 5] = True
    return el.ConceptDataset(
        name="mine",
        sentences=tuple(dict.fromkeys(row[0] for row in ROWS)),
        concepts=("Katze", "Hund", "polite"),
        domains=("Tier", "Tier", ""),
        labels=labels,
        negative_pool=np.arange(7) == 6,
        own_negatives=own,
        words=("Katze", "Hund", ""),
        languages=("de", "de", "en"),
        forms=((), ("Rüde", "Welpe"), ()),
    )


@pytest.mark.parametrize("name", [*FILES, *OBJECTS])
def test_the_same_content_gives_the_same_dataset_whatever_it_is_in(load, expected, name):
    if name in OBJECTS:
        found = el.load_concepts(OBJECTS[name](), minimum_sentences=1)
    elif name in TOLD:
        with pytest.warns(ExpertLensWarning, match=f"{name}: (its fields are between|the file is)"):
            found = load(FILES[name](), name)
    else:
        found = load(FILES[name](), name)
    assert found.equals(expected)
    assert not found.equals(expected.subset(["Katze", "Hund"]))


def test_what_is_not_as_its_name_says_is_told_with_an_example(load):
    with pytest.warns(ExpertLensWarning) as caught:
        load(delimited(";", "cp1252"), "old.csv")
    said = [str(each.message) for each in caught]
    assert len(said) == 2
    assert (
        "old.csv: the file isn't UTF-8 (line 2, byte 0xe4) and was read as Windows-1252, so that line 2 is" in said[0]
    )
    assert "'Die Katze schläft, „tief“.;Katze" in said[0] and "encoding=" in said[0]
    assert said[1].endswith(
        "old.csv: its fields are between semicolons, though .csv files have commas; they were read so"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # Damaged UTF-8 isn't Windows-1252, in which its letters would read as several.
        ("concept,sentence\nc,Der Käse.\nc,Eine Kuh.\n".encode() + b"c,\xe4\n", "mine.csv:4: byte 0xe4 .* not UTF-8"),
        ("concept,sentence\nc,Привет, как дела?\n".encode("cp1251"), "mine.csv:2: byte 0xcf .* not UTF-8"),
        ("concept,sentence\nc,猫が寝る。\n".encode("shift_jis"), "mine.csv:2: byte 0x94 .* not UTF-8"),
        ("concept,sentence\nc,é\n".encode("utf-16-le"), "mine.csv:.* zero bytes|mine.csv:.* not UTF-8"),
        (b"\xef\xbb\xbfconcept,sentence\nc,\xe4\n", "mine.csv:2: byte 0xe4 .* not UTF-8"),
        (b"concept,sentence\nc,\x81\n", "mine.csv:2: byte 0x81 .* not UTF-8"),
        ("concept,sentence\nc,A cat.\n".encode("utf-16")[:-1], "mine.csv: byte .* is not utf-16"),
    ],
)
def test_bytes_that_are_no_text_are_refused(load, data, message):
    with pytest.raises(ConceptDataError, match=message):
        load(data)


def test_the_user_can_say_the_encoding(load):
    text = 'concept,sentence,language\nкот,"Привет, кот.",ru\n'
    assert load(text.encode("cp1251"), encoding="cp1251").sentences == ("Привет, кот.",)
    with pytest.raises(ConceptDataError, match="no encoding 'latin-99'; Python knows utf-8"):
        load(text, encoding="latin-99")
    with pytest.raises(ConceptDataError, match=r"mine.csv: byte 0xd0 \(byte 27 of the file\) is not ascii.*encoding="):
        load(text, encoding="ascii")


def test_exact_repetitions_are_merged_and_counted(load, tmp_path):
    text = (
        "concept,sentence\ncat,Cats.\ncat,A cat.\ncat, Cats.\ncat,Cats.\ndog,Dogs.\ndog,Dogs.\ndog,A dog.\ndog,Dogs.\n"
    )
    with pytest.warns(
        ExpertLensWarning,
        match=r"^4 of 8 rows repeat a sentence of the same concept, and count once: "
        r".*mine.csv:4 \(as at .*mine.csv:2\); .*mine.csv:5 \(as at .*:2\); .*mine.csv:7 \(as at .*:6\) \.\.\.$",
    ) as caught:
        dataset = load(text)
    assert len(caught) == 1
    assert dataset.sentences == ("Cats.", "A cat.", "Dogs.", "A dog.") and dataset.labels.sum(1).tolist() == [2, 2]
    with pytest.raises(ConceptDataError, match="concept 'dog', which starts here, has 2 sentences, but at least 3"):
        load(text + "cat,My cat.\n", minimum_sentences=3)
    (tmp_path / "n.txt").write_text("Oh.\n\nOh.\n")
    with pytest.warns(ExpertLensWarning, match=r"1 of 3 rows repeat .*n.txt:3 \(as at .*n.txt:1\)"):
        dataset = load("concept,sentence\ncat,Cats.\n", negatives=tmp_path / "n.txt")
    assert dataset.negative_pool.tolist() == [False, True]


def test_a_sentence_serves_every_concept_that_names_it(load):
    dataset = load("concept,sentence\ncat,Cat and dog.\ncat,Cats.\ndog,Cat and dog.\ndog,A dog.\n")
    assert dataset.labels.tolist() == [[True, True, False], [True, False, True]]
    weights = contrast_concepts(dataset, exclude_mentions=False).weights() > 0
    assert weights.all()  # as a positive of both, it is a negative of none
    assert contrast_concepts(dataset, exclude_mentions=False).num_negatives.tolist() == [1, 1]


def test_columns_go_by_the_names_that_the_user_gives(load):
    text = "text,topic,gold,group,stem,sentence\nCats run.,cats,yes,pet,cat,x\nDogs run.,cats,no,pet,,x\n"
    named = {"sentence": "Text", "concept": "topic", "label": "gold", "domain": "group", "word": "stem"}
    with pytest.warns(ExpertLensWarning, match="columns that aren't read: 'sentence'; read are text, topic, gold"):
        dataset = load(text, **named)
    assert dataset.words == ("cat",) and dataset.domains == ("pet",) and dataset.labels.tolist() == [[True, False]]
    line = {"text": "Cats run.", "topic": "cats", "gold": 1}
    assert load(json.dumps(line), "a.jsonl", sentence="text", concept="topic", label="gold", word=None).labels.all()
    frame = pd.read_csv(io.StringIO(text)).rename(columns={"sentence": "id"})
    assert el.load_concepts(frame, minimum_sentences=1, **named).equals(dataset)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sentence": "text"}, r"mine.csv:1: missing column 'text' \(asked for by sentence=\); the columns found are"),
        ({"domain": "group"}, r"mine.csv:1: missing column 'group' \(asked for by domain=\)"),
        ({"concept": 3}, "concept= must be a column's name, not 3"),
        ({"concept": ["a", 3]}, r"concept= must be a column's name, not \['a', 3\]"),
        ({"concept": ["a"], "label": "b"}, "several columns of concepts hold the labels"),
        ({"sheet": "One"}, r"sheet='One' is for a workbook \(.xlsx\), and there is none"),
        ({"split": "train"}, "split='train' is for a dataset of the Hugging Face hub"),
        ({"words": "cat"}, "words='cat' would be every concept's word; give the word of each, as {'cat': 'cat'}"),
        ({"words": {"cats": "cat"}}, "words were given of 'cats', which is no concept here; there is cat"),
        ({"words": {"cat": ""}, "forms": {"cat": ["tom"]}}, "concept 'cat' has no word, and so no other forms .* tom"),
        (
            {"word": "concept"},
            r"the column 'concept' can't be two things at once; .* \['concept', 'sentence', 'concept'",
        ),
        ({"words": {"cat": "tom"}, "word": "sentence"}, "the column 'sentence' can't be two things at once"),
    ],
)
def test_settings_that_do_not_fit_are_refused(load, options, message):
    with pytest.raises(ConceptDataError, match=message):
        load("concept,sentence\ncat,Cats.\n", **options)


def test_settings_without_use_are_refused():
    for setting in ({"quoted": True}, {"encoding": "utf-8"}):
        with pytest.raises(ConceptDataError, match=f"{next(iter(setting))}=.* is for a .*; leave it"):
            el.load_concepts({"cat": ["Cats."]}, minimum_sentences=1, **setting)
    with pytest.raises(ConceptDataError, match="missing column 'text'"):
        el.load_concepts({"cat": ["Cats."]}, minimum_sentences=1, sentence="text")
    with pytest.raises(ConceptDataError, match="there is nothing to load"):
        el.load_concepts()
    with pytest.raises(ConceptDataError, match="can't read concepts from int; give a file, a data frame"):
        el.load_concepts(3)


def test_several_columns_are_several_concepts(load):
    text = "id,comment,toxic,insult\n7,You fool!,1,1\n8,Nice day.,0,0\n9,I hate it.,1,0\n"
    dataset = load(text, sentence="comment", concept=["toxic", "insult"], words="")
    assert dataset.concepts == ("toxic", "insult") and dataset.wordless == dataset.concepts
    assert dataset.labels.tolist() == [[True, False, True], [True, False, False]]
    assert dataset.own_negatives.tolist() == [[False, True, False], [False, True, True]]
    with pytest.raises(ConceptDataError, match=r"mine.csv:4: the label is '-1'; write 1 for a positive"):
        load(text.replace("I hate it.,1,0", "I hate it.,1,-1"), sentence="comment", concept=["toxic", "insult"])


def test_dictionaries_and_lists_are_concepts(load):
    lists = {"cat": ["A cat.", "Cats."], "dog": ["Dogs.", "Cats."]}
    with pytest.warns(
        ExpertLensWarning, match=r"lack their concept's word .*the dictionary\['cat'\], sentence 1 \('dog'\)"
    ):
        dataset = el.load_concepts(lists, minimum_sentences=2)
    assert dataset.labels.tolist() == [[True, True, False], [False, True, True]] and dataset.name == "concepts"
    with pytest.warns(ExpertLensWarning, match=r"giraffes.json\['cat'\], sentence 1 \('dog'\)"):
        assert load(json.dumps(lists), "giraffes.json").equals(dataset)  # as ml-act keeps its subsets
    sides = {"cat": {"positive": ["Cats."], "negative": ["Rain."]}, "dog": ["Dogs."]}
    dataset = el.load_concepts(sides, minimum_sentences=1, name="pets")
    assert dataset.name == "pets" and dataset.own_negatives.tolist() == [[False, True, False], [False] * 3]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"cat": "A cat."}, r"the dictionary\['cat'\]: wanted a list of sentences, not str 'A cat.'"),
        ({"cat": {"A cat."}}, r"the dictionary\['cat'\]: a set has no order"),
        ({"cat": ["A cat.", 3]}, r"the dictionary\['cat'\], sentence 1: must be text, not 3"),
        ({"cat": ["A cat.", " "]}, r"the dictionary\['cat'\], sentence 1: the sentence is empty"),
        ({"cat": {"positives": ["A cat."], "maybe": ["Rain."]}}, "'cat' must be 'positive' or 'negative', not 'maybe'"),
        ({3: ["A cat."]}, "a concept's name must be text, not 3"),
        ({}, "there is nothing in it; give a list of objects"),
        ({"cat": []}, "there are no sentences"),
        (
            {"concept": ["cat"], "sentence": []},
            "columns must be lists of one length; they are: 'concept' 1, 'sentence' 0",
        ),
        (pd.DataFrame({"concept": ["cat"], "text": ["Cats."]}), "the data frame: missing column 'sentence'"),
        (
            pd.DataFrame({"concept": ["cat"] * 2, "sentence": ["Cats.", None]}),
            "the data frame, row 1: the sentence is empty",
        ),
        (pd.DataFrame({"concept": ["cat", 7], "sentence": ["Cats.", "A 7."]}), "row 1: 'concept' must be text, not 7"),
        (
            datasets.DatasetDict(test=datasets.Dataset.from_dict({"a": [1]})),
            r"the splits test; give one, as dataset\['te",
        ),
    ],
)
def test_objects_that_are_no_concepts_are_refused(source, message):
    with pytest.raises(ConceptDataError, match=message):
        el.load_concepts(source, minimum_sentences=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"cat": ["A cat."],\n "dog": [}', "mine.json:2: broken JSON: Expecting value at column 10"),
        ('{"concept": "a"}\n{"concept": "b"}', "mine.json:2: broken JSON: Extra data .*object a line is called .jsonl"),
        ('{"cat": ["A cat."], "cat": ["Cats."]}', "mine.json: 'cat' is there twice; put its sentences together"),
        ('["A cat.", "Cats."]', "mine.json: wanted a list of objects with columns, .* not list"),
        (
            '[{"concept": "cat", "sentence": "Cats."}, {"concept": "cat"}]',
            "mine.json, record 1: missing column 'sentence'",
        ),
        ('{"concept": 1, "sentences": {"positive": ["A."]}}', "mine.json: 'concept' must be text, not 1"),
    ],
)
def test_json_that_is_no_concepts_is_refused(load, text, message):
    with pytest.raises(ConceptDataError, match=message):
        load(text, "mine.json")


FOOTBALL = {
    "concept": "football-1_04_00__",
    "group": "sense",
    "source": "onesec",
    "sentences": {"positive": [" Football is a game .", "A football ."], "negative": ["Swedenborg argued ."]},
}


def test_files_and_folders_of_ml_selfcond_are_read(load, tmp_path):
    dataset = load(json.dumps(FOOTBALL), "football-1_04_00__.json")
    assert dataset.concepts == ("football-1_04_00__",) and dataset.words == ("football",)
    assert dataset.domains == ("sense",) and dataset.sentences[0] == "Football is a game ."
    assert dataset.labels.tolist() == [[True, True, False]] and dataset.own_negatives.tolist() == [[False, False, True]]
    folder = tmp_path / "football"
    for name in ("football-1_04_00__", "ice_cream-1_13_00__", "left_out"):
        (folder / "sense").mkdir(parents=True, exist_ok=True)
        content = FOOTBALL | {"concept": name}
        (folder / "sense" / f"{name}.json").write_text(json.dumps(content))
    whole = el.load_concepts(folder, minimum_sentences=1)
    assert whole.concepts == ("football-1_04_00__", "ice_cream-1_13_00__", "left_out") and whole.name == "football"
    assert whole.words == ("football", "ice cream", "left_out") and len(whole.sentences) == 3
    (folder / "concept_list.csv").write_text("group,concept\nsense,ice_cream-1_13_00__\nsense,football-1_04_00__\n")
    with pytest.warns(ExpertLensWarning, match=r"concept_list.csv doesn't list sense/left_out.json: not read"):
        listed = el.load_concepts(folder, minimum_sentences=1)
    assert listed.concepts == ("ice_cream-1_13_00__", "football-1_04_00__")
    (folder / "concept_list.csv").write_text("group,concept\nsense,gone\n")
    with pytest.raises(ConceptDataError, match=r"concept_list.csv: no file sense/gone.json, which it lists"):
        el.load_concepts(folder)
    (folder / "concept_list.csv").write_text("concept\ngone\n")
    with pytest.raises(ConceptDataError, match=r"concept_list.csv: wanted the columns group and concept"):
        el.load_concepts(folder)


def axbench(rows):
    """A table with AxBench's columns and the values that its data sets have in them."""
    names = ("input", "output", "output_concept", "concept_genre", "category", "dataset_category", "concept_id")
    return pd.DataFrame(
        [(f"Question {i}?", *row[:4], "instruction", row[4]) for i, row in enumerate(rows)], columns=names
    )


def test_axbench_is_read_as_it_trains(load):
    training = axbench(
        [
            ("Plain text.", "EEEEE", "text", "negative", -1),
            ("plain = code", "EEEEE", "code", "negative", -1),
            ("In 1999 it was.", "references to dates", "text", "positive", 0),
            ("May 3rd.", "references to dates", "text", "positive", 0),
            ("class A: pass", "programming constructs", "code", "positive", 1),
        ]
    )
    dataset = load(in_memory(lambda out: training.to_parquet(out)), "data.parquet")
    assert dataset.concepts == ("references to dates", "programming constructs") == dataset.wordless
    assert dataset.domains == ("text", "code")
    of = dict(zip(dataset.sentences, range(5), strict=True))
    positives = [[of["In 1999 it was."], of["May 3rd."]], [of["class A: pass"]]]
    assert [np.flatnonzero(row).tolist() for row in dataset.labels] == positives
    # A concept is told apart from the answers of its genre without a concept.
    negatives = [[of["Plain text."]], [of["plain = code"]]]
    assert [np.flatnonzero(row).tolist() for row in dataset.own_negatives] == negatives
    questions = el.load_concepts(training, sentence="input", minimum_sentences=1)
    assert questions.sentences[0] == "Question 2?" and questions.concepts == dataset.concepts


def test_axbench_is_read_as_it_evaluates():
    evaluation = axbench(
        [
            ("In 1999 it was.", "references to dates", "text", "positive", 0),
            ("Nothing here.", "references to dates", "text", "negative", 0),
            ("A date with Ann.", "date//a romantic appointment", "text", "hard negative", 0),
            ("class A: pass", "programming constructs", "code", "positive", 1),
        ]
    )
    dataset = el.load_concepts(evaluation.assign(sae_link="https://example.org", sae_id=3), minimum_sentences=1)
    assert dataset.concepts == ("references to dates", "programming constructs")
    assert dataset.own_negatives.tolist() == [[False, True, True, False], [False] * 4]
    with pytest.raises(ConceptDataError, match="the data frame, row 3: the label is 'perhaps'"):
        el.load_concepts(
            evaluation.replace({"category": {3: "perhaps"}}).assign(category=lambda t: [*t.category[:3], "perhaps"])
        )


def test_class_labels_of_a_dataset_are_concepts_by_name():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["sad", "glad"])}
    )
    rows = {"text": ["Oh no.", "Hurray!", "Alas."], "label": [0, 1, 0]}
    for made in (
        datasets.Dataset.from_dict(rows, features),
        datasets.Dataset.from_dict(rows, features).to_iterable_dataset(),
    ):
        dataset = el.load_concepts(made, sentence="text", concept="label", words="", minimum_sentences=1)
        assert dataset.concepts == ("sad", "glad") and dataset.sentences == tuple(rows["text"])
    chosen = datasets.Dataset.from_dict(rows, features).select([2, 1]).with_format("numpy")
    assert el.load_concepts(chosen, sentence="text", concept="label", words="", minimum_sentences=1).sentences == (
        "Alas.",
        "Hurray!",
    )


@pytest.fixture
def hub(monkeypatch):
    """A hub with one dataset of two splits."""
    made = datasets.Dataset.from_dict({"text": ["A cat.", "Two cats."], "topic": ["cat", "cat"]})
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: ["train", "test"])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: made)


def test_a_dataset_on_the_hub_is_read_by_its_id_and_never_hides_a_file(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = {"sentence": "text", "concept": "topic", "minimum_sentences": 1}
    assert el.load_concepts("owner/pets", split="test", **named).sentences == ("A cat.", "Two cats.")
    assert el.load_concepts("hf://datasets/owner/pets.v2", split="test", **named).name == "pets"
    with pytest.raises(ConceptDataError, match="'owner/pets' has the splits train, test; say which, as split='train'"):
        el.load_concepts("owner/pets", **named)
    with pytest.raises(ConceptDataError, match="'owner/pets' has no split 'dev'; it has train, test"):
        el.load_concepts("owner/pets", split="dev", **named)
    (tmp_path / "owner" / "pets").mkdir(parents=True)
    (tmp_path / "owner" / "pets" / "a.json").write_text('{"dog": ["A dog."]}')
    assert el.load_concepts("owner/pets", minimum_sentences=1).concepts == ("dog",)


def test_what_the_hub_does_not_give_is_told(monkeypatch):
    def refuse(name):
        raise ConnectionError("no network\nhere")

    monkeypatch.setattr(datasets, "get_dataset_split_names", refuse)
    with pytest.raises(
        ConceptDataError, match=r"'owner/pets' is no file here, and the Hugging Face hub gave no .* no net"
    ):
        el.load_concepts("owner/pets")


@pytest.mark.parametrize(
    ("package", "load_it", "message"),
    [
        (
            "openpyxl",
            lambda path: path.with_suffix(".xlsx"),
            r"mine.xlsx is a workbook, .*\[xlsx\]'; or save it as .csv",
        ),
        (
            "pyarrow",
            lambda path: path.with_suffix(".parquet"),
            r"mine.parquet is a Parquet .*\[parquet\]'; or save it as",
        ),
        ("datasets", lambda path: "owner/pets", r"'owner/pets' is no file here.*\[datasets\]'; or give a file"),
    ],
)
def test_a_package_that_is_not_there_is_named(tmp_path, monkeypatch, package, load_it, message):
    monkeypatch.setitem(sys.modules, package, None)
    source = load_it(tmp_path / "mine.x")
    if not isinstance(source, str):
        source.write_bytes(b"PK")
    with pytest.raises(ConceptDataError, match=message):
        el.load_concepts(source)


def test_the_hub_package_is_imported_for_the_hub_only():
    assert tables.is_hub_id("owner/name") and not tables.is_hub_id("name") and not tables.is_hub_id("a/b/c")
    assert not tables.is_hub_id("folder/file.txt")


def workbook(sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    return in_memory(book.save)


def test_workbooks_are_read_as_they_look(load):
    rows = [
        [None, None],
        ["Concept", "Sentence", None],
        [7, "Seven, 7."],
        [7.0, "7 up."],
        ["", None],
        [True, "TRUE story."],
    ]
    book = workbook({"Empty": [], "Mine": [*rows, [None, None], [None, ""]], "Notes": [["later"]]})
    with pytest.warns(
        ExpertLensWarning, match=r"mine.xlsx: sheet 'Mine' was read, and not 'Notes'; sheet= names another"
    ):
        dataset = load(book, "mine.xlsx")
    assert dataset.concepts == ("7", "TRUE") and dataset.sentences == ("Seven, 7.", "7 up.", "TRUE story.")
    assert load(book, "mine.xlsx", sheet="Mine").equals(dataset)
    with pytest.raises(ConceptDataError, match=r"mine.xlsx: no sheet 'Main'; there is 'Empty', 'Mine', 'Notes'"):
        load(book, "mine.xlsx", sheet="Main")
    with pytest.raises(ConceptDataError, match=r"mine.xlsx:1: missing column 'concept'"):
        load(book, "mine.xlsx", sheet="Notes")
    with pytest.raises(ConceptDataError, match="there are no sentences"):
        load(book, "mine.xlsx", sheet="Empty")
    bad = workbook({"Mine": [["concept", "sentence"], ["cat", "Cats."], ["cat", None], [None, "Oh."]]})
    with pytest.raises(
        ConceptDataError, match=r"(?s)2 problems:.*mine.xlsx:3: the sentence .*mine.xlsx:4: the concept "
    ):
        load(bad, "mine.xlsx")


def test_empty_rows_of_a_frame_are_passed_over_and_half_empty_ones_told():
    frame = pd.DataFrame({"concept": ["cat", None, "", None], "sentence": ["Cats.", np.nan, " ", None]})
    assert el.load_concepts(frame, minimum_sentences=1).sentences == ("Cats.",)
    frame["note"] = [None, None, None, "why?"]
    with pytest.raises(ConceptDataError, match="the data frame, row 3: the concept is empty"):
        el.load_concepts(frame, minimum_sentences=1)


def test_positives_and_negatives_are_given_by_concept(tmp_path):
    (tmp_path / "rude.txt").write_text("Get lost.\nGo.\n")
    (tmp_path / "rude.csv").write_text("text,n\nGet lost.,1\nGo.,2\n")
    polite = {"polite": ["Thank you.", "Please sit."], "cat": ["A cat."]}
    for rude in (
        ["Get lost.", "Go."],
        tmp_path / "rude.txt",
        str(tmp_path / "rude.csv"),
        pd.Series(["Get lost.", "Go."]),
    ):
        options = {"sentence": "text"} if str(rude).endswith(".csv") else {}
        dataset = el.load_concepts(
            positives=polite, negatives={"polite": rude}, words={"polite": ""}, minimum_sentences=1, **options
        )
        assert dataset.concepts == ("polite", "cat") and dataset.wordless == ("polite",)
        assert dataset.own_negatives.tolist() == [[False] * 3 + [True] * 2, [False] * 5]
        assert dataset.negative_pool.tolist() == [True] * 3 + [False] * 2
    more = el.load_concepts(
        {"cat": ["Cats."]}, positives=polite, negatives=["Rain."], words={"polite": ""}, minimum_sentences=1
    )
    assert more.labels.sum(1).tolist() == [2, 2] and more.sentences[-1] == "Rain."
    assert more.negative_pool.tolist() == [False] * 4 + [True]
    with pytest.raises(ConceptDataError, match=r"negatives\['dog'\], sentence 0: concept 'dog', .* has 0 sentences"):
        el.load_concepts(positives=polite, negatives={"dog": ["Rain."]}, minimum_sentences=1)
    with pytest.raises(
        ConceptDataError, match=r"negatives\['cat'\], sentence 0: the sentence is a positive of 'cat' here"
    ):
        el.load_concepts(positives=polite, negatives={"cat": ["A cat."]}, minimum_sentences=1)
    with pytest.raises(ConceptDataError, match=r"no file 'A cat.'"):
        el.load_concepts(positives={"cat": "A cat."})


def test_the_star_stands_for_every_concept_and_only_against_them(load):
    with pytest.raises(ConceptDataError, match=r"mine.csv:3: '\*' stands for all concepts, and takes negatives only"):
        load("concept,sentence,label\ncat,Cats.,1\n*,Rain.,1\n")
    assert load("concept,sentence\n*,A * here.\n", words="").concepts == ("*",)  # without labels, a name like any other


def test_numbers_of_sentences_must_be_theirs(load):
    text = "concept,sentence,sentence_number\ncat,Cats.,1\ndog,Dogs.,0\n"
    assert load(text).sentences == ("Dogs.", "Cats.")
    with pytest.raises(ConceptDataError, match=r"mine.csv:3: the sentence's number is 'x', which isn't one; mend the"):
        load(text.replace("0", "x"))
    with pytest.raises(ConceptDataError, match=r"mine.csv:3: the number 1 is another sentence's too; .*ignore_columns"):
        load(text.replace("0", "1"))
    assert load(text.replace("0", "1"), ignore_columns=["sentence_number"]).sentences == ("Cats.", "Dogs.")


def test_problems_come_from_all_parts_at_once(load, tmp_path):
    (tmp_path / "n.txt").write_text("A cat.\n")
    with pytest.raises(ConceptDataError) as caught:
        load(
            "concept,sentence\ncat,A cat.\ncat,\ncat,x,y\n",
            negatives=tmp_path / "n.txt",
            positives={"dog": ["Dogs.", ""]},
        )
    lines = str(caught.value).split("\n")
    assert lines[0].endswith("mine.csv: 4 problems:")
    for line, said in zip(
        lines[1:],
        (
            "mine.csv:4: 3 fields",
            "mine.csv:3: the sentence is empty",
            "positives['dog'], sentence 1: the",
            "n.txt:1: dupl",
        ),
        strict=True,
    ):
        assert said in line


def test_labels_that_no_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr("expertlens_jax.data.concepts._MOST_LABELS", 1e-12)
    with pytest.raises(
        BudgetError, match=r"1 concept and 1 sentence have 0.0 GB of labels, and this machine has .* GB"
    ):
        el.load_concepts({"cat": ["Cats."]}, minimum_sentences=1)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_long_file_takes_little_more_memory_than_its_text(tmp_path, suffix):
    sentences = [f"Sentence number {i} of this set is about as long as they are." for i in range(2_000)]
    made = el.load_concepts({"a": sentences[::2], "b": sentences[1::2]}, words="")
    made.save(tmp_path / f"long.{suffix}")
    held = sum(map(sys.getsizeof, sentences))
    el.load_concepts({"a": ["x"]}, words="", minimum_sentences=1)  # what is imported once
    tracemalloc.start()
    try:
        found = el.load_concepts(tmp_path / f"long.{suffix}", words="")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.equals(made)
    assert peak < 3.5 * held  # a dictionary a row alone would be 5 times
