"""REST and WebSocket endpoints of the orchestrator."""
