"""The Langevin audit: what the limit theorems assume of the noise of SGD, one file an assumption."""
