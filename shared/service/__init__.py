"""What every HTTP service of the lab is made of: serving, tokens, TLS, audit, what systemd is told."""
