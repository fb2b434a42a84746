"""A model's own files: what they are, whether they may be admitted, whether they are still those that were."""

from forestay.artefacts.caller_weights import check_weights

__all__ = ["check_weights"]
