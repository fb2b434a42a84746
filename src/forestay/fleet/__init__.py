"""What the fleet should be and what it is; the one door (`apply`) through which it is changed."""
