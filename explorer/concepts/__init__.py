"""Concepts that explanations are made of: lists of words, class labels and what they belong to."""
