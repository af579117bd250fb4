"""Tests of edgeprune; they mirror the rooms."""
