"""One small pure module for each way in which clients ask for a ranking and read it.

`paths` says which dialect a request speaks; a dialect's `parse` gives the `Call` that the data path makes,
and the call builds the answer in the dialect that it came in.
"""
