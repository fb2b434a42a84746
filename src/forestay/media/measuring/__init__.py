"""Arithmetic over decoded media: pictures, films and sound to numbers. Pure; run in the limited child."""
