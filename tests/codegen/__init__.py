"""Tests of codegen: kernels, memory plan, streaming, emitted C."""
