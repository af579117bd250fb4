"""Tests of the load room: models and datasets, good and bad."""
