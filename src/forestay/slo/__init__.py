"""Service level objectives: what was promised, how much of the error budget is left, what burns it, who must know.

Pure: values in, values out. What collects counts, keeps decisions and notifies people calls this package.
"""
