"""Tests of edgeprune.lower."""
