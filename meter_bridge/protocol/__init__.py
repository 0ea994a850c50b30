"""How a meter speaks: lines, frames, parser, sequence (docs/meter-protocol.md)."""
