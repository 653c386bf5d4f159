"""How the tests themselves compile: programs of the two ways never serve one another."""

import jax
import numpy as np
import quick_compilation


def test_a_program_that_was_compiled_the_other_way_is_forgotten():
    double = jax.jit(lambda number: number * 2 + 1)
    with quick_compilation.quick_compilation():
        assert double(np.float32(3)) == 7  # as a fixture of the whole session may, before a file says how it compiles
    assert True in quick_compilation.kept and double._cache_size() == 1
    quick_compilation.clear_programs(wanted=False)
    assert not quick_compilation.kept and double._cache_size() == 0
    assert double(np.float32(3)) == 7
    quick_compilation.clear_programs(wanted=False)
    assert quick_compilation.kept == {False} and double._cache_size() == 1
