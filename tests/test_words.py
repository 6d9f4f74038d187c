"""Cheap random numbers: moments, and independence along the counter and between keys."""

import jax
import numpy as np
import pytest
from statistical import assert_mean, planted_bug

from bayes_vs_sgd.dynamics import words

CHAINS, COUNT = 2000, 512


def drawn(seed=0):
    keys = jax.random.split(jax.random.key(seed), CHAINS)
    return np.asarray(jax.vmap(lambda key: words.near_normals(key, COUNT))(keys), float)


@pytest.mark.law
def test_moments_and_independence(monkeypatch):
    def check():
        z, other = drawn(), drawn(1)
        assert_mean(z.mean(axis=1), expected=0.0, detects=0.01)
        assert_mean((z**2).mean(axis=1), expected=1.0, detects=0.02)
        assert_mean((z**4).mean(axis=1), expected=3 - 1 / 16, detects=0.1)
        for lag in (1, 2, 16, 256):  # words a lag apart
            assert_mean((z[:, :-lag] * z[:, lag:]).mean(axis=1), expected=0.0, detects=0.02)
            assert_mean((z[:, :-lag] ** 2 * z[:, lag:] ** 2).mean(axis=1), expected=1.0, detects=0.04)
        assert_mean((z * other).mean(axis=1), expected=0.0, detects=0.01)
        assert_mean(
            (z[:-1] * z[1:]).mean(axis=0), expected=0.0, detects=0.3
        )  # chains of neighbouring keys, each counter

    check()
    with planted_bug():  # a counter that is hardly mixed
        monkeypatch.setattr(words, "mixed", lambda x: x ^ (x >> 16))
        check()


@pytest.mark.law
def test_keys_that_differ_in_a_bit_have_nothing_in_common():
    """All single-bit changes of a key: the correlation of 32 x 2 pairs of streams."""
    base = jax.random.key_data(jax.random.key(5))
    stream = np.asarray(words.near_normals(jax.random.wrap_key_data(base), 2**16), float)
    flips = [base.at[word].set(base[word] ^ np.uint32(1 << bit)) for word in range(2) for bit in range(32)]
    others = np.array([words.near_normals(jax.random.wrap_key_data(flip), 2**16) for flip in flips], float)
    products = (others * stream).mean(axis=1) * 2**8
    assert np.abs(products).max() < 5.5  # 64 normals: 2e-6
