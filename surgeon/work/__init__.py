"""The surgeon's heavy work as typed tasks in child processes, remembered by the hash of what went in."""
