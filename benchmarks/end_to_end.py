"""From a model and sentences to every unit's expertise: against apple/ml-selfcond, and against PyTorch with hooks.

    python benchmarks/end_to_end.py [--selfcond PATH_TO_A_CHECKOUT] [--concepts 176] [--sentences_per_concept 40]

The model has GPT-2's shape (124 million parameters, 82,944 units) and random weights; the sentences are the packaged
`facts`, under a byte-level BPE tokenizer trained on the packaged sentences. In one run:

- expertlens_jax: `find_experts` without halves or permutations, which no other side has: with compilation, and again.
- apple/ml-selfcond, its own code from a checkout (github.com/apple/ml-selfcond, written with commit c5e0921), on the
  same units, as its scripts call it: for each concept the model is loaded, `ConceptDataset` reads 40 positives and
  100 negatives drawn for them, `cache_responses` writes pickles, `read_responses_from_cached` reads them, and
  `ExpertiseResult.build` ranks unit by unit. Some concepts are timed and multiplied up to all. Batches of 30 and
  sentences padded to 128 tokens are its scripts' defaults (`--selfcond_tokens`). Nothing of it had to be patched
  for transformers 5. Its maximum takes in the padding and its negatives are another sample, so its AP differs from
  ours; what is compared is our ranking of its responses, and how many of these padding has raised.
- PyTorch: one pass over all sentences as in `recording.py`, then scikit-learn's `average_precision_score` unit by
  unit and concept by concept with our weights, timed on a sample and multiplied up, and divided by the number of
  cores, as if it were spread over them without loss.

PyTorch's protocol is ours, so AP should be the same, up to float32's noise: sentences whose responses are closer than
it change places or tie. That is no rare case in a causal model, whose first token knows nothing of the others: where it
has a unit's maximum, all sentences that begin alike tie, or nearly. So where AP differs by more than 1e-5, it is told
whether the noise explains it. As to the machine's load, see `recording.py`.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from recording import (
    MODULES,
    add_model_arguments,
    load_pytorch,
    num_cores,
    record_with_hooks,
    save_gpt2,
    save_tokenizer,
    show_load,
    tokenize,
)
from sklearn.metrics import average_precision_score

PARTS = ("sentences", "load model", "cache responses", "read them", "rank")  # of what apple/ml-selfcond does
TOLERANCE = 1e-5  # of AP
RAISED = 1e-4  # of a response: more than float noise
NOISE_SENTENCES = 256  # on which the two frameworks' responses are compared


def main() -> None:
    """Runs the sides one after the other, and prints seconds, ratios and differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=176, help="the first so many, 5 or more")
    parser.add_argument("--sentences_per_concept", type=int, default=40)
    parser.add_argument("--sampled_pairs", type=int, default=300, help="(concept, unit) pairs for scikit-learn")
    parser.add_argument("--tokens_per_batch", type=int, default=1024, help="ours and PyTorch's, padding included")
    parser.add_argument("--selfcond", type=pathlib.Path, help="a checkout of apple/ml-selfcond")
    parser.add_argument("--selfcond_concepts", type=int, default=1, help="how many to time")
    parser.add_argument("--selfcond_tokens", type=int, default=128, help="to which it pads sentences")
    add_model_arguments(parser)
    parser.add_argument("--directory", type=pathlib.Path, help=argparse.SUPPRESS)  # given to selfcond's process
    arguments = parser.parse_args()
    if arguments.directory:
        be_selfcond(arguments)
        return
    show_load()
    with tempfile.TemporaryDirectory() as name:
        arguments.directory = pathlib.Path(name)
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """All sides, on a model made in the directory."""
    import jax

    import expertlens_jax as el

    directory = arguments.directory
    facts = el.load_concepts("facts")
    save_tokenizer(directory / "model", [*facts.sentences, *el.load_concepts("stories").sentences])
    save_gpt2(directory / "model", layers=arguments.layers, width=arguments.width, heads=arguments.heads)
    concepts = first_concepts(facts, arguments.concepts, arguments.sentences_per_concept)
    selfcond = run_selfcond(arguments, concepts) if arguments.selfcond else None
    model = el.load_model(str(directory / "model"))
    num_concepts, num_sentences = concepts.labels.shape
    num_tokens = sum(map(len, tokenize(directory / "model", concepts.sentences)))
    print(f"{num_concepts} concepts, {num_sentences} sentences, {num_tokens} tokens, {len(model.units)} units,")
    print(f"{num_cores()} cores; jax {jax.__version__} on {jax.local_device_count()} {jax.default_backend()}")

    expertise, cold = find(model, concepts, directory / "first", arguments)
    _, warm = find(model, concepts, directory / "second", arguments)
    show("expertlens_jax, compiled", warm)
    show("expertlens_jax, from cold", cold, "with compilation")
    if selfcond:
        show_selfcond(selfcond, model, num_concepts, (warm, cold))
    else:
        print("apple/ml-selfcond was left out: give --selfcond PATH_TO_A_CHECKOUT")
    compare_pytorch(arguments, model, concepts, expertise, (warm, cold))


