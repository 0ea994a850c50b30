"""A meter that does not exist, speaking the real protocol on a pseudo-terminal; it says `emulated` in its hello.

`loads` is where its watts come from, `faults` what can be wrong with it, `device` the meter, `port` the terminal.
"""
