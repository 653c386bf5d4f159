"""What a launch of `experiments.find_experts` imports, which is most of what it takes on a small model.

Imported by the process that launches of tests are forked from. torch is hidden, as where it isn't installed: nothing
that is launched reads it, and it is slow to import.
"""

import importlib.util
import warnings

_found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *package: None if name == "torch" else _found(name, *package)

import matplotlib.pyplot  # noqa: E402, F401
import transformers  # noqa: E402

import experiments.find_experts  # noqa: E402, F401
import expertlens_jax as el  # noqa: E402
from expertlens_jax.data.words import find_mentions  # noqa: E402

LAZY = [getattr(el, name) for name in el.__all__]
LAZY += [transformers.PreTrainedTokenizerFast, transformers.AutoTokenizer, transformers.GPTNeoXConfig]
find_mentions(["cat"], ["A cat."])  # reads the list of English words

warnings.filterwarnings("ignore", message="os.fork")  # jax's; none of its threads runs yet
