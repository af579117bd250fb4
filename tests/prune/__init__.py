"""Tests of the prune room."""