def first_concepts(concepts: Any, number: int, sentences_each: int) -> Any:
    """The first concepts, with the first of their sentences."""
    labels = concepts.labels[:number]
    kept = np.unique(np.concatenate([np.flatnonzero(row)[:sentences_each] for row in labels]))
    return dataclasses.replace(
        concepts,
        sentences=tuple(concepts.sentences[i] for i in kept),
        concepts=concepts.concepts[:number],
        domains=concepts.domains[:number],
        labels=labels[:, kept],
        negative_pool=concepts.negative_pool[kept],
    )


def find(model: Any, concepts: Any, workdir: pathlib.Path, arguments: argparse.Namespace) -> tuple[Any, float]:
    """Our side: the table, and the seconds it took."""
    import expertlens_jax as el

    options = {"permutations": 0, "halves": False, "tokens_per_batch": arguments.tokens_per_batch}
    return timed(lambda: el.find_experts(model, concepts, workdir, **options))


def compare_pytorch(
    arguments: argparse.Namespace, model: Any, concepts: Any, expertise: Any, ours: tuple[float, float]
) -> None:
    """PyTorch's and scikit-learn's side, and how far AP is from ours."""
    import torch

    import expertlens_jax as el

    directory = arguments.directory / "model"
    reference = load_pytorch(directory)
    with torch.inference_mode():
        reference(input_ids=torch.zeros((2, 8), dtype=torch.long))  # starts its threads
    values, recording = timed(
        lambda: record_with_hooks(reference, tokenize(directory, concepts.sentences), arguments.tokens_per_batch)
    )

    num_concepts, num_units = len(concepts.concepts), len(model.units)
    pairs = np.random.default_rng(0).integers([num_concepts, num_units], size=(arguments.sampled_pairs, 2))
    weights = el.contrast_concepts(concepts).weights()
    problems = [(concepts.labels[c], values[:, u].copy(), weights[c]) for c, u in pairs]
    theirs, seconds = timed(lambda: np.array([precision(*problem) for problem in problems]))
    ranking = seconds / len(pairs) * num_concepts * num_units / num_cores()
    show(f"PyTorch {torch.__version__}", recording + ranking, ratios(recording + ranking, *ours))
    print(
        f"    pass {recording:.1f} s; scikit-learn {ranking:,.1f} s, from {len(pairs)} pairs, over {num_cores()} cores"
    )

    found = expertise["average_precision"].to_numpy()[tuple(pairs.T)]
    few = concepts.sentences[:NOISE_SENTENCES]
    noise = float(np.abs(el.record_responses(model, few).values - values[: len(few)]).max())
    far = np.flatnonzero(np.abs(found - theirs) > TOLERANCE)
    explained = sum(is_noise(found[i], *problems[i], noise) for i in far)
    print(f"largest difference in AP, ours from PyTorch's, {len(pairs)} pairs: {np.abs(found - theirs).max():.1e}")
    print(
        f"    {len(far)} differ by more than {TOLERANCE:.0e}; float noise of the responses explains {explained} of them"
    )
    print(f"    (the noise: {noise:.1e} at most, on {len(few)} sentences)")


def is_noise(found: float, labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, noise: float) -> bool:
    """Whether an AP is one that these scores could have if each were off by the noise, up or down.

    Two of them then change places or tie where they are less than twice the noise apart. The k-th strongest positive
    has at least k as strong as itself; at most, all that may tie with it.
    """
    ascending = np.sort(scores[labels].astype(np.float64))
    positives, apart = ascending[::-1], 2 * noise
    negatives = ~labels & (weights > 0)

    def precisions(num_positives: np.ndarray, thresholds: np.ndarray) -> float:
        above = (scores[negatives][None] >= thresholds[:, None]) @ weights[negatives]
        return (num_positives / (num_positives + above)).mean()

    low = precisions(np.arange(1, len(positives) + 1), positives - apart)
    high = precisions(len(positives) - np.searchsorted(ascending, positives - apart), positives + apart)
    return low - TOLERANCE <= found <= high + TOLERANCE


