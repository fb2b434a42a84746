"""One adapter per kind of host: fal_app, http_server, provider."""
