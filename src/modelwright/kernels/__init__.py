"""Kernels written for the CPU, compiled once on the machine that runs them.

A kernel is a C++ file of this room with plain C functions. It is compiled with the system's g++
or clang++ on first use (two seconds), kept in the user's cache, and always has a plain PyTorch or
numpy equivalent: without a compiler or the processor's instructions everything works, only slower.
"""
