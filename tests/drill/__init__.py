"""`make drill`: the platform is destroyed and restored from a backup."""
