"""Tests of `edgeprune.measure`: static counts, latency on this host."""
