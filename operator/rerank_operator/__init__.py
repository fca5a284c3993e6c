"""The operator: kopf events wake a loop that observes, plans, applies and reports."""