def precision(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    """scikit-learn's average precision."""
    return average_precision_score(labels, scores, sample_weight=weights)


def run_selfcond(arguments: argparse.Namespace, concepts: Any) -> dict[str, Any]:
    """Runs apple/ml-selfcond in a process of its own, since it forks: its seconds, and its last concept's numbers."""
    import expertlens_jax as el

    contrast = el.contrast_concepts(concepts, sampled=True)
    folder = arguments.directory / "selfcond"
    folder.mkdir()
    for c in range(arguments.selfcond_concepts):
        rows = {"positive": np.flatnonzero(concepts.labels[c])}
        rows["negative"] = contrast.corrected[c][contrast.corrections[c] > 0]
        sentences = {label: [concepts.sentences[i] for i in each] for label, each in rows.items()}
        data = {"concept": concepts.concepts[c], "group": concepts.domains[c], "sentences": sentences}
        (folder / f"{c}.json").write_text(json.dumps(data))
    command = [sys.executable, __file__, "--directory", str(arguments.directory)]
    for name in ("selfcond", "selfcond_tokens", "selfcond_concepts", "layers"):
        command += [f"--{name}", str(getattr(arguments, name))]
    subprocess.run(command, check=True)
    return json.loads((folder / "seconds.json").read_text()) | dict(np.load(folder / "last.npz"))


def be_selfcond(arguments: argparse.Namespace) -> None:
    """Times its code, and keeps what it found for the last concept."""
    sys.path.insert(0, str(arguments.selfcond))
    from selfcond.data import PytorchTransformersTokenizer

    folder, parts = arguments.directory / "selfcond", dict.fromkeys(PARTS, 0.0)
    with contextlib.redirect_stdout(sys.stderr):  # it prints much
        tokenizer = PytorchTransformersTokenizer(str(arguments.directory / "model"), None)
        for c in range(arguments.selfcond_concepts):
            dataset, responses, labels, result = one_concept(arguments, folder / f"{c}.json", tokenizer, parts)
    (folder / "seconds.json").write_text(json.dumps({"parts": parts, "number": arguments.selfcond_concepts}))
    names = [f"transformer.h.{layer}.{module}:0" for layer in range(arguments.layers) for module in MODULES]
    if set(names) != set(responses):
        raise RuntimeError(f"it ranks the units of {sorted(responses)}; wanted {names}")
    np.savez(
        folder / "last.npz",
        sentences=dataset.data["data"],
        labels=labels,
        values=np.concatenate([responses[name] for name in names]).T.astype(np.float32),
        average_precision=np.concatenate([result.ap[name] for name in names]),
    )


def one_concept(
    arguments: argparse.Namespace, file: pathlib.Path, tokenizer: Any, parts: dict[str, float]
) -> tuple[Any, dict[str, np.ndarray], np.ndarray, Any]:
    """What its `compute_responses.py` and `compute_expertise.py` call for a concept; adds to the seconds by part."""
    from selfcond.data import ConceptDataset
    from selfcond.expertise import ExpertiseResult
    from selfcond.models import PytorchTransformersModel, collect_responses_info
    from selfcond.responses import cache_responses, read_responses_from_cached

    clock = [time.perf_counter()]

    def done(part: str) -> None:
        clock.append(time.perf_counter())
        parts[part] += clock[-1] - clock[-2]

    tokens, pickles = arguments.selfcond_tokens, file.with_suffix("")
    dataset = ConceptDataset(file, tokenizer, seq_len=tokens, num_per_concept=1000, random_seed=1234)
    done("sentences")
    model = PytorchTransformersModel(str(arguments.directory / "model"), None, seq_len=tokens, device="cpu")
    infos = collect_responses_info("gpt2", model)
    done("load model")
    cache_responses(model, dataset, infos, batch_size=30, save_path=pickles)
    done("cache responses")
    responses, labels, _ = read_responses_from_cached(pickles, dataset.concept)
    done("read them")
    result = ExpertiseResult()
    result.build(dataset.concept, dataset.concept_group, responses, labels)
    done("rank")
    return dataset, responses, labels, result


def show_selfcond(theirs: dict[str, Any], model: Any, num_concepts: int, ours: tuple[float, float]) -> None:
    """Its seconds multiplied up to all concepts, our ranking of its responses, and its responses beside ours."""
    import expertlens_jax as el

    number, parts = theirs["number"], theirs["parts"]
    total = sum(parts.values()) / number * num_concepts
    show("apple/ml-selfcond", total, ratios(total, *ours))
    each = ", ".join(f"{part} {seconds / number:.1f} s" for part, seconds in parts.items())
    print(f"    from {number} of {num_concepts} concepts, each: {each}")

    sentences, labels = tuple(map(str, theirs["sentences"])), theirs["labels"].astype(bool)[None]
    own = el.ConceptDataset("selfcond", sentences, ("last",), ("",), labels, np.ones(len(sentences), bool))
    responses = el.Responses.of(theirs["values"], model.units, model.name, sentences)
    ratio = float((~labels).sum() / labels.sum())
    ranked = el.measure_expertise(responses, own, negatives_per_positive=ratio, exclude_mentions=False)
    apart = np.abs(ranked["average_precision"].to_numpy()[0] - theirs["average_precision"]).max()
    difference = theirs["values"] - el.record_responses(model, sentences).values
    raised = (difference > RAISED).mean()
    print(f"    largest difference in AP, our ranking of its responses, {len(model.units)} units: {apart:.1e}")
    print(f"    padding raised {raised:.1%} of its responses above ours by more than {RAISED:.0e},", end=" ")
    print(f"and {(difference < -RAISED).mean():.1%} are below")


def ratios(seconds: float, warm: float, cold: float) -> str:
    """How many times as long as ours."""
    return f"ours is {seconds / warm:,.1f} x as fast, {seconds / cold:,.1f} x with compilation"


def show(name: str, seconds: float, note: str = "") -> None:
    """A line of the table."""
    print(f"{name:26} {seconds:12,.1f} s   {note}", flush=True)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work()` returns, and the seconds it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
