"""Training small language models on the one stack: text to tokens, tokens to parameters."""
