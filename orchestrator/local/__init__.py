"""The whole lab on one machine: its files, its processes, its supervisor. On real machines systemd does this."""
