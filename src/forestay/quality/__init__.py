"""What only generative models do wrong: broken, degraded and drifting outputs, found by numbers.

Pure words and rules; media is opened in `media`, outputs are held by `worker`.
"""
