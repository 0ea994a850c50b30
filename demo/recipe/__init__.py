"""How the demo model and its questions were made; see demo/README.md."""
