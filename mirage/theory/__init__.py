"""Predictions for d → ∞."""
