"""Forestay keeps a fleet of generative-media model APIs available, fast, secure and safe."""

__version__ = "0.1.0"
