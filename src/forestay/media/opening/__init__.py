"""What runs inside the limited child: the only place where a stranger's media is opened.

Nothing of the platform imports this package but its own program (`zygote`), which `media/decode.py` starts; Pillow and
PyAV are imported here alone. A file is first walked by our own readers, which know the few structures that are needed,
refuse what exceeds a limit before a pixel is decoded, and copy only what they know; Pillow and FFmpeg see that copy.
"""
