"""`make demo`: from nothing to a ranked table, with the same two files that a newcomer applies."""
