"""Whether a model is fit to serve: what is asked of it, what it shows, what is waived, and until when."""
