"""Runs the manifests of knative/base on one machine, without a cluster: `python -m knative.local --help`."""
