"""The console of the local platform: what its parts do, seen through their own spans."""
