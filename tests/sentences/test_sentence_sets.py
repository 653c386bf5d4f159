"""`el.sentences`: sets of one's own concepts, mined from text or written by a model, that `el.load_concepts` reads."""

import lzma

import pytest

import expertlens_jax as el
from expertlens_jax.errors import ConceptDataError, CorpusError, ExpertLensWarning, SelectionError

CATS = [f"A cat number {i} sleeps on the warm stove." for i in range(6)]
DOGS = [f"The old dog number {i} barked at the door." for i in range(6)]


def answer(lines):
    return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, start=1))


def test_sentences_are_mined_from_a_file_or_several_or_lines(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt.xz"
    one.write_text("\n".join(CATS))
    two.write_bytes(lzma.compress("\n".join(DOGS).encode()))
    for text in ([one, two], [*CATS, *DOGS]):
        found = el.sentences.mine(text, ["cat", "dog"], per_concept=6)
        assert found.counts.to_dict() == {"cat": 6, "dog": 6}
        assert set(found.table["sentence"]) == {*CATS, *DOGS}
    files = el.sentences.mine([one, two], ["cat", "dog"], per_concept=6).table.set_index("sentence")["source"]
    assert files[CATS[2]] == "one.txt:3" and files[DOGS[0]] == "two.txt.xz:1"
    with pytest.warns(ExpertLensWarning, match=r"1 of 2 concepts have fewer than 6 sentences: dog \(0\)"):
        only = el.sentences.mine(str(one), ["cat", "dog"], per_concept=6)
    assert only.counts.to_dict() == {"cat": 6, "dog": 0}


def test_a_set_is_saved_as_load_concepts_reads_it(tmp_path):
    concepts = [el.sentences.Concept("cat", "animal"), el.sentences.Concept("dog", "animal")]
    found = el.sentences.mine([*CATS, *DOGS, 'He said "cat" and the dog heard it.'], concepts, per_concept=6)
    read = el.load_concepts(found.save(tmp_path / "new" / "mine.tsv"))
    assert (read.concepts, read.domains) == (("cat", "dog"), ("animal", "animal"))
    assert set(read.sentences) == set(found.table["sentence"])


def test_a_function_is_asked_until_there_are_enough_and_told_what_is_there():
    asked = []

    def service(prompt, seed):
        asked.append((prompt, seed))
        return answer(CATS[3 * (len(asked) - 1) : 3 * len(asked)])

    with pytest.warns(ExpertLensWarning, match="are doubtful"):  # they differ in a number
        found = el.sentences.write(service, [el.sentences.Concept("cat", "animal")], per_concept=5, per_answer=3)
    assert list(found.table["sentence"]) == CATS[:5]
    assert list(found.table["source"]) == ["service:1"] * 3 + ["service:2"] * 2
    assert len(asked) == len({seed for _, seed in asked}) == 2
    assert "the word cat (in the sense of: animal)" in asked[0][0] and "Write 3 " in asked[0][0]
    assert CATS[0] in asked[1][0] and CATS[0] not in asked[0][0]


def test_what_is_no_sentence_of_the_concept_is_not_kept_and_asking_ends():
    with pytest.warns(ExpertLensWarning, match=r"cat \(1\). Raise most_answers"):
        found = el.sentences.write(
            lambda prompt, seed: answer([CATS[0], DOGS[0], "A cat."]), ["cat"], per_concept=4, most_answers=3
        )
    assert list(found.table["sentence"]) == CATS[:1]


def test_written_sentences_are_audited_and_the_doubtful_are_kept_and_told():
    sentences = {
        "cat": ["The cat slept by the fire all day.", "My cat hates rain.", "A cat has sharp claws and soft ears."],
        "dog": ["The dog slept by the fire all day.", "Her dog ran after the ball.", "Every dog wants long walks."],
    }

    def service(prompt, seed):
        return answer(sentences["dog" if "dog" in prompt else "cat"])

    problems = r"reads like another concept \(2\), near-duplicate \(2\)"
    told = rf"^2 of 6 sentences are doubtful: {problems}\. They are kept; `\.audit` of the set says which and why"
    with pytest.warns(ExpertLensWarning, match=told):
        found = el.sentences.write(service, ["cat", "dog"], per_concept=3, min_words=4)
    assert list(found.table["sentence"]) == [*sentences["cat"], *sentences["dog"]]
    grave = found.audit.table[found.audit.table["severity"] == "high"]
    assert set(grave["sentence"]) == {sentences["cat"][0], sentences["dog"][0]}
    expected = el.sentences.audit(el.load_concepts(found.table, minimum_sentences=1)).table
    assert found.audit.table.to_dict() == expected.to_dict()


def test_a_clean_written_set_is_told_nothing_of_and_an_empty_one_has_no_audit():
    lines = ["The cat slept by the fire all day.", "My cat hates rain and thunder.", "A cat has very sharp claws."]
    found = el.sentences.write(lambda prompt, seed: answer(lines), ["cat"], per_concept=3, min_words=5)
    assert found.audit.table.empty and found.audit.sentences == {"cat": 3}
    with pytest.warns(ExpertLensWarning, match=r"cat \(0\)"):
        assert el.sentences.write(lambda prompt, seed: "No.", ["cat"], per_concept=3, most_answers=1).audit is None
    assert el.sentences.mine(CATS, ["cat"], per_concept=6).audit is None


@pytest.mark.long
def test_a_packaged_model_writes_by_continuing_openings():
    model = el.load_model("lenslet-2m")
    with pytest.warns(ExpertLensWarning):
        found = el.sentences.write(model, ["cat"], kind="stories", per_concept=60, per_answer=8, most_answers=1)
    assert set(found.table["source"]) <= {f"{model.name}:1"}
    assert all("cat" in sentence.lower() for sentence in found.table["sentence"])


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda: el.sentences.mine(CATS, []), ConceptDataError, "give at least one"),
        (lambda: el.sentences.mine(CATS, "cat"), ConceptDataError, r"wanted a list of words: \['cat'\]"),
        (lambda: el.sentences.mine(CATS, ["cat", "Cat"]), ConceptDataError, "the same word"),
        (lambda: el.sentences.mine(CATS, ["cat"], per_concept=0), SelectionError, "wanted 1 or more"),
        (lambda: el.sentences.mine(CATS, ["cat"], min_words=9, max_words=3), SelectionError, "9 to 3 words"),
        (lambda: el.sentences.mine("no such file", ["cat"]), CorpusError, "no text file no such file"),
        (lambda: el.sentences.mine([*CATS, __file__], ["cat"]), CorpusError, r"is a file. Give pathlib.Path\("),
        (lambda: el.sentences.write("gpt", ["cat"]), SelectionError, "writer is a str; wanted a model"),
        (lambda: el.sentences.write(print, ["cat"], kind="poem"), SelectionError, "Choose from: facts, stories"),
        (lambda: el.sentences.write(print, ["cat"], per_answer=0), SelectionError, "per_answer=0; wanted 1 or more"),
    ],
)
def test_what_cannot_be_made_is_refused(ask, error, message):
    with pytest.raises(error, match=message):
        ask()


def test_a_set_that_cannot_be_read_back_is_not_saved(tmp_path):
    found = el.sentences.mine([*CATS], ["cat"], per_concept=6)
    with pytest.raises(ConceptDataError, match="ends in .tsv"):
        found.save(tmp_path / "cats.txt")
    with pytest.warns(ExpertLensWarning):
        empty = el.sentences.mine(DOGS, ["cat"], per_concept=6)
    with pytest.raises(ConceptDataError, match="no sentences to save"):
        empty.save(tmp_path / "cats.tsv")
