"""Authentication: passwords, sessions, tokens, signing keys, revocations, account recovery."""
