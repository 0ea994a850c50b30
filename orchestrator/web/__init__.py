"""The dashboard: static files and the routes that serve them. It uses only the public REST and WebSocket API."""
