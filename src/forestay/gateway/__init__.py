"""The way in: fal's wire protocol over HTTP, server-sent events and WebSockets."""
