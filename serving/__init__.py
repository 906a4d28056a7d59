"""Conversations over a WebSocket, in the protocol that realtime clients speak."""
