"""The console of the local platform: shows the work of the parts from the spans that they send."""
