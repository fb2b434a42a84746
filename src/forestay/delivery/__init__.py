"""What leaves on its own: webhooks."""
