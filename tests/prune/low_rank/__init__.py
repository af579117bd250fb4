"""Tests of layers as factors and of ranks that fall (DPRP)."""
