"""`python -m expertlens_jax` is the command `expertlens`."""

from expertlens_jax.command import main

if __name__ == "__main__":
    main()
