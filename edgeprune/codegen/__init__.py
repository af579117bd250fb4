"""codegen: the int8 program made into C firmware for Cortex-M."""
