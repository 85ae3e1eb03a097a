"""The proof of S2: planted secrets, driven through failures of every kind, looked for wherever anything can be seen."""
