"""From a checkpoint to a Flax module that taps its units."""

import logging

# transformers says on import that models won't be available without PyTorch. Here they are: none of its own run.
logging.getLogger("transformers").addFilter(lambda record: "PyTorch was not found" not in record.getMessage())
