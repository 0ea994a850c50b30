"""The one door to llama.cpp's C library, and the wheel that brings it."""
