"""Tests of the reference nets."""
