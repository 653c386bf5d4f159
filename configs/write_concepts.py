"""Sentences for new concepts: written by a language model, or mined from text.

    python -m experiments.write_concepts --config=configs/write_concepts.py:SOURCE --workdir=DIR \
        --config.concepts="'violin','cello','flute'"

SOURCE is `model` (one that this package runs), `endpoint` (any OpenAI-compatible one), `mine` (text files) or `novels`
(which makes the packaged set of that name; data/concepts/README.md says from what). An endpoint's key is read from the
environment variable that the config names, and is written nowhere:

    OPENAI_API_KEY=... python -m experiments.write_concepts --config=configs/write_concepts.py:endpoint \
        --config.endpoint.url=https://api.openai.com/v1 --config.endpoint.model=gpt-4o-mini --config.kind=stories \
        --config.concepts_from=facts --workdir=runs/stories_gpt-4o-mini
"""

import ml_collections
from expertlens_jax.configs.common import model_settings

from expertlens_jax.sentences.prompts import AGAIN, OPENINGS, PROMPTS, SENSE

VARIANTS = ("model", "endpoint", "mine", "novels")


def get_config(source: str = "model") -> ml_collections.ConfigDict:
    """Return every setting that a source reads; `source` is one of `VARIANTS`."""
    if source not in VARIANTS:
        raise ValueError(f"Unknown suite configs/write_concepts.py:{source}. Choose from: {', '.join(VARIANTS)}.")
    c = ml_collections.ConfigDict()
    c.source = "mine" if source == "novels" else source

    # For what: words; or a file with a concept a line and, after a tab, its domain; or "facts", for its 176
    c.concepts = ()
    c.concepts_from = ""
    c.name = ""  # of the sentence set; "" is the run directory's

    # What is kept
    c.sentences_per_concept = 40
    c.min_words = 6
    c.max_words = 26
    c.seed = 0

    if c.source == "mine":
        c.text = ()  # UTF-8 files, a paragraph a line, plain or .xz; a line `# NAME` says which book follows
        c.sentences_per_book = 0  # of a concept, at most; 0 is any number
        c.books_until = 0  # the last year in the books' names, as in `# Eliot_Adam_1859`, that is read; 0 is any
        c.books_left_out = ()  # how their names begin
        c.prose = False  # refuse torn quotes, headings, marks and dialect
        c.complete = False  # a concept gets all its sentences or none
    if source == "novels":
        del c.concepts, c.concepts_from
        # Each data set's part of speech: a word is found where it is that, and no name
        c.rated = (
            *(("simlex999_nouns", "noun"), ("simlex999_verbs", "verb"), ("simlex999_adjectives", "adjective")),
            ("wordsim353", "noun"),
        )
        c.exceptions = (("eat", "verb"), ("live", "verb"), ("holy", "adjective"))
        c.left_out = ("august",)  # without a capital it is another word
        c.domains_from = "facts"
        c.name = "novels"
        c.min_words, c.max_words = 5, 30
        c.sentences_per_book = 8  # so there are at least five
        # In the public domain: by year in the United States, and where it ends 70 years after the author's death
        c.books_until = 1930
        c.books_left_out = ("Forster_",)
        c.prose = c.complete = True
    if c.source == "mine":
        return c

    # How it is asked
    c.kind = "facts"  # of the prompts
    c.prompts = dict(PROMPTS)
    c.sense = SENSE  # where the domain is known
    c.again = AGAIN  # "" asks the same again
    c.sentences_per_answer = 20
    c.max_attempts = 8  # answers a concept, at most

    if source == "endpoint":
        c.endpoint = ml_collections.ConfigDict()
        c.endpoint.url = "http://localhost:8000/v1"
        c.endpoint.model = ""
        c.endpoint.key_variable = ""  # the environment variable that holds the key, such as OPENAI_API_KEY
        c.endpoint.body = '{"temperature": 1.0, "max_tokens": 2048}'  # further fields of a request; null leaves one out
        c.endpoint.timeout = 120.0  # seconds
        c.endpoint.tries = 6
        c.endpoint.longest_wait = 60.0  # seconds, between tries
        return c

    c.update(model_settings("lenslet-2m"))
    # One tuned to chat is asked by the prompt; any other continues openings. "" chats where there is a chat template
    c.style = ""  # or "chat", "continue"
    c.openings = dict(OPENINGS)
    c.max_new_tokens = 0  # of an answer, or of a continuation; 0 is 2048 to chat and 48 to continue
    c.temperature = 0.8
    c.top_p = 0.95
    return c
