"""From conditions to alerts to notifications: who is told what, when, and that it arrives once."""
