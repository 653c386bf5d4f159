"""What can go wrong, by type: every message says what was given, what was wanted, and what to do next."""


class ExpertLensError(ValueError):
    """Base of every error a user can cause; launchers print it without a traceback.

    >>> import expertlens_jax as el
    >>> try:
    ...     el.load_ratings("wordsim")
    ... except el.ExpertLensError as error:
    ...     print(type(error).__name__)
    RatingsError
    """


class ConceptDataError(ExpertLensError):
    """A concept file, or a set of sentences, that can't be used as given."""


class SelectionError(ExpertLensError):
    """A choice of experts, units or sites that doesn't exist or selects nothing by mistake."""


class SettingError(SelectionError, TypeError):
    """A setting that a function doesn't have, that was given twice, or that is of the wrong kind."""


class UnfitConceptsError(SelectionError, ConceptDataError):
    """Sound sentences that one experiment can't use, though others can: without domains, too few, of other concepts."""


class RatingsError(ExpertLensError):
    """A human similarity dataset that can't be found or read."""


class CheckpointError(ExpertLensError):
    """A model directory or weight file that is missing, damaged, or doesn't fit its config."""


class UnsupportedModelError(CheckpointError):
    """A `model_type` that no family translates."""


class UnsupportedSAEError(CheckpointError):
    """A sparse autoencoder of a kind that can't be computed, or that doesn't fit the model."""


class TokenizationError(ExpertLensError):
    """Sentences that the model's tokenizer or context can't take."""


class ResponsesError(ExpertLensError):
    """Responses that can't be ranked, or that belong to another model or other sentences."""


class BudgetError(ExpertLensError):
    """Work that doesn't fit in the memory or on the disk it may take."""


class HostError(ExpertLensError):
    """Another process of the program that stopped, or can't be reached."""


class CorpusError(ExpertLensError):
    """Text that a model can't be trained on as given."""


class EndpointError(ExpertLensError):
    """An endpoint of a language model that can't be reached, refuses, or doesn't answer as it should."""


class ServerError(ExpertLensError):
    """An address at which a page can't be served, or what serves it that isn't installed."""


class SuiteError(ExpertLensError):
    """A config, or a setting on the command line, that doesn't exist or isn't for the experiment."""


class RunDirectoryError(ExpertLensError):
    """A run directory that holds something else than what is about to be written."""


class HubError(ExpertLensError):
    """A repository of the hub that can't be written, or holds something else than what is about to be written."""


class FailedExperimentsError(ExpertLensError):
    """Experiments of a suite that stopped with an error, while the others went on."""


class ExpertLensWarning(UserWarning):
    """Something a user should know that doesn't stop the work.

    >>> import expertlens_jax as el, pathlib, tempfile, warnings
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "mine.txt"
    >>> _ = path.write_text("cat dog 9\\ncat car 2\\ndog car 1\\ndog cat 7\\n")
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always", el.ExpertLensWarning)  # or "error", to stop at any of them
    ...     ratings = el.load_ratings(path)
    >>> [each.category.__name__ for each in told], ratings.scores.tolist()  # cat and dog are rated twice
    (['ExpertLensWarning'], [8.0, 2.0, 1.0])
    """
