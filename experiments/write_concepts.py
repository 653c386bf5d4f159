"""Makes a sentence set for new concepts: asks a language model for sentences, or takes them from text files.

Claim (Fedzechkina et al. 2025): what ExpertLens finds hardly depends on who wrote the sentences.
`experiments.stability` compares sets that different models wrote about the same concepts. The claim would be refuted if
a concept's expert sets overlap no more than those of different concepts.

    python -m experiments.write_concepts --config=configs/write_concepts.py --workdir=runs/instruments \
        --config.concepts="'violin','cello','flute'"
    python -m experiments.write_concepts --config=configs/write_concepts.py:mine --workdir=runs/mined \
        --config.concepts_from=facts --config.text=novels.txt.xz
    python -m experiments.write_concepts --config=configs/write_concepts.py:novels --workdir=runs/novels \
        --config.text=novels.txt.xz

Keeps whole sentences that hold the concept's word in a form of it (`words.find_mentions`), each once among concepts,
and asks again until there are `sentences_per_concept` or it asked `max_attempts` times. Writes into the run directory
NAME.tsv, which `el.load_concepts` reads (its column `source` tells a sentence's answer, or its line, empty ones not
counted); NAME.json (config, models, and what each concept's answers came to); NAME_audit.csv, which written sentences
are doubtful, and why (`el.sentences.audit`); and `answers/CONCEPT.jsonl`, every answer as it came, with its prompt and
seed. Killed and started again, it asks only what was not answered; with a larger `sentences_per_concept` or
`max_attempts` it goes on from the answers there are.
"""

import ml_collections
from etils import epath

from expertlens_jax.run_directory import only_writer, open_run
from expertlens_jax.sentences.acceptance import Limits
from expertlens_jax.sentences.run_sets import save_run_set
from expertlens_jax.sentences.sentence_sets import MORE_TEXT

from .launch import launch
from .sentence_writers import check, find_concepts, identity, open_writer, set_name


def run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
    """Make one sentence set."""
    workdir = epath.Path(workdir)
    concepts, limits = find_concepts(config), Limits(config.min_words, config.max_words)
    check(config)
    name = set_name(config, workdir)
    write, asked = open_writer(config, concepts, limits)
    ask_further = (
        f"{name}.json says what was refused. Launch again with a larger --config.max_attempts to ask further, or ask a "
        "better model."
    )
    with only_writer(workdir):
        open_run(workdir, identity(config) | ({"asked": asked} if asked else {}))
        print(f"Writing to {workdir}")
        rows, told = write(workdir)
        save_run_set(
            workdir,
            name,
            rows,
            told,
            concepts,
            wanted=config.sentences_per_concept,
            settings=config.to_dict(),
            remedy=MORE_TEXT if config.source == "mine" else ask_further,
            complete=config.get("complete", False),
            audited=config.source != "mine",
        )


if __name__ == "__main__":
    launch(run)
